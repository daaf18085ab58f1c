"""NTHR: spare the tokens of wrong answers that right answers need (arXiv 2505.18830)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from learner.columns import StepBatch
from learner.plugin import LearnerPlugin
from learner.row_groups import in_mixed_group, pass_rates, usable_groups
from mgrpo.config.base import StrictConfig
from mgrpo.methods.nthr.token_influence import gradient_sum, influences

if TYPE_CHECKING:
    from learner.policy_reader import PolicyReader
    from learner.token_states import TokenStates

INFLUENCES = "nthr_influences"
FLOAT32_BYTES = 4
NO_GROUP = -1


class NthrSettings(StrictConfig):
    """Keys of nthr."""

    threshold_scale: float = Field(default=1.0, allow_inf_nan=False)
    """A token is spared above this share of the least mean influence of a right completion (β).
    The paper takes 1, and 0 for one of its data sets."""
    select: Literal["influential", "all"] = "influential"
    """all: every token of a wrong answer is spared, whatever its influence (the paper's ablation
    with β of minus infinity)."""
    spared_weight: float | None = Field(default=None, ge=0, le=1)
    """Factor on the advantages of spared tokens (η). Null: 2 |0.5 - pass rate|, so that they count
    least where half of the group is right. 1 changes nothing, 0 takes the tokens out."""
    memory_mib: PositiveInt = 512
    """For the groups that are looked at together, in MiB; a larger one is looked at alone."""


class Nthr(LearnerPlugin):
    """Weakens the push against those tokens of wrong answers that right ones of the group need.

    Where a token of a wrong answer has a hidden state and a prediction error like those of right
    answers' tokens, pushing it down pushes them down too (lazy likelihood displacement). Each
    token's influence on the right answers is g' M h: h its last hidden state, g its one-hot minus
    the predicted distribution on the tokens that the group uses, M the sum of g h' over the right
    answers. Tokens of wrong answers above a threshold keep only a part of their advantage. It takes
    two forward passes over the groups that have right and wrong answers.

    Formula:
        g = onehot(y) - π,  h: last hidden state;  M = Σ over right answers of g hᵀ;  s = gᵀ M h
        τ = threshold_scale · min over right answers of their mean s
        A_t ← η A_t for tokens of wrong answers with s_t > τ,  η = 2 |0.5 - pass rate|

    Metrics:
        nthr/spared_fraction: share of wrong answers' tokens that are spared.
    """

    by_tree = True
    token_measurements: ClassVar[frozenset[str]] = frozenset({INFLUENCES})
    Settings: ClassVar[type[StrictConfig]] = NthrSettings

    @property
    def needs_influences(self) -> bool:
        return self.settings.select == "influential" and self.settings.spared_weight != 1

    def read_policy(self, batch: StepBatch, policy: PolicyReader) -> dict[str, object]:
        """[M] influences; 0 outside the groups that have right and wrong answers."""
        if not self.needs_influences:
            return {}
        found = torch.zeros(batch.num_tokens, dtype=torch.float32, device=policy.device)
        limit = self.settings.memory_mib * 2**20
        for groups in blocks(self.groups(batch), policy.hidden_size, limit):
            Block(groups, batch, policy).read(found)
        return {INFLUENCES: found.double().cpu()}

    def groups(self, batch: StepBatch) -> list[TokenGroup]:
        """Those that have right and wrong answers."""
        is_mixed = in_mixed_group(batch)
        found = []
        for places in usable_groups(batch, self.layers):
            if is_mixed[places[0]]:
                ids = np.concatenate([batch.completions[place].token_ids for place in places])
                distinct = torch.from_numpy(np.unique(ids).astype(np.int64))
                found.append(TokenGroup(places, distinct))
        return found

    def transform_advantages(self, batch: StepBatch, advantages: Tensor) -> Tensor:
        is_wrong = in_mixed_group(batch) & batch.is_usable & ~batch.is_correct
        could_be = batch.spread(is_wrong & batch.in_layers(self.layers)) & batch.is_trained
        is_spared = could_be
        if self.needs_influences:
            thresholds = batch.spread(self.thresholds(batch))
            is_spared = could_be & (batch.reading(INFLUENCES) > thresholds)
        batch.metrics["nthr/spared_fraction"] = (batch.total(is_spared), batch.total(could_be))
        weights = batch.spread(self.spared_weights(batch))
        return torch.where(is_spared, advantages * weights, advantages)

    def thresholds(self, batch: StepBatch) -> Tensor:
        """[N] the threshold of each row's group; 0 where no right answer has a token."""
        found = torch.zeros(len(batch.completions), dtype=torch.float64)
        means = batch.row_means(batch.reading(INFLUENCES), batch.is_trained)
        is_counted = batch.is_correct & (batch.row_sums(batch.is_trained.double()) > 0)
        for places in usable_groups(batch, self.layers):
            chosen = [place for place in places if is_counted[place]]
            if chosen:
                found[places] = self.settings.threshold_scale * means[chosen].min()
        return found

    def spared_weights(self, batch: StepBatch) -> Tensor:
        """[N] factor on advantages of spared tokens."""
        fixed = self.settings.spared_weight
        rates = pass_rates(batch)
        return 2 * (0.5 - rates).abs() if fixed is None else torch.full_like(rates, fixed)


