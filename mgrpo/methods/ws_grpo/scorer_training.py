"""Trains a prefix scorer on right and wrong completions: phase I of WS-GRPO (arXiv 2602.17025).

Only final answers are labelled. A right and a wrong completion of the same problem make a pair,
and the Bradley-Terry loss pulls the right one's value above the wrong one's. Problems are split,
not pairs: what is held out is of problems that training never saw.

A departure from the paper, which compares whole completions: a scorer that has seen nothing
else orders prefixes that end in the middle of a text no better than chance (measured with the
default policy), yet prefixes are what it is asked about. So by default every prefix of the right
one is compared with every prefix of the wrong one, from the prompt alone to the whole. The values
of different lengths thereby share one scale, on which the prompt lies between right and wrong.
`prefixes=0` is the paper's.

The same completions, settings and machine give the same scorer.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mgrpo.errors import DataError, LearnerError
from mgrpo.methods.ws_grpo.prefix_scorer import BATCH_TOKENS, PrefixScorer
from mgrpo.methods.ws_grpo.scorer_files import ScorerKind
from mgrpo.methods.ws_grpo.scorer_pairs import Pair, Tokens
from mgrpo.methods.ws_grpo.step_rewards import bradley_terry_losses, pair_accuracy

DEFAULT_LEARNING_RATES: dict[ScorerKind, float] = {"mlp_on_embeddings": 1e-3, "reward_head": 1e-5}
"""A backbone is moved with much smaller steps than a new MLP."""
DEFAULT_EPOCHS: dict[ScorerKind, int] = {"mlp_on_embeddings": 10, "reward_head": 2}
"""An MLP's epochs take a second each: the states are computed once."""
MAX_GRAD_NORM = 1.0

OnProgress = Callable[[int, int], None]
"""Told how many batches are done, of how many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScorerTraining:
    """Settings of a scorer's training."""

    epochs: int | None = None  # None: by kind
    learning_rate: float | None = None  # None: by kind
    weight_decay: float = 0.01
    pairs_per_batch: int = 64
    prefixes: int = 4  # also learn from the first 0/4, 1/4, ... of each completion; 0: from whole
    seed: int = 0  # of the order of the pairs


@dataclass(frozen=True, slots=True)
class Fit:
    """How well a scorer orders some pairs."""

    num_pairs: int
    loss: float  # mean Bradley-Terry loss as trained on, nats; log 2 = 0.693 knows nothing
    accuracy: float  # share of pairs with the right one above, both whole; ties count half
    prefix_accuracy: float | None  # the same of equal shares of both; None without prefixes


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
    texts = Texts(scorer, [*train_pairs, *held_out_pairs], settings.prefixes)
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
    loss = mean_loss(values[0::2], values[1::2])
    if not torch.isfinite(loss):
        raise LearnerError(
            f"The scorer's loss is {loss.item()}. Lower --learning-rate; if it happens in the "
            "first batch, the base model gives values that are not finite."
        )
    return loss


def mean_loss(right: Tensor, wrong: Tensor) -> Tensor:
    """Every prefix of the right one against every prefix of the wrong one; both [pairs, k]."""
    each, other = torch.broadcast_tensors(right[:, :, None], wrong[:, None, :])
    return bradley_terry_losses(each, other).mean()


class Texts:
    """The distinct texts of all pairs; their states are kept where the backbone is frozen."""

    def __init__(self, scorer: PrefixScorer, pairs: Sequence[Pair], prefixes: int) -> None:
        self.scorer = scorer
        prompts = {text: p.num_prompt_tokens for p in pairs for text in (p.right, p.wrong)}
        self.sequences = list(prompts)
        self.places = [prefix_places(prompts[text], len(text), prefixes) for text in prompts]
        self.index_of = {text: index for index, text in enumerate(self.sequences)}
        check_texts(scorer, self.sequences)
        self.states: Tensor | None = None  # [texts, k, D]
        if scorer.kind == "mlp_on_embeddings":
            states = scorer.states_at(self.sequences, self.places, BATCH_TOKENS)
            self.states = torch.stack(states)

    def indices(self, pairs: Sequence[Pair]) -> list[tuple[int, int]]:
        """(right, wrong) of each pair, as places in `sequences`."""
        return [(self.index_of[pair.right], self.index_of[pair.wrong]) for pair in pairs]

    def values(self, indices: Sequence[int]) -> Tensor:
        """[n, k] values with gradient."""
        if self.states is not None:
            states = self.states[torch.tensor(indices)]
            return self.scorer.value_of(states.flatten(0, 1)).view(len(indices), -1)
        sequences = [self.sequences[index] for index in indices]
        values: Tensor = self.scorer(sequences, [self.places[index] for index in indices])
        return values.view(len(indices), -1)

    @torch.no_grad()
    def all_values(self) -> Tensor:
        """[texts, k] values on the CPU, without gradient."""
        states = self.states
        if states is None:
            states = torch.stack(self.scorer.states_at(self.sequences, self.places, BATCH_TOKENS))
        return self.scorer.value_of(states.flatten(0, 1)).view(len(states), -1).cpu()


def prefix_places(num_prompt: int, num_tokens: int, prefixes: int) -> list[int]:
    """The last tokens of a text's prefixes: the prompt alone, then equal shares up to the whole.

    Args:
        num_prompt, num_tokens: length of the prompt, and of prompt and completion.
        prefixes: shares that the completion is cut into; 0 takes the whole alone.
    """
    if prefixes == 0:
        return [num_tokens - 1]
    own = num_tokens - num_prompt
    return [num_prompt - 1 + math.ceil(own * share / prefixes) for share in range(prefixes + 1)]


def fit_of(values: Tensor, pairs: Sequence[tuple[int, int]]) -> Fit:
    """How well [texts, k] values order some pairs (right, wrong)."""
    right, wrong = values.double()[torch.tensor(pairs)].unbind(dim=1)  # [pairs, k] each
    middle = slice(1, -1)  # neither the prompt, which both share, nor the whole
    has_middle = right.shape[1] > 2
    return Fit(
        num_pairs=len(pairs),
        loss=float(mean_loss(right, wrong)),
        accuracy=pair_accuracy(right[:, -1], wrong[:, -1]),
        prefix_accuracy=pair_accuracy(right[:, middle], wrong[:, middle]) if has_middle else None,
    )


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
