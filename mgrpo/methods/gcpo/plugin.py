"""GCPO: answers of a group weighed by what the others say together (arXiv 2508.05428)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, model_validator
from torch import Tensor

from learner.columns import StepBatch
from learner.losses import kl_penalty
from learner.objective_tokens import ObjectiveTokens
from learner.plugin import LearnerPlugin, Measurement
from learner.policy_reader import PolicyReader
from learner.rows import TrainingRow, text
from mgrpo.config.base import StrictConfig, refuse
from mgrpo.errors import LearnerError
from mgrpo.methods.gcpo.answer_contexts import AnswerContexts
from mgrpo.methods.gcpo.causal_projection import causal_weights, group_mean, projected_reference

SOURCE, METADATA = "integrated_answers", "answer_contexts"
WEIGHTS, TARGETS = "gcpo/weights", "gcpo/targets"  # measurements
TARGET, SHARE = "gcpo/target", "gcpo/share"  # columns


class GcpoSettings(StrictConfig):
    """Keys of gcpo."""

    reweight: bool = True
    """Multiply advantages by alpha times a cosine; false leaves them as they are."""
    alpha: PositiveFloat = 2.0
    """The largest factor on an advantage."""
    clamp_min: float | None = None
    """The smallest; null as in the paper, where factors below 0 turn an advantage round."""
    kappa: NonNegativeFloat = 0.06
    """Factor on the KL term to the projected reference; 0 leaves it out."""
    combine: Literal["mean", "sum"] = "mean"
    """Over integrated answers, in that reference. The paper prints the sum, which can make it
    negative."""
    floor: float = Field(default=1e-6, gt=0, lt=1)
    """Smallest probability of that reference."""
    max_kl: PositiveFloat | None = None
    """Largest value of the KL term of a token, in nats; one beyond it has no gradient. Null as in
    the paper: a policy to whom contexts are strange finds its answers there very unlikely, the
    term grows like the ratio of probabilities, and such tokens then outweigh everything else."""

    @model_validator(mode="after")
    def check_factors(self) -> GcpoSettings:
        if self.clamp_min is not None and self.clamp_min > self.alpha:
            why = f"is above alpha, {self.alpha:g}, the largest factor that there is."
            refuse("clamp_min", self.clamp_min, why)
        return self


class Gcpo(LearnerPlugin):
    """Multiplies each advantage by how far the answer agrees with what the other answers, put
    together, predict of it; and holds the policy, where it is shown those, to a reference.

    The factor is α cos(z, Z - Z' + z̄) of last hidden states: z of the answer, z̄ the group's mean,
    Z of what follows the other answers and an integrated one, Z' its mean over integrated answers.
    The reference is π(x) - mean over integrated answers of π(x) + π(q). Completions train once more
    in their contexts for the KL term, and learner/entropy counts them there too.

    Formula:
        Υ_i = alpha cos(z_i, Z_i - Z'_i + z̄);  A_i ← Υ_i A_i
        L ← L + kappa k3(π, π_ref) on contexts x_i,  π_ref = π(x_i) - mean_l π(x_i, l) + π(q)

    Metrics:
        gcpo/answers_cut: share of the answers that were shortened to fit into contexts.
        gcpo/turned_fraction: share of the factors that are below 0, before clamp_min.
        gcpo/weight_mean: mean factor.
        gcpo/kl: mean of the second KL term under the weights before the update, nats.
        gcpo/floored_fraction: share of its tokens whose reference is at the floor.

    Reconstructed:
        The mean in place of the printed sum, the floor, both under the policy before the update,
        the first integrated answer counting in both means, and, where `integrated_answers` samples
        nothing from contexts, the state at a context's end in place of what would follow it.
    """

    Settings: ClassVar[type[StrictConfig]] = GcpoSettings
    needs: ClassVar[tuple[str, ...]] = (SOURCE,)
    requires: ClassVar[frozenset[Measurement]] = frozenset({"hidden_last", "policy_logprobs"})
    token_measurements: ClassVar[frozenset[str]] = frozenset({TARGETS})

    def wanted_measurements(self) -> frozenset[Measurement]:
        wanted: set[Measurement] = set()
        if self.settings.reweight:
            wanted.add("hidden_last")
        if self.settings.kappa > 0:
            wanted.add("policy_logprobs")
        return frozenset(wanted)

    def read_policy(self, batch: StepBatch, policy: PolicyReader) -> dict[str, object]:
        """[N] factors on advantages, and [M] log-probabilities of the reference."""
        found: dict[str, object] = {}
        contexts = {place: contexts_of(batch, place) for place in self.places(batch)}
        batch.metrics["gcpo/answers_cut"] = (
            float(sum(one.num_cut for one in contexts.values())),
            float(sum(len(one.answers) + len(one.integrated) for one in contexts.values())),
        )
        if self.settings.reweight:
            found[WEIGHTS] = self.read_weights(batch, contexts, policy)
        if self.settings.kappa > 0:
            found[TARGETS] = self.read_targets(batch, contexts, policy)
        return found

    def places(self, batch: StepBatch) -> list[int]:
        """Completions of its layers that came with contexts and that count."""
        here = (batch.in_layers(self.layers) & batch.is_usable).nonzero()[:, 0].tolist()
        return [place for place in here if METADATA in batch.completions[place].metadata]

    def read_weights(
        self, batch: StepBatch, contexts: Mapping[int, AnswerContexts], policy: PolicyReader
    ) -> Tensor:
        """[N] α cos(z, Z - Z' + z̄); 1 where nothing is known."""
        weights = torch.ones(len(batch.completions), dtype=torch.float64)
        if not contexts:
            return weights
        own = [place for place in batch.held if place in contexts]
        texts: list[TrainingRow] = []
        rows_of: dict[tuple[int, int], list[int]] = {}  # by completion and integrated answer
        for place in own:
            one, known_answers = batch.completions[place], contexts[place].integrated
            samples = one.metadata.get("context_samples") or [[] for _ in known_answers]
            for answer, spoken in enumerate(samples):
                prompt = contexts[place].prompt(one.completion_id, answer)
                # What follows the context; without samples, the context to its own last token.
                ends = [text(prompt, ids) for ids in spoken if ids] or [
                    text(prompt[:-1], prompt[-1:])
                ]
                rows_of[place, answer] = list(range(len(texts), len(texts) + len(ends)))
                texts += ends
        states = policy.last_states(texts, measurement="gcpo_states").double()
        own_states = batch.measurements["hidden_last"].double()
        places = list(contexts)
        mean_states = torch.zeros_like(own_states)
        mean_states[places] = group_mean(own_states[places], group_numbers(contexts.values()))
        found = torch.zeros(len(batch.completions), dtype=torch.float64)
        for place in own:
            by_answer = torch.stack(
                [
                    states[rows_of[place, answer]].mean(dim=0)
                    for answer in range(len(contexts[place].integrated))
                ]
            )
            found[place] = causal_weights(
                own_states[place],
                by_answer[0],
                by_answer.mean(dim=0),
                mean_states[place],
                alpha=self.settings.alpha,
            )
        found = batch.sum_over_ranks(found)[places]
        batch.metrics["gcpo/turned_fraction"] = (float((found < 0).sum()), float(len(found)))
        if self.settings.clamp_min is not None:
            found = found.clamp(min=self.settings.clamp_min)
        batch.metrics["gcpo/weight_mean"] = (float(found.sum()), float(len(found)))
        weights[places] = found
        return weights

    def read_targets(
        self, batch: StepBatch, contexts: Mapping[int, AnswerContexts], policy: PolicyReader
    ) -> Tensor:
        """[M], 0 where nothing is known."""
        targets = torch.zeros(batch.num_tokens, dtype=torch.float64)
        if not contexts:
            return targets
        own = [place for place in batch.held if place in contexts]
        texts = [
            text(contexts[place].prompt(one.completion_id, answer), one.token_ids)
            for place in own
            for one in [batch.completions[place]]
            for answer in range(len(contexts[place].integrated))
        ]
        logprobs = policy.logprobs(texts, measurement="gcpo_logprobs")
        plain, target = (
            dict(zip(batch.held, batch.split(column), strict=True))
            for column in (batch.measurements["policy_logprobs"], targets)
        )
        sums = torch.zeros(3, dtype=torch.float64)
        start = 0
        for place in own:
            shape = (len(contexts[place].integrated), len(plain[place]))
            by_answer = logprobs[start : start + math.prod(shape)].view(shape)
            start += math.prod(shape)
            found = projected_reference(
                by_answer[0],
                by_answer,
                plain[place],
                combine=self.settings.combine,
                floor=self.settings.floor,
            )
            target[place].copy_(found)
            penalties = self.penalty(by_answer[0], found)
            is_floored = found.exp() <= self.settings.floor * (1 + 1e-9)
            sums += torch.tensor([penalties.sum(), len(found), is_floored.sum()])
        total, count, num_floored = batch.sum_over_ranks(sums).tolist()
        batch.metrics["gcpo/kl"] = (total, count)
        batch.metrics["gcpo/floored_fraction"] = (num_floored, count)
        return targets

    def transform_advantages(self, batch: StepBatch, advantages: Tensor) -> Tensor:
        if not self.settings.reweight:
            return advantages
        return advantages * batch.spread(known(batch, WEIGHTS))

    def added_rows(self, batch: StepBatch, rows: Sequence[TrainingRow]) -> list[TrainingRow]:
        """Every completion that trains once more, given the others and the integrated answer."""
        if self.settings.kappa == 0:
            return []
        targets = dict(zip(batch.held, batch.split(known(batch, TARGETS)), strict=True))
        in_context = {
            batch.completions[place].completion_id: (batch.completions[place], targets[place])
            for place in self.places(batch)
            if place in targets
        }
        added = []
        for row in rows:
            if row.completion_id not in in_context or not row.token_weights.any():
                continue
            one, target = in_context[row.completion_id]
            prompt = AnswerContexts(**one.metadata[METADATA]).prompt(one.completion_id, 0)
            shares = self.settings.kappa * row.token_weights
            added.append(
                replace(
                    text(prompt, row.token_ids),
                    completion_id=f"{row.completion_id} (in context)",
                    layer=row.layer,
                    is_sampled=np.zeros(len(row.token_ids), dtype=np.bool_),
                    columns={TARGET: target.numpy(), SHARE: shares},
                )
            )
        return added

    def added_loss(self, tokens: ObjectiveTokens) -> Tensor | None:
        """κ times the k3 divergence, on rows in context; 0 on the step's own."""
        if SHARE not in tokens.columns:
            return None
        return tokens.columns[SHARE] * self.penalty(tokens.policy_logprobs, tokens.columns[TARGET])

    def penalty(self, policy_logprobs: Tensor, targets: Tensor) -> Tensor:
        """[n] k3, up to max_kl."""
        found = kl_penalty(policy_logprobs, targets)
        return found if self.settings.max_kl is None else found.clamp(max=self.settings.max_kl)


def contexts_of(batch: StepBatch, place: int) -> AnswerContexts:
    return AnswerContexts(**batch.completions[place].metadata[METADATA])


def group_numbers(contexts: Iterable[AnswerContexts]) -> Tensor:
    """[n] int64: completions whose answers were put together share a number."""
    numbers: dict[tuple[str, ...], int] = {}
    return torch.tensor([numbers.setdefault(tuple(one.answers), len(numbers)) for one in contexts])


def known(batch: StepBatch, name: str) -> Any:
    """A measurement that was read from the policy.

    Raises:
        LearnerError: it was not computed, as for recorded completions.
    """
    if name not in batch.measurements:
        raise LearnerError(
            f"gcpo needs {name}, a forward pass of the policy, and no policy is loaded: recorded "
            "completions are not sufficient."
        )
    return batch.measurements[name]
