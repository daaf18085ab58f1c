"""DPO on preference pairs of a run's own completions (arXiv 2305.18290), VerIPO's second phase."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import PositiveFloat
from torch import Tensor

from learner.columns import StepBatch
from learner.objective_tokens import ObjectiveTokens
from learner.plugin import LearnerPlugin
from learner.plugin_pairs import parts_with
from learner.policy_reader import PolicyReader
from learner.sequence_logprobs import sequence_logprobs
from mgrpo.config import MethodView
from mgrpo.config.base import StrictConfig
from mgrpo.config.sources import stacked
from mgrpo.errors import ConfigFault, Faults, LearnerError
from mgrpo.methods.veripo.pair_objectives import dpo_coefficients, dpo_losses, pair_margins
from mgrpo.methods.veripo.pair_side import pair_ref_logprobs, pair_roles

COEFFICIENT, SHARE = "dpo/coefficient", "dpo/share"
LOG_RATIOS = "dpo/log_ratios"


class DpoSettings(StrictConfig):
    """Keys of dpo."""

    beta: PositiveFloat = 0.1
    """How far the policy may leave the reference to tell chosen from rejected: small is far."""


class Dpo(LearnerPlugin):
    """Raises the chosen completion of each pair above the rejected one, in phases that train on
    pairs; the other steps are as they are without it.

    -log σ(β(log-ratio of chosen - log-ratio of rejected)), averaged over a step's pairs; a
    log-ratio is a completion's log-probability minus that under the policy with which the phase
    began (which reference VerIPO uses is not said: our reconstruction), both at the sampling
    temperature. Advantages, clipping, importance weights and KL terms have no part in it.

    Formula:
        L = -mean over pairs of log σ(beta (Δ_chosen - Δ_rejected))
        Δ = Σ_t (log p_t - log p_ref,t)
        p_ref: the policy with which the phase began

    Metrics:
        dpo/loss: mean of the loss over pairs, before the update.
        dpo/accuracy: share of pairs whose chosen completion has the larger log-ratio.
        dpo/margin: mean difference of the log-ratios, nats.
    """

    Settings: ClassVar[type[StrictConfig]] = DpoSettings
    needs: ClassVar[tuple[str, ...]] = ("preferences",)

    @classmethod
    def faults(cls, settings: DpoSettings, layers: frozenset[int], method: MethodView) -> Faults:
        if len(layers) < len(method.layers):
            why = "pairs are made of every layer's completions, and it works on some."
            yield ConfigFault("(plug-in)", "dpo", why, "Leave `layers` out of its entry.")
        for name in parts_with("filter_rows", method):
            why = f"filter_rows of {name} would tear pairs apart."
            yield ConfigFault("(plug-in)", "dpo", why, f"Leave out {name}.")

    @classmethod
    def warnings(
        cls, settings: DpoSettings, layers: frozenset[int], method: MethodView
    ) -> list[str]:
        sources = [source for values in method.ever for source in stacked(values.source)]
        if all(source.settings.get("train_on") != "pairs" for source in sources):
            return ["no phase of the recipe trains on pairs (source.train_on): it does nothing."]
        return []

    def read_policy(self, batch: StepBatch, policy: PolicyReader) -> dict[str, Tensor]:
        """[N] log-ratios to the reference, over the tokens that may train; 0 for rows of no pair.

        Nothing is read in a step without pairs.
        """
        roles = roles_of(batch)
        log_ratios = torch.zeros(len(batch.held), dtype=torch.float64)
        if roles.any():
            is_member = roles[batch.held] != 0
            members = [batch.completions[place] for place in batch.held if roles[place] != 0]
            known = batch.rows(pair_ref_logprobs(members))
            log_ratios[is_member] = sequence_logprobs(members, policy) - known
        return {LOG_RATIOS: batch.gather_rows(log_ratios)}

    def transform_advantages(self, batch: StepBatch, advantages: Tensor) -> Tensor:
        """Pairs show their coefficients, which nothing multiplies."""
        roles = roles_of(batch)
        if not roles.any():
            return advantages
        return batch.spread(roles * self.coefficients(batch))

    def weigh_tokens(self, batch: StepBatch, advantages: Tensor) -> Tensor:
        """Pairs have none of the usual terms."""
        return batch.spread((roles_of(batch) == 0).double())

    def token_columns(
        self, batch: StepBatch, advantages: Tensor, token_weights: Tensor
    ) -> dict[str, Tensor]:
        roles = roles_of(batch)
        num_pairs = int((roles > 0).sum())
        if num_pairs == 0:
            return {}
        margins = self.margins(batch)
        losses = dpo_losses(margins, beta=self.settings.beta)
        chosen = roles > 0
        count = float(num_pairs)
        batch.metrics |= {
            "dpo/loss": (float(losses[chosen].sum()), count),
            "dpo/accuracy": (float((margins[chosen] > 0).sum()), count),
            "dpo/margin": (float(margins[chosen].sum()), count),
        }
        return self.columns(batch, margins)

    def columns(self, batch: StepBatch, margins: Tensor) -> dict[str, Tensor]:
        """Of the rows of pairs.

        Args:
            margins: [N] of each row's pair.
        """
        roles = roles_of(batch)
        num_pairs = batch.minibatch_sums(roles > 0).clamp(min=1)
        losses = dpo_losses(margins, beta=self.settings.beta)
        coefficients = roles * dpo_coefficients(margins, beta=self.settings.beta) / num_pairs
        return {
            COEFFICIENT: batch.spread(coefficients) * batch.is_trained,
            SHARE: batch.spread(loss_share(losses, roles, batch.lengths, num_pairs)),
        }

    def margins(self, batch: StepBatch) -> Tensor:
        """[N] of each row's pair.

        Raises:
            LearnerError: the policy was not read, as for recorded pairs.
        """
        if LOG_RATIOS not in batch.measurements:
            raise LearnerError(
                "Pairs need log-probabilities of the policy, and no policy is loaded. Pass one "
                "(--model), or explain a step without pairs."
            )
        return pair_margins(batch.measurements[LOG_RATIOS], roles_of(batch), batch.group_ids)

    def coefficients(self, batch: StepBatch) -> Tensor:
        """[N] of each row's pair."""
        return dpo_coefficients(self.margins(batch), beta=self.settings.beta)

    def refresh_columns(
        self,
        batch: StepBatch,
        advantages: Tensor,
        token_weights: Tensor,
        policy_logprobs: Tensor,
        old_logprobs: Tensor,
    ) -> dict[str, Tensor]:
        """Coefficients under the present weights, before every further optimizer step."""
        roles = roles_of(batch)
        if not roles.any():
            return {}
        sums = batch.row_sums(torch.where(batch.is_trained, policy_logprobs, 0.0))
        log_ratios = sums - batch.rows(pair_ref_logprobs(batch.completions))
        return self.columns(batch, pair_margins(log_ratios, roles, batch.group_ids))

    def added_loss(self, tokens: ObjectiveTokens) -> Tensor | None:
        """The pairs' loss: its value, and its gradient by each token."""
        if COEFFICIENT not in tokens.columns:
            return None
        moved = tokens.policy_logprobs - tokens.policy_logprobs.detach()
        return tokens.columns[SHARE] - tokens.columns[COEFFICIENT] * moved


def roles_of(batch: StepBatch) -> Tensor:
    """[N] +1 for chosen, -1 for rejected, 0 for completions of no pair."""
    return batch.rows([float(role) for role in pair_roles(batch.completions)])


def loss_share(losses: Tensor, roles: Tensor, lengths: Tensor, num_pairs: Tensor) -> Tensor:
    """[N] each token's part of the mean over pairs, half of a pair's loss on either row."""
    return torch.where(roles == 0, 0.0, losses / num_pairs / (2 * lengths.clamp(min=1)))
