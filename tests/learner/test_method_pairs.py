"""Every pair of methods is refused with a reason or makes a real update of a tiny policy.

The default suite tries a sample of the pairs, `make test-methods` all of them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from mgrpo.config.load import load_recipe
from mgrpo.errors import ConfigError
from mgrpo.methods.catalog import method_files
from mgrpo.plugin import Plugin, load_plugins
from tests.learner.method_pairs import combined
from tests.learner.pair_page import combinations_page, general
from tests.repository import REPOSITORY

SAMPLE = 70
PAGE = REPOSITORY / "docs" / "methods" / "combinations.md"


def outcomes(*arguments: str, deadline_s: float) -> list[dict[str, Any]]:
    """What the worker finds; a pair that neither runs nor is refused is a failure."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.learner.pair_worker", *arguments],
        cwd=REPOSITORY,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=deadline_s,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def check(found: list[dict[str, Any]]) -> None:
    for one in found:
        if one["kind"] == "refused":
            assert one["reasons"] and all(reason.endswith(".") for reason in one["reasons"])
        else:
            assert one["has_signal"], one
    assert {one["kind"] for one in found} == {"ran", "refused"}


def test_a_sample_of_all_pairs_runs_or_is_refused_with_a_reason() -> None:
    found = outcomes("--sample", str(SAMPLE), deadline_s=240)
    assert len(found) == SAMPLE
    check(found)


@pytest.mark.methods
@pytest.mark.timeout(1200)
def test_all_pairs_run_or_are_refused_and_the_page_says_so() -> None:
    from tests.learner.pair_worker import Outcome

    found = outcomes(deadline_s=1100)
    count = len(method_files())
    assert len(found) == count * (count - 1) // 2
    check(found)
    page = combinations_page([Outcome(**one) for one in found])
    assert page == PAGE.read_text(encoding="utf-8"), "write it again; its text says how"


def pair(first: str, second: str) -> Any:
    return combined(load_recipe(f"methods/{first}"), load_recipe(f"methods/{second}"))


def test_the_second_methods_changed_keys_take_the_place_of_the_firsts() -> None:
    both = pair("dapo", "kl_cov")
    assert both.objective.loss.clip_high == 0.28  # kl_cov leaves it at its default
    assert both.sampling.dynamic is not None
    assert pair("dapo", "gspo").layers[0].aggregation == "token_mean"
    assert pair("raft", "dr_grpo").layers[0].aggregation == "fixed_length"
    assert pair("group_dro", "grpo").layers[0].group_size == 16


def test_the_longer_chain_is_kept_whole() -> None:
    both = pair("lead", "mgrpo")
    assert [layer.name for layer in both.layers] == ["solve", "correct"]
    assert [layer.group_size for layer in both.layers] == [4, 3]
    assert [layer.group_size for layer in pair("mgrpo", "rloo").layers] == [8, 3]


def test_plug_ins_follow_and_stand_once() -> None:
    assert [one.use for one in pair("clip_cov", "lead").plugins] == ["clip_cov", "lead"]
    both = pair("raft", "raft_plus_plus")
    assert [one.use for one in both.plugins] == ["raft", "reinforce", "entropy_bonus"]
    assert both.plugins[0].settings["variant"] == "raft_plus_plus"


def test_phases_and_the_sampler_over_domains_come_along() -> None:
    assert [phase.name for phase in pair("igrpo", "score").phases] == ["both turns"]
    assert [phase.name for phase in pair("score", "think_twice").phases] == ["both turns"]
    robust = pair("lead", "robust_sampler").data.robust
    assert robust is not None and robust.radius == 0.2


@pytest.mark.parametrize(
    ("first", "second", "reason"),
    [
        ("gspo", "lambda_grpo", "a factor on single tokens has no meaning for it"),
        ("gmpo", "lambda_grpo", "a factor on single tokens has no meaning for it"),
        ("gpg", "rloo", "has estimate_advantages, and so has gpg: only one of a recipe may"),
        ("cispo", "disco", "a recipe has one policy objective, not cispo, disco"),
        ("clip_cov", "disco", "transform_advantages of clip_cov would have no effect"),
        ("dapo", "think_twice", "does not work with update_order: alternate_steps"),
    ],
)
def test_what_contradicts_each_other_is_refused(first: str, second: str, reason: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load_plugins(pair(first, second), Plugin)
    assert any(reason in str(problem) for problem in refused.value.problems)


def test_a_reason_is_said_once_for_all_pairs_that_have_it() -> None:
    one = "plugins.2.use = rloo: has estimate_advantages, and so has gpg: only one of a recipe may."
    assert general(one) == "Only one plug-in of a recipe may estimate advantages."
    unknown = "plugins.0.settings.anchor = greedy: no plug-in samples greedy answers."
    assert general(unknown) == "`greedy` no plug-in samples greedy answers."
