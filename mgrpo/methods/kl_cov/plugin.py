"""KL-Cov: the tokens that would lower entropy most are held where they were (arXiv 2505.22617)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from pydantic import Field, PositiveFloat
from torch import Tensor

from learner.columns import StepBatch
from learner.covariance import highest_share, token_covariances
from learner.objective_tokens import ObjectiveTokens
from learner.objectives import ratio_objective
from learner.plugin import Measurement, PolicyLoss
from learner.plugin_pairs import small_share_warnings
from mgrpo.config import MethodView
from mgrpo.config.base import StrictConfig
from mgrpo.sources import most_completions_per_minibatch

IS_HELD = "kl_cov"


class KlCovSettings(StrictConfig):
    """Keys of kl_cov."""

    share: float = Field(default=2e-4, gt=0, le=1)
    """Of all trained tokens of an optimizer step, how many are held back; at least one. The default
    is the authors' for a 32B model; their script for 7B has 2e-3 (k_percent=0.2). Smaller steps
    need more."""
    weight: PositiveFloat = 1.0
    """Factor on their |log-ratio| to the policy that sampled."""


class KlCov(PolicyLoss):
    """Penalises the tokens of highest covariance for moving; nothing is clipped.

    The objective is ratio times advantage, minus weight times |log-ratio| where advantage and
    log-probability vary together most (https://arxiv.org/abs/2505.22617). The ratio is 1 in the
    first optimizer step on a rollout and the penalty has no slope there, so it takes
    objective.minibatches or objective.updates_per_rollout above 1. Covariances are taken anew for
    each optimizer step.

    Formula:
        J = ρ A - weight |log ρ| on the `share` of tokens of highest cov,  ρ A on the others
        cov_t = (A_t - mean A)(log p_t - mean log p)

    Metrics:
        kl_cov/held_fraction: share of the trained tokens that are held back.
    """

    Settings: ClassVar[type[StrictConfig]] = KlCovSettings
    on_policy: ClassVar[str] = "its penalty has no gradient; clip_cov works there"
    requires: ClassVar[frozenset[Measurement]] = frozenset({"policy_logprobs"})

    @classmethod
    def warnings(
        cls, settings: KlCovSettings, layers: frozenset[int], method: MethodView
    ) -> Iterable[str]:
        yield from super().warnings(settings, layers, method)
        most = most_completions_per_minibatch(method)
        yield from small_share_warnings(settings.share, layers, method, most)

    def token_columns(
        self, batch: StepBatch, advantages: Tensor, token_weights: Tensor
    ) -> dict[str, Tensor]:
        here = batch.spread(batch.in_layers(self.layers) & batch.is_usable) & batch.is_trained
        held = self.held(batch, advantages, batch.measurements["policy_logprobs"], here)
        batch.metrics["kl_cov/held_fraction"] = (batch.total(held), batch.total(here))
        return {IS_HELD: held.to(advantages.dtype)}

    def refresh_columns(
        self,
        batch: StepBatch,
        advantages: Tensor,
        token_weights: Tensor,
        policy_logprobs: Tensor,
        old_logprobs: Tensor,
    ) -> dict[str, Tensor]:
        """The tokens of highest covariance under the present weights."""
        held = self.held(batch, advantages, policy_logprobs, token_weights != 0)
        return {IS_HELD: held.double()}

    def held(self, batch: StepBatch, advantages: Tensor, logprobs: Tensor, mask: Tensor) -> Tensor:
        """[M] bool, of those in `mask`, [M], over all ranks."""
        advantages, logprobs, mask = map(batch.gather_tokens, (advantages, logprobs, mask))
        covariances = token_covariances(advantages, logprobs, mask)
        return batch.own_tokens(highest_share(covariances, mask, share=self.settings.share))

    def policy_objective(self, tokens: ObjectiveTokens) -> Tensor:
        objective = ratio_objective(tokens.policy_logprobs, tokens.old_logprobs, tokens.advantages)
        if IS_HELD not in tokens.columns:  # replayed corrections alone
            return objective
        held = tokens.columns[IS_HELD] * self.settings.weight
        return objective - held * tokens.log_ratio.abs()
