"""The unlikeliness reward (https://arxiv.org/abs/2506.02355)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from learner.columns import StepBatch
from learner.plugin import LearnerPlugin, Measurement, RowFilter
from learner.row_groups import usable_groups, without_uniform_groups
from mgrpo.config.base import StrictConfig


class UnlikelinessSettings(StrictConfig):
    """Keys of unlikeliness."""

    strength: float = Field(default=0.25, ge=0, le=1)
    """Share of its reward that the likeliest completion of a group nearly loses (β of the paper);
    0 leaves rewards as they are."""
    rank_by: Literal["mean", "sum"] = "mean"
    """Likelihood of a completion: mean log-probability of its tokens (the authors' code), or
    their sum, which ranks long completions as unlikely."""
    drop_uniform: bool = True
    """Leave out groups that are all right or all wrong. Decided before shaping, which would make
    an all-right group look mixed."""


class Unlikeliness(LearnerPlugin):
    """Pays less for right completions that the policy found likely anyway.

    With G completions ranked from the likeliest (1) to the least likely (G), a reward r becomes r *
    (1 - strength * (G - rank) / G). Plain GRPO sharpens what is likely already; this keeps rare
    right answers alive. The authors also take two updates per rollout.

    Formula:
        r_i ← r_i (1 - strength (G - rank_i) / G),   rank 1: the likeliest of the group

    Metrics:
        unlikeliness/pass_at_group: problems with a right completion in their group: pass@N of
            N = group_size, which the method is for.
    """

    by_tree = True
    Settings: ClassVar[type[StrictConfig]] = UnlikelinessSettings
    overlaps: ClassVar[Mapping[str, str]] = {
        "desel": "leaves out unlikely completions, which this pays for"
    }
    requires: ClassVar[frozenset[Measurement]] = frozenset({"policy_logprobs"})

    def measure(self, batch: StepBatch) -> dict[str, object]:
        """Before uniform groups are left out."""
        passes = [
            bool(batch.is_correct[places].any()) for places in usable_groups(batch, self.layers)
        ]
        batch.metrics["unlikeliness/pass_at_group"] = (float(sum(passes)), float(len(passes)))
        return {}

    def filter_rows(self, batch: StepBatch) -> RowFilter | None:
        return without_uniform_groups(batch) if self.settings.drop_uniform else None

    def shape_rewards(self, batch: StepBatch, rewards: Tensor) -> Tensor:
        shaped = rewards.clone()
        logprobs = batch.measurements["policy_logprobs"]
        by_mean = self.settings.rank_by == "mean"
        likelihoods = batch.row_means(logprobs) if by_mean else batch.row_sums(logprobs)
        for places in usable_groups(batch, self.layers):
            shaped[places] = shaped[places] * unlikeliness_factors(
                likelihoods[places], strength=self.settings.strength
            )
        return shaped


def unlikeliness_factors(likelihoods: Tensor, *, strength: float) -> Tensor:
    """1 - strength * (G - rank) / G, rank 1 for the likeliest; of equals the earlier is likelier.

    Args:
        likelihoods: [G] anything that grows with the likelihood, one group's.

    Returns:
        [G] factors on rewards.
    """
    size = len(likelihoods)
    order = likelihoods.argsort(descending=True, stable=True)
    ranks = torch.empty(size, dtype=torch.float64)
    ranks[order] = torch.arange(1, size + 1, dtype=torch.float64)
    return 1 - strength * (size - ranks) / size
