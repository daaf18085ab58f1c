"""The likelihood of a step's right answers after it, by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from learner.batch import build_batch
from mgrpo.config import ObjectiveConfig
from mgrpo.types import Completion
from tests.learner.builders import long, plugin, solve_layer

STEP = [
    *(long("p/1", 1.0, 2), long("p/2", 1.0, 3), long("p/3", 0.0, 2)),
    *(long("q/1", 0.0, 2), long("q/2", 1.0, 4)),
    *(long("r/1", 1.0, 2), long("r/2", 1.0, 2)),
]


class Moved:
    """The policy by now: every token has this log-probability."""

    def __init__(self, logprob: float) -> None:
        self.logprob, self.lengths = logprob, []  # type: ignore[var-annotated]

    def logprobs(self, rows: Any, *, measurement: str) -> torch.Tensor:
        self.lengths = [len(row.token_ids) for row in rows]
        return torch.full((sum(self.lengths),), self.logprob, dtype=torch.float64)


def step(part: Any, completions: list[Completion], before: float, now: float) -> tuple[Any, Moved]:
    """Metrics: each token has `before` as the step begins, and by then `now` in the last one."""
    policy, num_tokens = Moved(now), sum(len(one.token_ids) for one in completions)
    batch = build_batch(
        completions,
        [solve_layer()],
        ObjectiveConfig(),
        plugins=[part],
        measurements={"policy_logprobs": torch.full((num_tokens,), before, dtype=torch.float64)},
        policy=policy,  # type: ignore[arg-type]
    )
    return batch.metrics, policy


def test_right_answers_of_mixed_groups_are_read_again_a_step_later() -> None:
    """Each token falls from -1 to -1.5: p's answers of 2 and 3 tokens lose 1 and 1.5 nats, mean
    1.25; q's, of 4, loses 2. r has no wrong answer."""
    part = plugin("likelihood_change", 1)
    metrics, _ = step(part, STEP, -1.0, 0.0)
    assert not [name for name in metrics if name.startswith("likelihood_change/")]
    metrics, policy = step(part, STEP, -1.5, -1.5)
    assert policy.lengths == [2, 3, 4]
    assert metrics["likelihood_change/mean"] == pytest.approx((-1.25 - 2, 2.0))
    assert metrics["likelihood_change/fallen_fraction"] == (2.0, 2.0)
    metrics, _ = step(part, STEP, -1.0, -1.0)  # from -1.5 to -1
    assert metrics["likelihood_change/mean"] == pytest.approx((1.25 + 2, 2.0))
    assert metrics["likelihood_change/fallen_fraction"] == (0.0, 2.0)


def test_it_goes_on_from_a_checkpoint_and_reads_no_more_than_it_may() -> None:
    part = plugin("likelihood_change", 1, max_answers=2)
    step(part, STEP, -1.0, 0.0)
    resumed = plugin("likelihood_change", 1, max_answers=2)
    resumed.load_state_dict(part.state_dict())
    metrics, policy = step(resumed, STEP, -1.0, -2.0)
    assert policy.lengths == [2, 3]
    assert metrics["likelihood_change/mean"] == pytest.approx((-2.5, 1.0))


def test_advantages_and_weights_stay_as_they_are() -> None:
    part = plugin("likelihood_change", 1)
    own = build_batch(
        STEP,
        [solve_layer()],
        ObjectiveConfig(),
        plugins=[part],
        measurements={"policy_logprobs": -torch.ones(17, dtype=torch.float64)},
    )
    plain = build_batch(STEP, [solve_layer()], ObjectiveConfig())
    assert own.selections == plain.selections
    assert [row.token_weights.tolist() for row in own.all_rows] == [
        row.token_weights.tolist() for row in plain.all_rows
    ]
