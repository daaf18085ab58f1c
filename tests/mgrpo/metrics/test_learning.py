"""Which steps changed the policy, and the advice where one did not."""

from __future__ import annotations

import pytest

from mgrpo.metrics.learning import changed_policy, learning_sentence, why_nothing_was_learnt

UPDATED = {"learner/grad_norm": 0.3, "learner/skipped_updates": 0.0}
SKIPPED = {"learner/skipped_updates": 1.0, "layer1/zero_variance_fraction": 1.0}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (UPDATED, True),
        (SKIPPED, False),
        ({"learner/grad_norm": 0.0, "learner/skipped_updates": 0.0}, False),
        ({"learner/grad_norm": 9.0, "learner/skipped_updates": 1.0}, False),
        ({"learner/grad_norm": 0.3}, True),
        ({"layer1/accuracy": 0.5}, None),  # a step that only samples
    ],
)
def test_a_step_changed_the_policy_if_its_update_had_a_gradient(values, expected) -> None:
    assert changed_policy(values) is expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"layer1/truncated_fraction": 1.0}, "Raise layers.0.max_completion_tokens"),
        ({"rewards/unparsable": 0.95}, "layers.N.system_prompt"),
        ({"rewards/timeout": 0.5, "rewards/error": 0.5}, "raise rewards.deadline_s"),
        ({"layer1/accuracy": 1.0}, "too easy"),
        ({"layer1/accuracy": 0.0}, "Use easier problems"),
        ({"layer1/zero_variance_fraction": 0.5}, "No completion was selected"),
    ],
)
def test_the_advice_is_that_of_the_reason(values, expected: str) -> None:
    assert expected in why_nothing_was_learnt({"layer1/zero_variance_fraction": 1.0, **values})


def test_steps_that_changed_nothing_are_counted() -> None:
    assert learning_sentence([UPDATED, UPDATED, {"layer1/accuracy": 1.0}]) == ""
    assert learning_sentence([UPDATED, SKIPPED]) == "1 of 2 steps changed the policy."
    text = learning_sentence([SKIPPED] * 3)
    assert text.startswith("0 of 3 steps changed the policy. In all groups the rewards are equal")
    assert learning_sentence([]) == ""
