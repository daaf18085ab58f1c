from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch

from learner.nonfinite import CAUSES, Suspects, Trace, explained, suspects
from learner.rows import TrainingRow, text

FINE = text([1], [2, 3])


def row(name: str, **changes: Any) -> TrainingRow:
    return dataclasses.replace(FINE, completion_id=name, **changes)


def trace(names: list[str], loss: float = 0.5, broken: tuple[int, ...] = ()) -> Trace:
    counts = torch.tensor([float(place in broken) for place in range(len(names))])
    return Trace(names, torch.tensor(loss), counts)


def found(
    rows: list[TrainingRow] | None = None,
    traces: list[Trace] | None = None,
    weights: dict[str, torch.Tensor] | None = None,
    gradients: dict[str, float] | None = None,
) -> Suspects:
    return suspects(rows or [], traces or [], weights or {}, gradients or {})


NAN_COLUMN = {"shift": np.array([0.0, math.inf])}


@pytest.mark.parametrize(
    ("own", "cause", "named"),
    [
        (found(weights={"a.weight": torch.ones(2), "b": torch.tensor([1, math.nan])}), "", "b are"),
        (found([row("s1p2#0", rollout_logprobs=np.array([-1, -np.inf]))]), "engine", "s1p2#0"),
        (found([row("s1p2#0", advantages=np.array([math.nan, 0]))]), "", "advantages of s1p2#0"),
        (found([row("s1p2#0", columns=NAN_COLUMN)]), "plug-in", "shift of s1p2#0"),
        (found(traces=[trace(["x", "y"], broken=(1,), loss=math.nan)]), "weights are", "of y are"),
        (found(traces=[trace(["x", "y"], loss=math.inf)]), "objective", "micro-batch of x, y"),
        (found(gradients={"a": 1.0, "b": -math.inf}), "loss is finite", "gradient of b is"),
        (found(), "beyond what its type", "sum"),
    ],
)
def test_the_origin_of_what_is_not_finite_is_named(own, cause, named):
    said = explained([found(), own])
    assert cause in said and named in said


def test_the_cause_that_comes_first_explains_the_others():
    weights = {"w": torch.tensor([math.nan])}
    both = found([row("r", rollout_logprobs=np.array([math.nan, 0]))], weights=weights)
    assert explained([both]) == CAUSES["weights"].format("w")


def test_a_token_that_no_engine_sampled_needs_no_rollout_logprob():
    is_sampled = np.array([True, False])
    given = row("r", rollout_logprobs=np.array([-1.0, math.nan]), is_sampled=is_sampled)
    assert found([given])["rollout"] == []


def test_a_long_list_is_cut():
    every = [row(f"r{number}", rollout_logprobs=np.full(2, math.nan)) for number in range(11)]
    assert "r7 and 3 more are not finite" in explained([found(every)])
