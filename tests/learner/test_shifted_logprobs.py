"""The arithmetic and the words of the guard; a real update that it names or stops is in
test_deepspeed_learner.py."""

from __future__ import annotations

from itertools import chain

import numpy as np
import pytest
import torch

from learner.packing import collate
from learner.rows import TrainingRow
from learner.shifted_logprobs import Shift, described, is_shifted, mean_shifts


def row(name: str, own: list[float], shift: float, **changes: object) -> TrainingRow:
    """A completion whose recorded log-probabilities are the learner's `own`, plus a shift."""
    zeros = np.zeros(len(own))
    given = {
        "completion_id": name,
        "layer": 1,
        "prompt_token_ids": np.array([1], dtype=np.int32),
        "token_ids": np.arange(2, 2 + len(own), dtype=np.int32),
        "rollout_logprobs": np.array(own, dtype=np.float32) + np.float32(shift),
        "advantages": zeros,
        "token_weights": zeros,
    }
    return TrainingRow(**{**given, **changes})


def shifts_of(rows: list[TrainingRow], own: list[list[float]]) -> list[float]:
    found = mean_shifts(collate(rows, merge_prefixes=False), torch.tensor([*chain(*own)]))
    return found.tolist()


def test_a_constant_is_found_and_rounding_is_not() -> None:
    own = [[-1.0, -2.0, -0.5, -3.0], [-1.0, -1.0, -1.0, -1.0]]
    rounded = row("b", [-1.3, -0.7, -1.2, -0.9], 0.0)
    shifts = shifts_of([row("a", own[0], 1.0), rounded], own)
    assert shifts == pytest.approx([1.0, -0.025], abs=1e-6)
    assert is_shifted(torch.tensor(shifts), 0.5).tolist() == [True, False]


def test_few_tokens_need_a_larger_shift() -> None:
    assert shifts_of([row("a", [-1.0], 0.6)], [[-1.0]]) == pytest.approx([0.15])


def test_tokens_of_another_policy_or_of_no_engine_are_not_compared() -> None:
    own = [-1.0, -1.0, -1.0, -1.0]
    half = np.array([True, True, False, False])
    rows = [
        row("stale", own, 2.0, is_stale=half),
        row("written", own, 2.0, is_sampled=half),
        row("replayed", own, 2.0, is_replayed=True),
    ]
    assert shifts_of(rows, [own] * 3) == pytest.approx([1.0, 1.0, 0.0])


def test_what_is_not_finite_is_left_to_the_guard_for_that() -> None:
    found = torch.tensor([float("nan"), float("inf"), -0.6])
    assert is_shifted(found, 0.5).tolist() == [False, False, True]


def test_engines_and_layers_are_named_with_their_largest_shifts() -> None:
    many = [Shift("engine-1", 2, f"s3p{number}#0.1", 1.0 + number) for number in range(6)]
    said = described([*many, Shift("engine-0", 1, "s3p5#0", -5.0)], bound=0.5)
    assert said == (
        "engine-0 recorded log-probabilities in layer 1 that are not the policy's, in nats a "
        "token: s3p5#0 by -5. engine-1 recorded log-probabilities in layer 2 that are not the "
        "policy's, in nats a token: s3p5#0.1 by +6, s3p4#0.1 by +5, s3p3#0.1 by +4, s3p2#0.1 by "
        "+3 and 2 more. (learner.max_logprob_shift is 0.5 nats a token.)"
    )
