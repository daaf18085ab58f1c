"""A group is stopped where its first rewards agree; what that does to its expected gradient.

Rewards are 0 or 1, right with probability p. The score of a right completion is then 1 / p in units
of dp, and that of a wrong one -1 / (1 - p); a group's gradient is the sum of weight x advantage x
score. All outcomes are enumerated, so expectations are exact.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from typing import Any

import pytest

from actors.layers import PromptRequest, split_requests
from actors.programs import Task, agree, in_parts
from learner.batch import build_batch
from mgrpo.config import ObjectiveConfig
from mgrpo.config.layers import CorrectLayer, StopOnAgreement
from mgrpo.errors import ConfigError
from mgrpo.records.turns import Prompt
from mgrpo.types import Completion, CompletionId, Problem
from tests.actors.test_rollout import PROBLEMS, chain, rollout, run, scripted
from tests.learner.builders import completion, layer, solve_layer, with_status

H, FIRST = 4, 2


class Rewards:
    """Tools whose corrections have the rewards that are given, by number."""

    seed = 0

    def __init__(self, rewards: Sequence[float]) -> None:
        self.rewards = rewards
        self.num_sampled = 0

    async def sample_all(
        self, number: int, problem: Problem, requests: Sequence[PromptRequest]
    ) -> list[Completion]:
        places = [one.first_index + place for one in requests for place in range(one.num_samples)]
        self.num_sampled += len(places)
        return [completion(f"q/1/{place}", self.rewards[place]) for place in places]


def family(group: str = "q/1", size: int = H) -> list[PromptRequest]:
    return [
        PromptRequest(
            prompt=Prompt.of([1]),
            num_samples=size,
            group_key=group,
            parent_id=group,
            guidance_id=0,
            within=CompletionId(0, 0, (0,)),
        )
    ]


def sampled(
    rewards: Sequence[float], stop: StopOnAgreement, group: str = "q/1"
) -> list[Completion]:
    task = Task(problem=PROBLEMS[0], step=0, tree=CompletionId(0, 0), first_layer=2, last_layer=2)
    tools: Any = Rewards(rewards)
    return asyncio.run(in_parts(task, tools, 2, stop, family(group)))


def gradient(completions: Sequence[Completion], p: float, **advantage: Any) -> float:
    """In units of dp: what the learner makes of a group."""
    layers = [solve_layer(), layer(select="none", group_size=H, advantage=advantage or "group_z")]
    rows = build_batch(completions, layers, ObjectiveConfig()).all_rows
    total = 0.0
    for row, one in zip(rows, completions, strict=True):
        score = 1 / p if one.is_correct else -1 / (1 - p)
        total += float((row.token_weights * row.advantages).sum()) * score
    return total


def expected(p: float, gradient_of: Any) -> float:
    total = 0.0
    for rewards in itertools.product((0.0, 1.0), repeat=H):
        num_right = sum(rewards)
        total += p**num_right * (1 - p) ** (H - num_right) * gradient_of(rewards)
    return total


def whole(rewards: Sequence[float]) -> list[Completion]:
    return [completion(f"q/1/{place}", reward) for place, reward in enumerate(rewards)]


PLAIN = {"type": "group_z", "scale_by_std": False}


@pytest.mark.parametrize("p", [0.02, 0.3, 0.5, 0.9])
def test_a_stopped_group_loses_the_share_of_its_gradient_that_the_page_says(p: float) -> None:
    def stopped(rewards: Sequence[float]) -> float:
        return gradient(sampled(rewards, StopOnAgreement(first=FIRST)), p, **PLAIN)

    full = expected(p, lambda rewards: gradient(whole(rewards), p, **PLAIN))
    assert full == pytest.approx((H - 1) / H)
    q, m, n = 1 - p, FIRST, H - FIRST
    lost = n * (p ** (m - 1) * (m + (n - 1) * p) + q ** (m - 1) * (m + (n - 1) * q)) / (H * (H - 1))
    assert expected(p, stopped) / full == pytest.approx(1 - lost)


def test_with_four_and_two_first_half_of_the_gradient_is_left_near_the_ends() -> None:
    assert StopOnAgreement.__doc__ and "m / H remains" in StopOnAgreement.__doc__
    p = 1e-6

    def stopped(rewards: Sequence[float]) -> float:
        return gradient(sampled(rewards, StopOnAgreement(first=FIRST)), p, **PLAIN)

    assert expected(p, stopped) / ((H - 1) / H) == pytest.approx(FIRST / H, abs=1e-4)


@pytest.mark.parametrize("advantage", [PLAIN, {"type": "group_z"}])
def test_a_chance_to_go_on_takes_the_bias_away(advantage: dict[str, Any]) -> None:
    """Of the groups some go on; by their chance both outcomes together are the whole group."""
    p, chance = 0.3, 0.25
    stop = StopOnAgreement(first=FIRST, go_on_chance=chance)
    names = [f"q/{number}" for number in range(40)]
    goes_on = {name: len(sampled([1.0] * H, stop, name)) == H for name in names}
    assert 0 < sum(goes_on.values()) < 20
    on = next(name for name, goes in goes_on.items() if goes)
    off = next(name for name, goes in goes_on.items() if not goes)

    def drawn(rewards: Sequence[float]) -> float:
        of_on = gradient(sampled(rewards, stop, on), p, **advantage)
        of_off = gradient(sampled(rewards, stop, off), p, **advantage)
        return chance * of_on + (1 - chance) * of_off

    full = expected(p, lambda rewards: gradient(whole(rewards), p, **advantage))
    assert expected(p, drawn) == pytest.approx(full)


def test_a_stopped_group_counts_as_a_whole_one_in_the_denominator() -> None:
    """Beside a group of another parent, whose weights must not change."""
    other = [completion(f"q/2/{place}", reward) for place, reward in enumerate((1, 0, 0, 1))]
    layers = [solve_layer(), layer(select="none", group_size=H)]

    def weights(group: Sequence[Completion]) -> list[float]:
        rows = build_batch([*group, *other], layers, ObjectiveConfig()).all_rows
        return [float(row.token_weights[0]) for row in rows if row.completion_id[:4] == "q/2/"]

    stopped = sampled([1.0] * H, StopOnAgreement(first=FIRST))
    assert [one.counts_as for one in stopped] == [2.0, 2.0]
    assert weights(stopped) == weights(whole([1.0] * H)) == [1 / 8] * 4


def test_where_first_rewards_differ_or_a_check_failed_the_rest_is_sampled() -> None:
    stop = StopOnAgreement(first=FIRST)
    assert len(sampled([1, 0, 1, 1], stop)) == H
    assert len(sampled([0, 0, 1, 1], stop)) == FIRST
    assert {one.weight for one in sampled([1, 0, 1, 1], stop)} == {1.0}
    right = completion("q/1/0", 1.0)
    assert agree([right, right])
    assert not agree([right, with_status(right, "timeout")])


def test_a_request_is_cut_where_its_samples_are_counted_from() -> None:
    first, others = split_requests(family(size=5), 2)
    assert [(one.num_samples, one.first_index) for one in first] == [(2, 0)]
    assert [(one.num_samples, one.first_index) for one in others] == [(3, 2)]
    two = [*family(size=2), *family(size=3)]
    first, others = split_requests(two, 3)
    assert [one.num_samples for one in first] == [2, 1]
    assert [(one.num_samples, one.first_index) for one in others] == [(2, 1)]


def test_the_chain_stops_parents_one_by_one_and_names_the_completions_as_ever() -> None:
    """The scripted engine's answers are its samples' numbers: only problems 0 and 1 are solved by
    one of two."""
    first, second = chain(2, 4)
    assert isinstance(second, CorrectLayer)
    stopping = second.model_copy(update={"early_stop": StopOnAgreement(first=2)})
    engine = scripted()
    completions = run(rollout(engine, [first, stopping]))
    sizes = {
        name: sum(one.group_key == f"s4p{name}" for one in completions if one.layer == 2)
        for name in ("0#0", "0#1", "1#0", "2#0", "2#1")
    }
    assert sizes == {"0#0": 4, "0#1": 4, "1#0": 4, "2#0": 2, "2#1": 2}
    again = run(rollout(scripted(), [first, stopping]))
    assert completions == again
    assert len(set(engine.seeds)) == len(engine.seeds)


@pytest.mark.parametrize(
    ("keys", "named"),
    [
        ({"early_stop": {"type": "agreement", "first": 4}}, "early_stop.first"),
        ({"advantage": "improvement"}, "advantage"),
        ({"group_by": "query"}, "group_by"),
        ({"denominator": "retained"}, "denominator"),
        ({"over_sample": 1}, "over_sample"),
    ],
)
def test_keys_with_which_a_stopped_group_would_not_be_without_loss_are_refused(
    keys: dict[str, Any], named: str
) -> None:
    given = {"early_stop": {"type": "agreement"}, "name": "correct", "group_size": 4, **keys}
    with pytest.raises((ValueError, ConfigError), match=named):
        CorrectLayer.model_validate(given)
