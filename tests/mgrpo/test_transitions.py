from __future__ import annotations

import pytest

from mgrpo.transitions import count_transitions, pairs_of, rollout_metrics
from mgrpo.types import Completion, Reward


def completion(layer: int, key: str, parent: str | None, right: bool, **keys: object) -> Completion:
    reward = Reward(value=float(right), correct=right, extracted_answer="7" if right else "8")
    return Completion(
        completion_id=key,
        problem_id="p",
        domain="d",
        layer=layer,
        parent_id=parent,
        group_key=parent or "p",
        prompt_token_ids=[1, 2],
        token_ids=[3, 4, 5],
        rollout_logprobs=[0.0] * 3,
        finish_reason="stop",
        policy_version=0,
        text="",
        prompt_text="",
        **{"reward": reward, **keys},
    )


def tree(first: list[int], second: list[list[int]]) -> list[Completion]:
    """Attempts and their corrections from 0/1 verdicts."""
    completions = [completion(1, f"p#{i}", None, bool(r)) for i, r in enumerate(first)]
    for i, verdicts in enumerate(second):
        completions += [
            completion(2, f"p#{i}.{j}", f"p#{i}", bool(r)) for j, r in enumerate(verdicts)
        ]
    return completions


def test_the_twelve_pairs_of_the_reference() -> None:
    completions = tree([1, 0, 0, 1], [[1, 1, 0], [1, 0, 0], [0, 0, 0], [1, 1, 1]])
    counts = count_transitions(pairs_of(completions, 2))
    assert (counts.wrong_to_right, counts.right_to_wrong) == (1, 1)
    assert (counts.right_to_right, counts.wrong_to_wrong) == (5, 5)
    assert counts.delta == 0


def test_the_eight_problems_of_the_reference() -> None:
    first, second = [1, 1, 1, 0, 0, 0, 1, 0], [1, 1, 0, 1, 1, 0, 1, 0]
    counts = count_transitions(pairs_of(tree(first, [[r] for r in second]), 2))
    shares = counts.fractions()
    assert shares["wrong_to_right"] == 0.25
    assert shares["right_to_wrong"] == 0.125
    assert counts.delta == sum(second) / 8 - sum(first) / 8 == 0.125


def test_the_identity_holds_over_any_pairs() -> None:
    completions = tree([1, 0, 1], [[0, 1], [1, 1], [1, 0]])
    counts = count_transitions(pairs_of(completions, 2))
    shares = counts.fractions()
    assert counts.delta == pytest.approx(shares["wrong_to_right"] - shares["right_to_wrong"])


def test_a_failed_check_leaves_its_pairs_out() -> None:
    completions = tree([1, 0], [[1], [1]])
    completions[0] = completion(1, "p#0", None, False, reward=Reward(value=0.0, status="timeout"))
    counts = count_transitions(pairs_of(completions, 2))
    assert counts.num_pairs == 1 and counts.wrong_to_right == 1
    sums = rollout_metrics(completions, 2)
    assert sums["layer1/accuracy"] == (0, 1)
    assert sums["rewards/timeout"] == (1, 4)


def test_copies_are_equal_final_answers() -> None:
    counts = count_transitions(pairs_of(tree([1, 0], [[1, 0], [0, 1]]), 2))
    assert counts.num_copies == 2


def test_metrics_are_sums_and_counts() -> None:
    sums = rollout_metrics(tree([1, 0], [[1, 0], [0, 1]]), 2)
    assert sums["layer1/accuracy"] == (1, 2)
    assert sums["layer2/accuracy"] == (2, 4)
    assert sums["layer2/completion_tokens_mean"] == (12, 4)
    assert sums["transition/layer2/wrong_to_right"] == (1, 4)
    assert sums["tokens/generated"] == (18, 1)
