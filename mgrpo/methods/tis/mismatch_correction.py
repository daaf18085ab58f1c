"""Importance weights against the gap between engines and learner, in all the usual forms."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field, PositiveFloat, model_validator
from torch import Tensor

from learner.columns import StepBatch
from learner.plugin import ImportanceCorrection, Measurement, RowFilter
from mgrpo.config.base import OnlyWith, RelationError, StrictConfig
from mgrpo.errors import ConfigFault
from mgrpo.methods.tis.mismatch import k3, masked_weights, truncated_weights


class MismatchSettings(StrictConfig):
    """Keys of mismatch_correction. w: probability by the learner over that by the engine."""

    method: Literal["truncate", "mask", "none"] = "truncate"
    """truncate (TIS): weight by min(w, cap). mask (MIS): weight by w, and leave out what has w
    outside [lowest, cap]. none: only reject."""
    level: Literal["token", "sequence"] = "token"
    """sequence: w is the product over the completion's tokens."""
    cap: float = Field(default=2.0, ge=1)
    """Largest weight, and the upper side of mask's range."""
    lowest: Annotated[float, Field(ge=0, le=1), OnlyWith(method="mask")] = 0.5
    """The lower side of mask's range."""
    reject_geometric: tuple[float, float] | None = None
    """Leave out completions whose geometric mean of w is outside, e.g. [0.999, 1.001]."""
    reject_k3: PositiveFloat | None = None
    """Leave out completions whose mean k3 is above this, e.g. 0.001 to 0.01."""
    normalise: bool = False
    """Divide the weights by their mean over the step, so that they do not change its size: the mean
    over tokens, or with level: sequence that over completions, as in verl."""

    @model_validator(mode="after")
    def check_rejection(self) -> MismatchSettings:
        bounds = self.reject_geometric
        if bounds is not None and not 0 <= bounds[0] <= 1 <= bounds[1]:
            reason = "must be [lowest, highest] around 1."
            raise RelationError([ConfigFault("reject_geometric", str(list(bounds)), reason)])
        if self.method == "none" and bounds is None and self.reject_k3 is None:
            fault = ConfigFault("method", "none", "without a rejection does nothing.")
            raise RelationError([fault])
        return self


class MismatchCorrection(ImportanceCorrection):
    """Corrects for engines that give the sampled tokens other probabilities than the learner.

    Truncated (TIS) or masked (MIS) weights by token or by completion, and rejection of completions
    that are too far off; forms and bounds as in verl and TRL. On the policy term alone. The ratio
    of the objective stays against the learner's own log-probabilities. A kind
    of the slot objective.importance, whose own `truncate` is token-level truncation.

    Formula:
        w = exp(log p - log p_rollout) of a token, or its product over the completion;  A ← w' A
        truncate: w' = min(w, cap);  mask: w' = w where lowest ≤ w ≤ cap, else 0

    Metrics:
        mismatch/rejected_fraction: share of completions that are left out of the loss.
        mismatch/weight_mean: mean weight of the sampled tokens.
        mismatch/weight_clipped_fraction: share of them whose weight was truncated or masked.
        mismatch/k3: mean over them of w - log w - 1, an estimate of the divergence, nats.
    """

    Settings: ClassVar[type[StrictConfig]] = MismatchSettings
    requires: ClassVar[frozenset[Measurement]] = frozenset({"policy_logprobs"})

    def works_by_tree(self) -> bool:
        return not self.settings.normalise

    def filter_rows(self, batch: StepBatch) -> RowFilter:
        settings, log_weights = self.settings, self.log_weights(batch)
        sampled = batch.is_sampled
        is_trained = torch.ones(len(batch.completions), dtype=torch.bool)
        if settings.method == "mask" and settings.level == "sequence":
            is_trained &= self.weigh(batch.row_sums(log_weights)) > 0
        if settings.reject_geometric is not None:
            means = batch.row_means(log_weights, sampled).exp()
            lowest, highest = settings.reject_geometric
            is_trained &= (lowest <= means) & (means <= highest)
        if settings.reject_k3 is not None:
            is_trained &= batch.row_means(k3(log_weights), sampled) <= settings.reject_k3
        here = batch.in_layers(self.layers) & batch.is_usable
        batch.metrics["mismatch/rejected_fraction"] = (
            float((here & ~is_trained).sum()),
            float(here.sum()),
        )
        return RowFilter(
            is_kept=torch.ones_like(is_trained),
            is_trained=is_trained,
            reason="engine and learner disagree too much on its log-probabilities",
        )

    def transform_advantages(self, batch: StepBatch, advantages: Tensor) -> Tensor:
        """Advantages multiply the policy term alone, so weights on them do too."""
        log_weights = self.log_weights(batch)
        here = batch.spread(batch.in_layers(self.layers) & batch.is_usable) & batch.is_trained
        counted = here & batch.is_sampled
        own = log_weights
        if self.settings.level == "sequence":
            own = batch.spread(batch.row_sums(log_weights))
        weights = self.weigh(own)
        is_clipped = torch.zeros_like(counted)
        if self.settings.method != "none":
            is_clipped = weights != truncated_weights(own, cap=float("inf"))
        self.report(batch, counted, weights, is_clipped, k3(log_weights))
        if self.settings.normalise:
            mean = self.mean_weight(batch, weights, counted)
            weights = weights / mean if mean > 0 else weights
        # Tokens that no engine sampled have nothing to be compared with.
        return advantages * torch.where(counted, weights, 1.0)

    def mean_weight(self, batch: StepBatch, weights: Tensor, counted: Tensor) -> float:
        """Over the units that have a weight: tokens, or completions however long; 0 without any."""
        if self.settings.level == "token":
            total = batch.total(torch.where(counted, weights, 0.0))
            return total / max(1.0, batch.total(counted))
        has_tokens = batch.row_sums(counted.double()) > 0
        means = batch.row_means(weights, counted)
        return float(means.sum() / has_tokens.sum().clamp(min=1))

    def weigh(self, log_weights: Tensor) -> Tensor:
        settings = self.settings
        if settings.method == "truncate":
            return truncated_weights(log_weights, cap=settings.cap)
        if settings.method == "mask":
            return masked_weights(log_weights, lowest=settings.lowest, highest=settings.cap)
        return torch.ones_like(log_weights)

    def log_weights(self, batch: StepBatch) -> Tensor:
        """[M] learner minus engine, nats; 0 where no engine sampled."""
        gaps = batch.measurements["policy_logprobs"] - batch.rollout_logprobs
        return torch.where(batch.is_sampled, gaps, 0.0)

    def report(
        self, batch: StepBatch, counted: Tensor, weights: Tensor, is_clipped: Tensor, k3s: Tensor
    ) -> None:
        total = batch.total(counted)
        for name, values in (
            ("mismatch/weight_mean", weights),
            ("mismatch/weight_clipped_fraction", is_clipped.double()),
            ("mismatch/k3", k3s),
        ):
            batch.metrics[name] = (batch.total(torch.where(counted, values, 0.0)), total)
