"""DisCO: tell right from wrong answers, within a bound (https://arxiv.org/abs/2505.12366)."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor

from learner.columns import StepBatch
from learner.objective_tokens import ObjectiveTokens
from learner.plugin import AdvantageEstimator, Measurement, PolicyLoss
from learner.row_groups import usable_groups
from mgrpo.config import LaterLayer, MethodView
from mgrpo.config.base import OnlyWith, StrictConfig
from mgrpo.errors import Faults, must_be
from mgrpo.methods.disco.set_objectives import (
    PenaltyForm,
    constraint_factor,
    set_coefficients,
    set_objective,
)
from mgrpo.registry import Kind

COEFFICIENT, PENALTY = "disco/coefficient", "disco/penalty"
TEMPERATURES = {"log_likelihood": 10.0, "ratio": 1.0}
WHOLE_GROUPS = "disco compares the right with the wrong answers of whole groups."


class DiscoSettings(StrictConfig):
    """Keys of disco."""

    score: Literal["log_likelihood", "ratio"] = "log_likelihood"
    """What right answers should have more of: mean log-probability of their tokens, or mean
    probability ratio to the policy that sampled (never clipped)."""
    robust: bool = True
    """Push the likeliest wrong answers hardest; false (DisCO-b) pushes all alike."""
    temperature: Annotated[PositiveFloat | None, OnlyWith(robust=True)] = None
    """How evenly, with robust: large is even. Null: 10 for log_likelihood, 1 for ratio."""
    divergence_bound: NonNegativeFloat = 1e-4
    """The mean of (old - new log-probability) over tokens may grow this far at no cost, nats."""
    divergence_weight: NonNegativeFloat = 1e3
    """Factor on the squared excess."""
    penalty_form: PenaltyForm = "squared"
    """squared: the paper's. repo: the authors' code, with half of its gradient."""


class Disco(AdvantageEstimator, PolicyLoss):
    """Raises the scores of right answers above those of wrong ones, prompt by prompt.

    No advantages and no clipping: the coefficient of a right answer is 1 / (right answers of its
    group), that of a wrong one minus its share in the softmax of the wrong answers' scores. All
    prompts count alike, whatever their pass rate; those all right or all wrong add 0 and are
    counted. A penalty holds the policy near the one that sampled; with one optimizer step per
    rollout the two are the same, so it takes minibatches or updates_per_rollout above 1 to matter.

    Formula:
        s_i = mean_t log p_it (log_likelihood) or mean_t ρ_it (ratio)
        J_q = mean_right s - τ log mean_wrong exp(s / τ);  robust: false: - mean_wrong s
        L = -mean_q J_q + divergence_weight max(D - divergence_bound, 0)²,
        D = mean_t (log p_old - log p)

    Metrics:
        disco/objective: mean of J_q over prompts, under the weights before the update.
    """

    kind: ClassVar[Kind] = "LOSSES"
    Settings: ClassVar[type[StrictConfig]] = DiscoSettings
    whole_completion: ClassVar[bool] = True
    on_policy: ClassVar[str] = "its penalty on leaving the policy that sampled has no effect"
    requires: ClassVar[frozenset[Measurement]] = frozenset({"policy_logprobs"})

    @classmethod
    def faults(cls, settings: DiscoSettings, layers: frozenset[int], method: MethodView) -> Faults:
        yield from super().faults(settings, layers, method)
        for number, layer in enumerate(method.layers):
            if isinstance(layer, LaterLayer) and layer.loss_weight > 0:
                for key, value in {"denominator": "sampled", "select": "none"}.items():
                    path, own = f"(layers.{number}.{key})", getattr(layer, key)
                    yield from must_be(path, own, value, WHOLE_GROUPS)

    @property
    def temperature(self) -> float | None:
        """Of the softmax over wrong answers; None: they are pushed alike."""
        if not self.settings.robust:
            return None
        given = self.settings.temperature
        return TEMPERATURES[self.settings.score] if given is None else float(given)

    def wanted_measurements(self) -> frozenset[Measurement]:
        # Before the first update every ratio is 1.
        is_needed = self.settings.robust and self.settings.score == "log_likelihood"
        return self.requires if is_needed else frozenset()

    def estimate_advantages(self, batch: StepBatch, rewards: Tensor) -> Tensor:
        """The coefficients, scaled to the layers' mean over completions, where every ratio is 1."""
        scores = torch.ones_like(rewards)
        if self.wanted_measurements():
            scores = batch.row_means(batch.measurements["policy_logprobs"], batch.is_trained)
        found = torch.zeros_like(rewards)
        total = 0.0
        groups = usable_groups(batch, self.layers)
        for places in groups:
            is_right = batch.is_correct[places]
            found[places] = set_coefficients(scores[places], is_right, temperature=self.temperature)
            total += float(set_objective(scores[places], is_right, temperature=self.temperature))
        batch.metrics["disco/objective"] = (total, float(len(groups)))
        return found * self.scales(batch)

    def scales(self, batch: StepBatch) -> Tensor:
        """[N] completions per prompt of each row's layer and minibatch: turns a mean over
        completions into a sum per prompt, averaged over prompts."""
        scales = torch.zeros(len(batch.completions), dtype=torch.float64)
        is_first = torch.zeros(len(batch.completions), dtype=torch.bool)
        is_first[[places[0] for places in usable_groups(batch, self.layers)]] = True
        for number in self.layers:
            here = (batch.layers == number) & batch.is_usable
            num_prompts = batch.minibatch_sums(here & is_first).clamp(min=1)
            scales = torch.where(here, batch.minibatch_sums(here) / num_prompts, scales)
        return scales

    def token_columns(
        self, batch: StepBatch, advantages: Tensor, token_weights: Tensor
    ) -> dict[str, Tensor]:
        return {
            COEFFICIENT: advantages,
            PENALTY: torch.zeros_like(advantages),
        }

    def refresh_columns(
        self,
        batch: StepBatch,
        advantages: Tensor,
        token_weights: Tensor,
        policy_logprobs: Tensor,
        old_logprobs: Tensor,
    ) -> dict[str, Tensor]:
        """Coefficients and penalty under the present weights, before every further optimizer
        step."""
        is_trained = token_weights != 0
        values = policy_logprobs
        if self.settings.score == "ratio":
            values = (policy_logprobs - old_logprobs).clamp(-20.0, 20.0).exp()
        scores = batch.row_means(values, is_trained)
        is_here = batch.row_sums(torch.ones_like(values)) > 0
        coefficients = torch.zeros_like(scores)
        for group in batch.group_ids[is_here].unique():
            members = is_here & (batch.group_ids == group)
            coefficients[members] = set_coefficients(
                scores[members], batch.is_correct[members], temperature=self.temperature
            )
        num_tokens = max(1.0, batch.total(is_trained))
        gaps = torch.where(is_trained, old_logprobs - policy_logprobs, 0.0)
        factor = constraint_factor(
            batch.total(gaps) / num_tokens,
            bound=self.settings.divergence_bound,
            weight=self.settings.divergence_weight,
            form=self.settings.penalty_form,
        )
        return {
            COEFFICIENT: batch.spread(coefficients * self.scales(batch)),
            PENALTY: is_trained.double() * (factor / num_tokens),
        }

    def policy_objective(self, tokens: ObjectiveTokens) -> Tensor:
        is_ratio = self.settings.score == "ratio"
        values = tokens.log_ratio.exp() if is_ratio else tokens.policy_logprobs
        return tokens.columns[COEFFICIENT] * values

    def added_loss(self, tokens: ObjectiveTokens) -> Tensor | None:
        return tokens.columns[PENALTY] * (tokens.old_logprobs - tokens.policy_logprobs)
