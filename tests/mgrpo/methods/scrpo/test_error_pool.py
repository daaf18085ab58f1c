"""Which wrong attempts wait for a correction, for how long, and when it is their turn."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mgrpo.methods.scrpo.error_pool import ErrorPool, ErrorPoolSettings, right_variance
from mgrpo.types import Completion, CompletionId, FinishReason, Problem, Reward

RIGHT, WRONG = Reward(value=1.0, correct=True), Reward(value=0.0)
TIMEOUT = Reward(value=0.0, status="timeout")


def attempt(
    slot: int,
    index: int,
    reward: Reward | None,
    *,
    version: int = 0,
    finish: FinishReason = "stop",
) -> Completion:
    return Completion(
        id=CompletionId.named(f"s0p{slot}#{index}"),
        problem_id=f"p{slot}",
        domain="d",
        layer=1,
        parent_id=None,
        group_key=f"s0p{slot}",
        prompt=[1],
        token_ids=[2],
        rollout_logprobs=[-1.0],
        finish_reason=finish,
        version_spans=((0, version),),
        text="",
        prompt_text="",
        reward=reward,
    )


def group(slot: int, values: list[int], **changes: Any) -> list[Completion]:
    rewards = [RIGHT if value else WRONG for value in values]
    return [attempt(slot, index, reward, **changes) for index, reward in enumerate(rewards)]


def problems(count: int) -> list[Problem]:
    return [Problem(problem_id=f"p{n}", question=f"q{n}", answer="1") for n in range(count)]


def pool(**settings: Any) -> ErrorPool:
    return ErrorPool(ErrorPoolSettings(**settings))


def names(errors: ErrorPool) -> list[str]:
    return [one.attempt.completion_id for one in errors.waiting]


@pytest.mark.parametrize(
    ("rewards", "variance", "enters"),
    [
        ([1, 0, 0, 1], 0.25, True),
        ([1, 0, 0, 0], 0.1875, True),
        ([1, 0, 0, 0, 0, 0, 0, 0], 0.109375, True),
        ([1, *[0] * 15], 0.05859375, False),
        ([1, 1, 1, 1], 0.0, False),
        ([0, 0, 0, 0], 0.0, False),
    ],
)
def test_problems_that_are_sometimes_solved_enter(
    rewards: list[int], variance: float, enters: bool
) -> None:
    attempts = group(0, rewards)
    assert right_variance(attempts) == pytest.approx(variance)
    errors = pool(variance_threshold=0.1)
    num_wrong = rewards.count(0) * enters
    assert errors.add(problems(1), attempts) == len(errors) == num_wrong


def test_the_threshold_itself_is_enough() -> None:
    assert pool(variance_threshold=0.25).add(problems(1), group(0, [1, 0])) == 1


def test_failed_checks_count_neither_as_right_nor_as_wrong() -> None:
    attempts = [*group(0, [1, 0]), attempt(0, 2, TIMEOUT), attempt(0, 3, None)]
    assert right_variance(attempts) == 0.25
    assert right_variance([attempt(0, 0, TIMEOUT)]) == 0.0
    errors = pool()
    errors.add(problems(1), attempts)
    assert names(errors) == ["s0p0#1"]


def test_a_full_pool_forgets_its_oldest_error() -> None:
    errors = pool(capacity=2)
    for slot in range(3):
        errors.add([problems(3)[slot]], group(slot, [1, 0]))
    assert names(errors) == ["s0p1#1", "s0p2#1"]
    assert [one.problem.problem_id for one in errors.waiting] == ["p1", "p2"]


def test_each_error_keeps_its_own_problem() -> None:
    errors = pool()
    attempts = [*group(0, [1, 1]), *group(1, [0, 1]), *group(2, [1, 0])]
    errors.add(problems(3), attempts)
    assert [(one.problem.problem_id, one.attempt.problem_id) for one in errors.waiting] == [
        ("p1", "p1"),
        ("p2", "p2"),
    ]


def test_truncated_attempts_stay_out_where_layer_two_would_not_correct_them() -> None:
    attempts = [attempt(0, 0, RIGHT), attempt(0, 1, WRONG, finish="length"), attempt(0, 2, WRONG)]
    assert pool().add(problems(1), attempts) == 2
    errors = pool()
    assert errors.add(problems(1), attempts, skip_truncated=True) == 1
    assert names(errors) == ["s0p0#2"]


def test_attempts_of_old_policies_are_dropped() -> None:
    errors = pool(max_age=3)
    for slot, version in enumerate([0, 1, 2]):
        errors.add([problems(3)[slot]], group(slot, [1, 0], version=version))
    assert errors.drop_stale(4) == 1  # version 0 is 4 versions old
    assert names(errors) == ["s0p1#1", "s0p2#1"]
    assert errors.drop_stale(100) == 2 and len(errors) == 0


def test_without_a_limit_nothing_grows_too_old() -> None:
    errors = pool()
    errors.add(problems(1), group(0, [1, 0]))
    assert errors.drop_stale(10_000) == 0 and len(errors) == 1


def test_dropping_keeps_the_capacity() -> None:
    errors = pool(capacity=2, max_age=5)
    errors.add(problems(1), group(0, [1, 0, 0, 0]))
    errors.drop_stale(0)
    errors.add(problems(1), group(0, [1, 0, 0, 0]))
    assert len(errors) == 2


def test_the_oldest_errors_are_taken_and_named_after_their_new_places() -> None:
    errors = pool()
    errors.add(problems(2), [*group(0, [1, 0]), *group(1, [0, 1])])
    taken_problems, attempts = errors.take(step=7, num_wanted=5)
    assert [one.problem_id for one in taken_problems] == ["p0", "p1"]
    assert [one.completion_id for one in attempts] == ["s7p0#0", "s7p1#0"]
    assert [one.group_key for one in attempts] == ["s7p0", "s7p1"]
    assert len(errors) == 0


def test_a_full_pool_is_corrected_until_less_than_a_step_is_left() -> None:
    errors = pool(capacity=4)
    errors.add(problems(1), group(0, [1, 0, 0, 0]))
    assert not errors.is_due(0, num_wanted=2)  # 3 of 4
    errors.add(problems(1), group(0, [1, 0]))
    due = []
    for step in range(4):
        due.append(errors.is_due(step, num_wanted=2))
        if due[-1]:
            errors.take(step, num_wanted=2)
    assert due == [True, True, False, False]


def test_a_pool_smaller_than_a_step_is_emptied_at_once() -> None:
    errors = pool(capacity=2)
    errors.add(problems(1), group(0, [1, 0, 0]))
    assert errors.is_due(0, num_wanted=16)
    assert len(errors.take(0, num_wanted=16)[1]) == 2
    assert not errors.is_due(1, num_wanted=16)


def test_every_nth_step_corrects_as_far_as_there_is_anything() -> None:
    errors = pool(switch="every_n_steps", every_steps=3)
    assert not any(errors.is_due(step, 2) for step in range(6))
    errors.add(problems(1), group(0, [1, 0]))
    assert [errors.is_due(step, 2) for step in range(6)] == [False, False, True] * 2


def test_a_pool_goes_on_where_another_stood() -> None:
    settings = ErrorPoolSettings(capacity=4, variance_threshold=0.1)
    problem = Problem(problem_id="p0", question="?", answer="1", metadata={"unit": "cm"})
    pool = ErrorPool(settings)
    pool.add([problem], [attempt(0, 0, RIGHT), *(attempt(0, i, WRONG) for i in (1, 2, 3, 4))])
    assert len(pool) == 4 and pool.is_due(0, 2)
    other = ErrorPool(settings)
    other.load_state_dict(json.loads(json.dumps(pool.state_dict())))
    assert list(other.waiting) == list(pool.waiting) and other.is_draining
    assert other.take(9, 2) == pool.take(9, 2)
