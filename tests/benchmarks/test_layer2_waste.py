"""What the benchmark counts as a group with gradient, and the page that it writes."""

from __future__ import annotations

import pytest

from benchmarks.layer2_waste import (
    WAYS,
    carrying_groups,
    kept_attempts,
    measured,
    page_lines,
    windows,
)
from mgrpo.config.load import load_recipe
from mgrpo.types import Completion, CompletionId
from tests.learner.builders import attempts, completion, corrections


def recorded_step() -> list[Completion]:
    """One problem's eight attempts, of which the last four are wrong; four corrections of each, of
    which the first two agree but for the last attempt."""
    tree = CompletionId(0, 0)
    made = []
    for number in range(8):
        attempt = completion(
            "q/1", float(number < 4), id=tree.child(number), group_key=str(tree), token_ids=[3, 4],
            rollout_logprobs=[-1.0, -1.0], prompt_text="1 + 1?",
        )  # fmt: skip
        made.append(attempt)
        rewards = [1.0, 1.0, 1.0, 0.0] if number < 7 else [1.0, 0.0, 1.0, 1.0]
        made += [
            completion(
                "q/1/1",
                reward,
                id=attempt.id.child(place),
                parent_id=attempt.completion_id,
                group_key=attempt.completion_id,
            )
            for place, reward in enumerate(rewards)
        ]
    return made


def test_only_groups_with_different_rewards_carry_gradient() -> None:
    """Of the worked example's four groups two are all wrong or all right."""
    found = carrying_groups([*attempts(), *corrections()], load_recipe("quickstart"))
    assert found == [True, True, False, False]


def test_each_way_chooses_from_what_was_recorded_by_the_code_that_samples() -> None:
    found = measured([recorded_step()])["ways"]
    numbers = {way: (one["groups"], one["carrying"], one["tokens"]) for way, one in found.items()}
    assert set(numbers) == set(WAYS)
    assert numbers["all"] == (8, 8, 32)
    # Seven groups are stopped after two corrections that agree.
    assert numbers["all, early stop"] == (8, 1, 7 * 2 + 4)
    assert numbers["wrong_only"] == (*numbers["wrong_first, k 2"][:0], 4, 4, 16)
    assert numbers["wrong_only, early stop"] == (4, 1, 3 * 2 + 4)
    assert numbers["wrong_first, k 2"] == numbers["uniform_k, k 2"] == (2, 2, 8)
    assert numbers["uniform_k, k 1"] == (1, 1, 4)


def test_the_shortest_attempts_are_compared_with_all() -> None:
    made = [
        completion("q/1", float(n > 1), id=CompletionId(0, 0, (n,)), token_ids=[3] * (n + 1),
                   rollout_logprobs=[-1.0] * (n + 1))
        for n in range(8)
    ]  # fmt: skip
    found = kept_attempts(made)
    assert (found.mean_tokens, found.kept_tokens) == (4.5, 3.5)
    assert found.accuracy == 6 / 8
    assert found.kept_accuracy == pytest.approx(4 / 6)


def test_the_page_has_a_table_for_the_first_and_for_the_last_quarter() -> None:
    steps = [recorded_step()] * 8
    assert [len(part) for part in windows(steps).values()] == [2, 2]
    result = {
        "windows": {title: measured(part) for title, part in windows(steps).items()},
        "command": "this",
        "date": "today",
        "commit": "abc",
        "cpu": "one",
        "cores": 2,
        "python": "3.11",
        "packages": {"vllm": "1"},
    }
    page = "\n".join(page_lines(result))
    assert "## Steps 0 to 1" in page and "## Steps 6 to 7" in page
    assert page.count("| all | 16 | 16 | 100.0% ± 0.0% | 64 | 4 |") == 2
