"""Learning to Self-Verify: what verdicts are on, what they earn and when they train."""

import dataclasses

import pytest

from mgrpo.config.load import load_recipe
from tests.learner.builders import attempts, completion, long
from tests.mgrpo.methods.shipped import (
    advantages_of,
    built,
    children_of,
    loss_and_gradient,
    prompt_of,
    samples,
    shipped,
)
from tests.mgrpo.training.test_step_orders import WritesDown, take_step

VERIFY = shipped("self_verify")
SAYS = ["it stands.", "nothing wrong", "as before", "7, not 8", "off by ten", "hm", "hm", "hm"]


def sampled(right: set[int]):
    """Attempts, of which these are right, and verdicts, which say one thing of each."""

    def script(prompt: str, n: int) -> str:
        return SAYS[n] if "Check" in prompt else f"try {n}: {7 if n in right else 8}"

    found = samples(VERIFY, script)
    return found[1], found[2]


def test_steps_take_turns_and_nothing_is_revised():
    run = WritesDown(load_recipe("methods/self_verify"))
    for step in range(3):
        take_step(run, step)
    assert run.calls == [
        *["sample 1", "train 1", "broadcast"],
        *["sample 12", "train 2", "broadcast"],
        *["sample 1", "train 1", "broadcast"],
    ]


def test_a_right_and_a_wrong_attempt_get_eight_verdicts_each():
    made, verdicts = sampled({0, 1, 3})
    on = [one for one in made if children_of(one, verdicts)]
    assert sorted(one.is_correct for one in on) == [False, True]
    for attempt in on:
        family = children_of(attempt, verdicts)
        assert len(family) == 8
        (prompt,) = {prompt_of(one) for one in family}
        for part in ("Check the attempt.", "3+4?", attempt.text, "Hold on, I should verify that."):
            assert part in prompt


@pytest.mark.parametrize("right", [set(range(8)), set()])
def test_a_problem_of_equal_attempts_gives_no_verdicts(right: set[int]):
    assert sampled(right)[1] == []


def test_a_verdict_earns_1_where_it_says_what_the_check_says():
    """Three that accept, two that reject, three that say nothing."""
    made, verdicts = sampled({0, 1, 3})
    for attempt in made:
        earned = [one.reward and one.reward.value for one in children_of(attempt, verdicts)]
        agree = [1, 1, 1, 0, 0] if attempt.is_correct else [0, 0, 0, 1, 1]
        assert earned in ([*agree, 0, 0, 0], [])


def verdicts_on(attempt: str, rewards: list[float]):
    accepts = {"q/2": [True, False], "q/3": [False, True]}[attempt]
    return [
        dataclasses.replace(completion(f"{attempt}/{n}", reward), accepts=accepts[int(reward == 0)])
        for n, reward in enumerate(rewards, start=1)
    ]


def test_verdicts_on_one_attempt_are_compared_with_each_other():
    """The page's example: on the wrong attempt 1, 0, 1, 1, on a right one 1, 0, 0, 0."""
    made = [*verdicts_on("q/3", [1, 0, 1, 1]), *verdicts_on("q/2", [1, 0, 0, 0])]
    batch = built(VERIFY, made, context=attempts([1, 1, 0, 1]))
    assert list(advantages_of(batch).values()) == pytest.approx(
        [0.5, -1.5, 0.5, 0.5, 1.5, -0.5, -0.5, -0.5], abs=1e-5
    )
    assert len(batch.rows) == 8


def test_solving_is_grpo_averaged_over_tokens():
    """A = ±0.707107 on one token at the ratio 1.1, and on three."""
    batch = built(VERIFY, [long("q/1", 1.0, 1), long("q/2", 0.0, 3)])
    loss, _ = loss_and_gradient(VERIFY, batch.rows, [1.1, 1.0, 1.0, 1.0])
    assert loss == pytest.approx(-0.707107 * (1.1 - 3) / 4, rel=1e-5)
