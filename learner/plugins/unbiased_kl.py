"""A KL penalty whose gradient stays right off policy (DeepSeek-V3.2, arXiv 2512.02556)."""

from __future__ import annotations

from typing import ClassVar

from pydantic import PositiveFloat
from torch import Tensor

from learner.columns import StepBatch
from learner.losses import kl_penalty
from learner.objective_tokens import ObjectiveTokens
from learner.plugin import LearnerPlugin
from mgrpo.config import MethodView
from mgrpo.config.base import StrictConfig
from mgrpo.errors import Faults, must_be

FACTORS = "unbiased_kl"


class UnbiasedKlSettings(StrictConfig):
    """Keys of unbiased_kl."""

    weight: PositiveFloat = 0.001
    """Factor on the penalty, in place of objective.kl.weight."""


class UnbiasedKl(LearnerPlugin):
    """Adds ratio times k3, with the gradient through the ratio too.

    Its expected gradient is that of KL(policy ‖ reference); k3 alone has that of the reverse
    (https://arxiv.org/abs/2512.02556).

    Formula:
        L ← L + weight ρ k3,   k3 = p_ref / p - log(p_ref / p) - 1
    """

    by_tree = True
    Settings: ClassVar[type[StrictConfig]] = UnbiasedKlSettings
    needs_reference: ClassVar[bool] = True

    @classmethod
    def faults(
        cls, settings: UnbiasedKlSettings, layers: frozenset[int], method: MethodView
    ) -> Faults:
        why, hint = "would be a second KL penalty.", "Set every kl weight to 0."
        yield from must_be("(objective.kl.weight)", method.max_kl_weight, 0, why, hint)

    def token_columns(
        self, batch: StepBatch, advantages: Tensor, token_weights: Tensor
    ) -> dict[str, Tensor]:
        return {FACTORS: self.settings.weight * token_weights}

    def added_loss(self, tokens: ObjectiveTokens) -> Tensor | None:
        if FACTORS not in tokens.columns:  # replayed corrections alone
            return None
        assert tokens.ref_logprobs is not None, "needs_reference loads it"
        penalties = kl_penalty(tokens.policy_logprobs, tokens.ref_logprobs, estimator="k3")
        return tokens.columns[FACTORS] * tokens.log_ratio.exp() * penalties
