"""Trains a prefix scorer on right and wrong completions: phase I of WS-GRPO (arXiv 2602.17025).

Only final answers are labelled. A right and a wrong completion of the same problem make a pair,
and the Bradley-Terry loss pulls the right one's value above the wrong one's. Problems are split,
not pairs: what is held out is of problems that training never saw.

The same completions, settings and machine give the same scorer.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from learner.prefix_scorer import BATCH_TOKENS, PrefixScorer
from learner.scorer_files import ScorerKind
from learner.scorer_pairs import Pair, Tokens
from learner.step_rewards import bradley_terry_losses, pair_accuracy
from mgrpo.errors import DataError, LearnerError

DEFAULT_LEARNING_RATES: dict[ScorerKind, float] = {"mlp_on_embeddings": 1e-3, "reward_head": 1e-5}
"""A backbone is moved with much smaller steps than a new MLP."""
DEFAULT_EPOCHS: dict[ScorerKind, int] = {"mlp_on_embeddings": 10, "reward_head": 2}
"""An MLP's epochs take a second each: the states are computed once."""
MAX_GRAD_NORM = 1.0

OnProgress = Callable[[int, int], None]
"""Told how many batches are done, of how many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScorerTraining:
    """How a scorer is trained."""

    epochs: int | None = None  # None: by kind
    learning_rate: float | None = None  # None: by kind
    weight_decay: float = 0.01
    pairs_per_batch: int = 64
    seed: int = 0  # of the order of the pairs


@dataclass(frozen=True, slots=True)
class Fit:
    """How well a scorer orders some pairs."""

    num_pairs: int
    loss: float  # mean Bradley-Terry loss, nats; log 2 = 0.693 knows nothing
    accuracy: float  # share of pairs with the right one above; ties count half


@dataclass(frozen=True, slots=True)
class EpochResult:
    """Both after an epoch, measured without gradient. `held_out` is None where nothing is."""

    epoch: int  # 0: before training
    train: Fit
    held_out: Fit | None


def train_scorer(
    scorer: PrefixScorer,
    train_pairs: Sequence[Pair],
    held_out_pairs: Sequence[Pair],
    settings: ScorerTraining,
    *,
    on_progress: OnProgress | None = None,
    on_epoch: Callable[[EpochResult], None] | None = None,
) -> list[EpochResult]:
    """AdamW on the Bradley-Terry loss; the scorer is left as it is after the last epoch.

    Returns:
        [epochs + 1] results: before training, then after each epoch.

    Raises:
        DataError: a completion does not fit the scorer's model.
        LearnerError: the loss is not finite.
    """
    texts = Texts(scorer, [*train_pairs, *held_out_pairs])
    train, held_out = texts.indices(train_pairs), texts.indices(held_out_pairs)
    parameters = [parameter for parameter in scorer.parameters() if parameter.requires_grad]
    rate = settings.learning_rate or DEFAULT_LEARNING_RATES[scorer.kind]
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=settings.weight_decay)
    num_epochs = settings.epochs or DEFAULT_EPOCHS[scorer.kind]
    num_batches = math.ceil(len(train) / settings.pairs_per_batch) * num_epochs
    rng = random.Random(settings.seed)
    results: list[EpochResult] = []
    num_done = 0

    def measure(epoch: int) -> None:
        values = texts.all_values()
        outside = fit_of(values, held_out) if held_out else None
        result = EpochResult(epoch, fit_of(values, train), outside)
        results.append(result)
        if on_epoch is not None:
            on_epoch(result)

    measure(0)
    for epoch in range(1, num_epochs + 1):
        order = list(range(len(train)))
        rng.shuffle(order)
        for start in range(0, len(order), settings.pairs_per_batch):
            batch = [train[index] for index in order[start : start + settings.pairs_per_batch]]
            optimizer.zero_grad()
            loss = batch_loss(texts, batch)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, MAX_GRAD_NORM)
            optimizer.step()
            num_done += 1
            if on_progress is not None:
                on_progress(num_done, num_batches)
        measure(epoch)
    return results


def batch_loss(texts: Texts, batch: Sequence[tuple[int, int]]) -> Tensor:
    """Mean Bradley-Terry loss of some pairs, with gradient."""
    values = texts.values([index for pair in batch for index in pair])
    loss = bradley_terry_losses(values[0::2], values[1::2]).mean()
    if not torch.isfinite(loss):
        raise LearnerError(
            f"The scorer's loss is {loss.item()}. Lower --learning-rate; if it happens in the "
            "first batch, the base model gives values that are not finite."
        )
    return loss


class Texts:
    """The distinct texts of all pairs; their states are kept where the backbone is frozen."""

    def __init__(self, scorer: PrefixScorer, pairs: Sequence[Pair]) -> None:
        self.scorer = scorer
        self.sequences = list(dict.fromkeys(text for p in pairs for text in (p.right, p.wrong)))
        self.index_of = {text: index for index, text in enumerate(self.sequences)}
        check_texts(scorer, self.sequences)
        self.states: Tensor | None = None  # [texts, D]
        if scorer.kind == "mlp_on_embeddings":
            last = [[len(text) - 1] for text in self.sequences]
            self.states = torch.cat(scorer.states_at(self.sequences, last, BATCH_TOKENS))

    def indices(self, pairs: Sequence[Pair]) -> list[tuple[int, int]]:
        """(right, wrong) of each pair, as places in `sequences`."""
        return [(self.index_of[pair.right], self.index_of[pair.wrong]) for pair in pairs]

    def values(self, indices: Sequence[int]) -> Tensor:
        """[n] values with gradient."""
        if self.states is not None:
            return self.scorer.value_of(self.states[torch.tensor(indices)])
        values: Tensor = self.scorer([self.sequences[index] for index in indices])
        return values

    @torch.no_grad()
    def all_values(self) -> Tensor:
        """[texts] values on the CPU, without gradient."""
        if self.states is not None:
            return self.scorer.value_of(self.states).cpu()
        return self.scorer.values(self.sequences)


def fit_of(values: Tensor, pairs: Sequence[tuple[int, int]]) -> Fit:
    """How well [texts] values order some pairs (right, wrong)."""
    right, wrong = values.double()[torch.tensor(pairs)].unbind(dim=1)
    loss = float(bradley_terry_losses(right, wrong).mean())
    return Fit(len(pairs), loss, pair_accuracy(right, wrong))


def check_texts(scorer: PrefixScorer, sequences: Sequence[Tokens]) -> None:
    """Raise DataError where the model cannot read the completions: it did not write them."""
    model = scorer.policy.causal_lm
    vocab_size = model.get_input_embeddings().num_embeddings
    context = getattr(model.config, "max_position_embeddings", None)
    largest = max(max(text) for text in sequences)
    longest = max(len(text) for text in sequences)
    if largest >= vocab_size:
        raise DataError(
            f"The completions hold the token {largest}, and {scorer.base_model} knows "
            f"{vocab_size}: another model wrote them. Name that model with --model."
        )
    if context is not None and longest > context:
        raise DataError(
            f"The longest completion has {longest} tokens with its prompt, and "
            f"{scorer.base_model} reads {context}. Name the model that wrote it with --model."
        )
