"""What each completion's token losses are divided by, over the whole step.

A completion has a weight of its own, from its tree alone, and its layer has one total, which adds
up over trees. Their quotient is one number per completion: the loss of a step is then a plain sum,
which no sharding can change, and a step whose trees come one after the other is divided at its end.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from learner.selection import Candidate
from mgrpo.config import LaterLayer, LayerConfig
from mgrpo.config.aggregations import FixedLength, SeqMean, TokenMean


@dataclass(frozen=True, slots=True)
class LayerWeights:
    """Factors of one layer's completions, from whole groups of it."""

    own: list[float]  # [completions] before the division; 0 where one does not train
    total: float  # what all of them are divided by; of disjoint trees the sum of theirs

    def divided(self) -> list[float]:
        """[completions] the factor on each token's loss."""
        return [value / divisor(self.total) for value in self.own]


def divisor(total: float) -> float:
    """A layer in which nothing counts has no weights to divide."""
    return total or 1.0


def layer_weights(candidates: Sequence[Candidate], layer: LayerConfig) -> LayerWeights:
    """The factor on each token loss is loss_weight over the layer's denominators:

    seq_mean    1 / |tokens of the row| / number of rows
    token_mean  1 / number of tokens of all rows
    fixed_length  1 / num_tokens / number of rows

    where "rows" are, by `LaterLayer.denominator`, all usable completions sampled, those
    retained, or those retained of the same parent; in that last case the result is averaged
    over the parents that retain any. Completions that do not train get 0. Tokens count where
    `train_mask` lets them train. A completion counts as `Completion.counts_as` many, and its own
    loss has the factor `Completion.weight`.
    """
    denominator = layer.denominator if isinstance(layer, LaterLayer) else "sampled"
    if denominator == "per_parent":
        families: dict[str, list[Candidate]] = defaultdict(list)
        for one in candidates:
            if one.is_selected:
                families[one.parent_key].append(one)
        scales = {key: divisor(rows_total(members, layer)) for key, members in families.items()}
        own = [
            row_weight(one, layer) / scales[one.parent_key] if one.is_selected else 0.0
            for one in candidates
        ]
        return LayerWeights(own, float(len(families)))
    counted = [one for one in candidates if one.is_selected or denominator == "sampled"]
    usable = [one for one in counted if one.reward.is_usable]
    own = [row_weight(one, layer) if one.is_selected else 0.0 for one in candidates]
    return LayerWeights(own, rows_total(usable, layer))


def row_weight(one: Candidate, layer: LayerConfig) -> float:
    """The layer's loss_weight times the row's, over its length where each row counts the same."""
    is_per_row = isinstance(layer.aggregation, SeqMean)
    length = max(1, one.completion.num_trained_tokens) if is_per_row else 1
    return layer.loss_weight * one.completion.weight / length


def rows_total(members: Sequence[Candidate], layer: LayerConfig) -> float:
    """What the summed losses of these rows are divided by, apart from a row's own length."""
    own = layer.aggregation
    counts = [one.completion.counts_as for one in members]
    if isinstance(own, TokenMean):
        lengths = [one.completion.num_trained_tokens for one in members]
        return float(sum(count * length for count, length in zip(counts, lengths, strict=True)))
    if isinstance(own, FixedLength):
        return float(sum(counts) * (own.num_tokens or layer.max_completion_tokens))
    return float(sum(counts))
