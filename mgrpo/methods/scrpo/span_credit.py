"""Which tokens a completion's advantage falls on (ScRPO, https://arxiv.org/abs/2511.06065)."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from learner.columns import StepBatch
from learner.plugin import LearnerPlugin
from mgrpo.config.base import StrictConfig

MARKS_SPANS = ("reflection_span", "step_spans")
"""Our plug-ins that mark spans; a user's own may."""


class SpanCreditSettings(StrictConfig):
    """Keys of span_credit."""

    span: str = "analysis"
    """Name of the part that is credited; a rollout plug-in such as reflection_span marks it."""
    attribution: Literal["analysis_on_success", "analysis_always", "all_tokens"] = (
        "analysis_on_success"
    )
    """analysis_on_success: the part's tokens, where the answer came out right. analysis_always:
    the part's tokens. all_tokens: all, which turns this plug-in off."""


class SpanCredit(LearnerPlugin):
    """Keeps the advantage on the tokens of an analysis, and only where it led to success.

    Formula:
        A_t ← A_t where t is in the span and the answer came out right, 0 elsewhere

    Metrics:
        span_credit/credited_fraction: share of the tokens that keep their advantage.

    Reconstructed:
        The rule for tokens: the paper says that reflection tokens are rewarded when the corrected
        solution verifies.
    """

    by_tree = True
    Settings: ClassVar[type[StrictConfig]] = SpanCreditSettings
    needs: ClassVar[tuple[str, ...]] = MARKS_SPANS

    @classmethod
    def needed(cls, settings: SpanCreditSettings) -> tuple[str, ...]:
        return () if settings.attribution == "all_tokens" else cls.needs

    def transform_advantages(self, batch: StepBatch, advantages: Tensor) -> Tensor:
        if self.settings.attribution == "all_tokens":
            return advantages
        keeps = batch.in_span(self.settings.span)
        if self.settings.attribution == "analysis_on_success":
            keeps &= batch.spread(batch.is_correct)
        here = batch.spread(batch.in_layers(self.layers))
        batch.metrics["span_credit/credited_fraction"] = (
            batch.total(keeps & here),
            batch.total(here),
        )
        return torch.where(keeps, advantages, 0.0)