@dataclass(frozen=True, slots=True)
class TokenGroup:
    """Completions that are compared, and the tokens that they use."""

    places: list[int]
    vocab_ids: Tensor  # [W] int64, distinct


def blocks(
    groups: Sequence[TokenGroup], hidden_size: int, limit_bytes: int
) -> list[list[TokenGroup]]:
    """Groups that are looked at together, so that their [W, D] sums fit."""
    found: list[list[TokenGroup]] = []
    used = 0
    for group in groups:
        needed = len(group.vocab_ids) * hidden_size * FLOAT32_BYTES
        if found and used + needed <= limit_bytes:
            found[-1].append(group)
            used += needed
        else:
            found.append([group])
            used = needed
    return found


class Block:
    """Groups that are looked at together, on one rank."""

    def __init__(
        self, groups: Sequence[TokenGroup], batch: StepBatch, policy: PolicyReader
    ) -> None:
        self.groups, self.batch, self.policy = groups, batch, policy
        self.vocab_ids = [group.vocab_ids.to(policy.device) for group in groups]
        sizes = [len(ids) for ids in self.vocab_ids]
        self.whole = torch.zeros((sum(sizes), policy.hidden_size), device=policy.device)
        self.sums = self.whole.split(sizes)  # [W, D] of each group, over its right completions
        group_of_row = torch.full((len(batch.completions),), NO_GROUP)
        for number, group in enumerate(groups):
            group_of_row[group.places] = number
        group_of_token = torch.where(batch.is_trained, batch.spread(group_of_row), NO_GROUP)
        self.group_of_token = group_of_token.to(policy.device)  # [M]

    def read(self, found: Tensor) -> None:
        """Write the influences of the groups' tokens into `found`, [M] float32 on the policy's
        device."""
        every = [place for group in self.groups for place in group.places]
        right = [place for place in every if self.batch.is_correct[place]]
        self.policy.visit_completions(self.batch, right, self.add, measurement="nthr")
        self.policy.sum(self.whole)

        def weigh(states: TokenStates) -> None:
            for number, part, errors, hidden in self.parts(states):
                found[part.places] = influences(errors, hidden, self.sums[number])

        self.policy.visit_completions(self.batch, every, weigh, measurement="nthr")

    def add(self, states: TokenStates) -> None:
        for number, _, errors, hidden in self.parts(states):
            self.sums[number].add_(gradient_sum(errors, hidden))

    def parts(self, states: TokenStates) -> Iterator[tuple[int, TokenStates, Tensor, Tensor]]:
        """By group: its number, its tokens, their errors [n, W] and hidden states [n, D]."""
        numbers = self.group_of_token[states.places]
        for number in numbers[numbers != NO_GROUP].unique().tolist():
            part = states.at(numbers == number)
            errors = part.errors(self.vocab_ids[number])
            yield number, part, errors, part.hidden.to(errors.dtype)
