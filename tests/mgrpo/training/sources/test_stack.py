"""Which sources a recipe stacks, in which order, and how a stack goes on from its state."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mgrpo.config import RunConfig
from mgrpo.methods.mgrpo_replay.source import ReplayedCorrections
from mgrpo.methods.scrpo.source import PooledErrors
from mgrpo.training.sources.fresh import FreshProblems
from mgrpo.training.sources.stack import SourceStack, make_sources
from tests.mgrpo.training.light_run import PROBLEMS

REPLAY_ABOVE_POOL = {"type": "correction_buffer", "above": "error_pool"}


def stack(tree: dict[str, Any], **sections: Any) -> SourceStack:
    config = RunConfig.model_validate({**tree, **sections})
    return make_sources(config.method_view, PROBLEMS)


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("fresh", []),
        ("dynamic", ["DynamicSampling"]),
        ({"type": "error_pool", "above": "fresh"}, ["PooledErrors"]),
        (
            {"type": "correction_buffer", "above": {"type": "preferences", "above": "dynamic"}},
            ["DynamicSampling", "PreferencePhases", "ReplayedCorrections"],
        ),
    ],
)
def test_a_recipe_names_its_sources_uppermost_first(tree, source, names):
    sources = stack(tree, source=source, plugins=[{"use": "dpo"}] * ("Pref" in str(names))).sources
    assert [type(one).__name__ for one in sources] == ["FreshProblems", *names]


def test_each_source_holds_the_one_below_it_and_the_lowest_draws(tree):
    lowest, pool, replay = stack(tree, source=REPLAY_ABOVE_POOL).sources
    assert isinstance(lowest, FreshProblems)
    assert isinstance(pool, PooledErrors) and pool.inner is lowest and pool.fresh is lowest
    assert isinstance(replay, ReplayedCorrections) and replay.inner is pool


def test_domains_are_drawn_by_the_robust_sampler(tree):
    lowest: Any = stack(tree, data={**tree["data"], "sampler": "robust"}).sources[0]
    assert set(lowest.sampler.places) == {"d0", "d1"}


def test_a_stack_goes_on_where_another_stood(tree):
    one, other = (stack(tree, source=REPLAY_ABOVE_POOL) for _ in range(2))
    lowest: Any = one.sources[0]
    lowest.take(3)
    state = json.loads(json.dumps(one.state_dict()))
    assert set(state) == {"sampler", "error_pool", "corrections"}
    other.load_state_dict(state)
    same: Any = other.sources[0]
    assert same.take(4) == lowest.take(4)


def test_a_source_without_a_state_begins_empty(tree):
    """A checkpoint of before a recipe had the source, or of before there was one."""
    plain = stack(tree).state_dict()
    later = stack(tree, source="correction_buffer")
    later.load_state_dict({**plain, "corrections": None})
    replay: Any = later.sources[-1]
    assert len(replay.buffer) == 0
