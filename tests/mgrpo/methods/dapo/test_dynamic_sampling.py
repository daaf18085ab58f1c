from __future__ import annotations

import random
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from mgrpo.errors import LearnerError
from mgrpo.methods.dapo.dynamic_sampling import DynamicSampling, StepDraw, is_mixed
from mgrpo.metric_sums import MetricSums
from mgrpo.types import Completion, CompletionId, Problem
from tests.learner.builders import completion, with_status
from tests.mgrpo.training.sources.standing import standing


class FakeRun:
    """Groups are mixed where the problem's number is even; every call is recorded."""

    policy_version = 0

    def __init__(
        self,
        *,
        num_layers: int = 1,
        prompts_per_step: int = 3,
        which_is_done: Callable[[int], int] = lambda num_waiting: 0,
    ) -> None:
        self.prompts_per_step, self.num_layers = prompts_per_step, num_layers
        self.which_is_done = which_is_done
        self.next_problem = 0
        self.calls: list[dict] = []

    def take(self, count):
        first = self.next_problem
        self.next_problem += count
        return [
            Problem(problem_id=str(number), question="?", answer="1")
            for number in range(first, self.next_problem)
        ]

    def sample(self, step, problems, sums, *, layers, slots=None, attempts=(), refill=None):
        slots = list(range(len(problems)) if slots is None else slots)
        call = {"layers": layers, "slots": slots, "attempts": list(attempts)}
        self.calls.append(call)
        made, waiting = {}, list(zip(slots, problems, strict=True))
        while waiting:
            slot, problem = waiting.pop(self.which_is_done(len(waiting)))
            place = CompletionId(step, slot)
            made[slot] = self.group(place, problem, layers[0])
            for another in refill(place, made[slot]) if refill else ():
                slots.append(max(slots) + 1)
                waiting.append((slots[-1], another))
        return [one for slot in sorted(made) for one in made[slot]]

    def group(self, place, problem, layer):
        is_even = int(problem.problem_id) % 2 == 0
        return [
            completion(
                "q/1",
                reward,
                id=place.child(number),
                problem_id=problem.problem_id,
                group_key=str(place),
                layer=layer,
            )
            for number, reward in enumerate([1.0, 0.0 if is_even else 1.0])
        ]


def roll(run: Any, **settings: Any) -> tuple[list[Completion], dict[str, float]]:
    """A step's completions: what the source sampled and the layers that are left to sample."""
    config: Any = SimpleNamespace(
        prompts_per_step=run.prompts_per_step,
        layers=[None] * run.num_layers,
    )
    sums = MetricSums()
    work = standing(DynamicSampling, config, run, **settings).next(5, run, sums)
    completions = list(work.ready)
    if work.problems:
        completions += run.sample(
            5, work.problems, sums, layers=work.layers, slots=work.slots, attempts=work.ready
        )
    return completions, sums.means()


def test_sampling_goes_on_until_every_group_is_mixed():
    run = FakeRun()
    completions, metrics = roll(run)
    assert {one.problem_id for one in completions} == {"0", "2", "4"}
    # 0 1 2 gives two, 3 gives none, 4 the last: places in the step go on counting.
    assert [call["slots"] for call in run.calls] == [[0, 1, 2, 3, 4]]
    assert metrics == {"dynamic_sampling/drawn": 5, "dynamic_sampling/kept_fraction": 3 / 5}


@pytest.mark.parametrize("fraction", [1.0, 0.6])
def test_what_is_drawn_and_kept_does_not_depend_on_which_group_is_done_first(fraction: float):
    """Of seven problems the odd ones are uniform."""
    found = set()
    for seed in range(30):
        draw = random.Random(seed).randrange
        run = FakeRun(prompts_per_step=7, which_is_done=draw)
        run.next_problem = 1
        completions, metrics = roll(run, min_mixed_fraction=fraction)
        found.add((tuple(one.completion_id for one in completions), run.next_problem))
    assert len(found) == 1
    ((names, _),) = found
    # All mixed: 7 of 14. Five of seven mixed: 1 to 10 have five, and 7 and 9 fill the step.
    assert len(names) == 14
    assert metrics["dynamic_sampling/drawn"] == (14 if fraction == 1.0 else 10)


def test_a_replacement_is_sampled_while_others_of_the_step_still_are():
    """The slow group comes last, and everything else has been drawn and done by then."""
    order: list[str] = []
    draw = StepDraw(FakeRun().take, wanted=3, needed=3, most=30)
    group = FakeRun().group
    for slot in (1, 3, 2, 4):  # slot 0 is still being sampled
        order += [one.problem_id for one in draw.refill(*done(group, draw, slot))]
    assert order == ["3", "4"]
    assert draw.refill(*done(group, draw, 0)) == []


def done(group: Any, draw: StepDraw, slot: int) -> Any:
    place = CompletionId(5, slot)
    return place, group(place, draw.problems[slot], 1)


def test_later_layers_see_only_what_was_kept_at_its_own_places():
    run = FakeRun(num_layers=2)
    completions, _ = roll(run)
    last = run.calls[-1]
    assert last["layers"] == range(2, 3) and last["slots"] == [0, 2, 4]
    assert {one.problem_id for one in last["attempts"]} == {"0", "2", "4"}
    assert {one.layer for one in completions} == {1, 2}


def test_once_all_that_may_be_is_drawn_it_trains_on_what_there_is_or_stops():
    completions, _ = roll(FakeRun(), max_rounds=1)
    assert {one.problem_id for one in completions} == {"0", "2"}
    with pytest.raises(LearnerError, match=r"only 2 of 3 .*when_exhausted"):
        roll(FakeRun(), max_rounds=1, when_exhausted="stop")


def test_a_share_may_be_enough_and_uniform_groups_fill_the_step():
    """GPG: of 5 problems 3 must be mixed. 0 to 4 give three at once."""
    run = FakeRun(prompts_per_step=5)
    completions, metrics = roll(run, min_mixed_fraction=0.6)
    assert {one.problem_id for one in completions} == {"0", "1", "2", "3", "4"}
    assert metrics == {"dynamic_sampling/drawn": 5, "dynamic_sampling/kept_fraction": 3 / 5}


def test_below_the_share_it_samples_again_and_the_newest_uniform_groups_stay():
    run = FakeRun(prompts_per_step=5)
    run.next_problem = 1  # 1 to 5 give two, 6 is the third
    completions, _ = roll(run, min_mixed_fraction=0.6)
    assert [call["slots"] for call in run.calls] == [[0, 1, 2, 3, 4, 5]]
    assert [one.problem_id for one in completions[::2]] == ["2", "3", "4", "5", "6"]


def test_short_of_the_share_at_the_end_it_stops_or_fills_up():
    run = FakeRun(prompts_per_step=5)
    run.next_problem = 1
    completions, _ = roll(run, min_mixed_fraction=0.6, max_rounds=1)
    assert [one.problem_id for one in completions[::2]] == ["1", "2", "3", "4", "5"]
    run = FakeRun(prompts_per_step=5)
    run.next_problem = 1
    with pytest.raises(LearnerError, match=r"only 2 of 3 "):
        roll(run, min_mixed_fraction=0.6, max_rounds=1, when_exhausted="stop")


def test_failed_checks_do_not_make_a_group_mixed():
    right, failed = completion("q/1", 1.0), completion("q/2", 0.0)
    assert is_mixed([right, failed])
    unknown = with_status(completion("q/2", 0.0), "timeout")
    assert not is_mixed([right, unknown])
