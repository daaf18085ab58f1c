"""Where a loss or a gradient that is not finite comes from, in words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from learner.packing import Microbatch
from learner.rows import TrainingRow

MAX_NAMES = 8
OF_THE_RATE = (
    "Lower the learning rate (learner.learning_rate; in a run that goes on, a phase's "
    "objective.learning_rate_factor) or raise learner.warmup_steps, and look at "
    "mismatch/logprob_gap_max and learner/grad_norm of the steps before."
)
CAUSES = {
    "weights": "The weights {} are not finite themselves: resume from a checkpoint before. "
    + OF_THE_RATE,
    "rollout": "The rollout log-probabilities of {} are not finite, which is the engine's fault.",
    "given": "What the batch gives is not finite: {}. A plug-in or a loss weight made it.",
    "forward": "The weights are finite, and the policy's log-probabilities of {} are not. "
    + OF_THE_RATE,
    "objective": "Log-probabilities are finite, and the objective of the micro-batch of {} is not. "
    + OF_THE_RATE,
    "gradient": "The loss is finite, and the gradient of {} is not. " + OF_THE_RATE,
}
"""By what is not finite, the first that holds: what it is said of, and what to do."""
Suspects = dict[str, list[str]]
"""By cause, the names of parameters or of completions."""


@dataclass(frozen=True, slots=True)
class Trace:
    """What a micro-batch's passes leave for an explanation."""

    completion_ids: Sequence[str]
    loss: Tensor  # scalar
    num_broken: Tensor  # [rows] tokens whose log-probability is not finite


@torch.no_grad()
def traced(microbatch: Microbatch, loss: Tensor, policy_logprobs: Tensor) -> Trace:
    """
    Args:
        policy_logprobs: [n] of the micro-batch's trained tokens.
    """
    num_broken = torch.zeros(len(microbatch.completion_ids), device=loss.device)
    broken = (~policy_logprobs.isfinite()).to(num_broken.dtype)
    num_broken.index_add_(0, microbatch.row_ids, broken)
    return Trace(microbatch.completion_ids, loss.detach(), num_broken)


def suspects(
    rows: Iterable[TrainingRow],
    traces: Sequence[Trace],
    parameters: Mapping[str, Tensor],
    gradients: Mapping[str, float],
) -> Suspects:
    """What is not finite on this rank.

    Args:
        rows: that it trained.
        parameters: by name; of sharded ones, this rank's part.
        gradients: by the parameter's name, the sum over its elements.
    """
    rows = list(rows)
    return {
        "weights": [name for name, weight in parameters.items() if not is_finite(weight)],
        "rollout": [row.completion_id for row in rows if not has_finite_rollout(row)],
        "given": [
            f"{name} of {row.completion_id}"
            for row in rows
            for name, values in given_numbers(row).items()
            if not np.isfinite(values).all()
        ],
        "forward": [
            name
            for one in traces
            for name, count in zip(one.completion_ids, one.num_broken.tolist(), strict=True)
            if count
        ],
        "objective": [
            name for one in traces if not is_finite(one.loss) for name in one.completion_ids
        ],
        # From the loss back: the first of them is where it began, or near.
        "gradient": [
            name for name, total in reversed([*gradients.items()]) if not np.isfinite(total)
        ],
    }


def explained(ranks: Iterable[Suspects]) -> str:
    """The likeliest cause, from what all ranks suspect."""
    every = list(ranks)
    for cause, sentence in CAUSES.items():
        names = list(dict.fromkeys(name for one in every for name in one[cause]))
        if names:
            more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
            return sentence.format(", ".join(names[:MAX_NAMES]) + more)
    return "Every part of it is finite: the sum is beyond what its type can hold. " + OF_THE_RATE


def is_finite(tensor: Tensor) -> bool:
    return bool(torch.isfinite(tensor).all())


def has_finite_rollout(row: TrainingRow) -> bool:
    """A token that no engine sampled has no rollout log-probability that would count."""
    is_known = np.isfinite(row.rollout_logprobs)
    return bool((is_known if row.is_sampled is None else is_known | ~row.is_sampled).all())


def given_numbers(row: TrainingRow) -> dict[str, np.ndarray]:
    given = {"advantages": row.advantages, "token_weights": row.token_weights, **row.columns}
    if row.entropy_weights is not None:
        given["entropy_weights"] = row.entropy_weights
    return given
