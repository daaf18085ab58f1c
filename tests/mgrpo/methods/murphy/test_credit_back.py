"""MURPHY: what an attempt is paid for its corrections."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from learner.batch import build_batch
from mgrpo.config import ObjectiveConfig
from mgrpo.config.load import load_recipe
from mgrpo.errors import ConfigError
from mgrpo.plugin import Plugin, load_plugins
from mgrpo.types import Completion
from tests.learner.builders import completion, layer, plugin, solve_layer, with_status

RAW = layer(advantage="raw_reward", select="none")
CHAIN = [solve_layer(advantage="raw_reward"), RAW, RAW]
FAMILY = [
    completion("q/1", 0.0),
    completion("q/1/1", 1.0),
    completion("q/1/2", 0.0),
    completion("q/1/3", 0.0),
    completion("q/1/4", 0.0),
]


def credited(
    completions: Sequence[Completion], num_layers: int = 2, **settings: Any
) -> dict[str, float]:
    own = plugin("credit_back", *range(1, num_layers + 1), **settings)
    batch = build_batch(completions, CHAIN[:num_layers], ObjectiveConfig(), plugins=[own])
    names = [one.completion_id for one in completions]
    return dict(zip(names, batch.shaped_rewards, strict=True))


def test_the_best_correction_or_the_mean_over_turns_is_the_attempts_own() -> None:
    assert credited(FAMILY)["q/1"] == 1.0
    assert credited(FAMILY, discount=0.5)["q/1"] == 0.5
    assert credited(FAMILY, credit="mean")["q/1"] == pytest.approx((0 + 0.25) / 2)
    assert credited(FAMILY, credit="mean", discount=0.5)["q/1"] == pytest.approx(0.125 / 2)


def test_corrections_keep_theirs_and_so_does_an_attempt_without_any() -> None:
    found = credited([*FAMILY, completion("q/2", 1.0), completion("q/3", 0.0)], credit="mean")
    assert (found["q/2"], found["q/3"]) == (1.0, 0.0)
    assert [found[f"q/1/{number}"] for number in (1, 2, 3, 4)] == [1, 0, 0, 0]


def test_a_right_attempt_is_not_worse_for_a_correction_that_spoils_it() -> None:
    spoiled = [completion("q/1", 1.0), completion("q/1/1", 0.0)]
    assert credited(spoiled)["q/1"] == 1.0
    assert credited(spoiled, credit="mean")["q/1"] == 0.5


def test_credit_passes_through_all_of_a_chain() -> None:
    """Three turns, of which the last is right: 0, 0, 1."""
    turns = [completion("q/1", 0.0), completion("q/1/1", 0.0), completion("q/1/1/1", 1.0)]
    assert credited(turns, 3, discount=0.5) == {"q/1": 0.25, "q/1/1": 0.5, "q/1/1/1": 1.0}
    found = credited(turns, 3, credit="mean")
    assert found["q/1/1"] == pytest.approx((0 + 1) / 2)
    assert found["q/1"] == pytest.approx((0 + 0.5) / 3)


def test_a_failed_check_gives_no_credit_and_gets_none() -> None:
    unknown = with_status(completion("q/1/1", 1.0), "timeout")
    assert credited([completion("q/1", 0.0), unknown])["q/1"] == 0.0
    failed = [with_status(completion("q/1", 0.0), "error"), completion("q/1/1", 1.0)]
    batch = build_batch(failed, CHAIN[:2], ObjectiveConfig(), plugins=[plugin("credit_back")])
    assert not batch.selections[0].selected


def test_the_pages_example() -> None:
    """Attempts 1, 0, 0, 1; the corrections of the second one hold a right one."""
    rewards = [1.0, 0.0, 0.0, 1.0]
    made = [completion(f"q/{number}", reward) for number, reward in enumerate(rewards, start=1)]
    for parent, right in ((2, 1.0), (3, 0.0)):
        made += [completion(f"q/{parent}/{j}", right if j == 1 else 0.0) for j in (1, 2, 3, 4)]
    chain = [solve_layer(), layer(select="none")]
    batch = build_batch(made, chain, ObjectiveConfig(), plugins=[plugin("credit_back")])
    found = [round(one.advantage, 3) for one in batch.selections]
    assert found == [0.5, 0.5, -1.5, 0.5, 1.5, -0.5, -0.5, -0.5, 0.0, 0.0, 0.0, 0.0]
    assert batch.metrics["credit_back/raised_fraction"] == (1.0, 2.0)
    assert batch.selections[1].selected
    assert credited(made, credit="mean")["q/2"] == 0.125


def test_an_attempt_that_is_credited_stays_wrong_for_selection() -> None:
    chain = [solve_layer(), layer(select="success_only_post_norm", success="strict_fix")]
    batch = build_batch(FAMILY, chain, ObjectiveConfig(), plugins=[plugin("credit_back")])
    assert [one.completion_id for one in batch.selections if one.selected][-1:] == ["q/1/1"]


@pytest.mark.parametrize(
    ("recipe", "plugins"),
    [
        ("grpo", [{"use": "credit_back"}]),
        ("quickstart", [{"use": "credit_back", "layers": ["solve"]}]),
    ],
)
def test_without_the_last_layer_there_is_nothing_to_take_back(
    recipe: str, plugins: list[dict[str, Any]]
) -> None:
    with pytest.raises(ConfigError, match="last layer to the first"):
        load_plugins(load_recipe(recipe, [f"plugins={plugins}"]).method_view, Plugin)
