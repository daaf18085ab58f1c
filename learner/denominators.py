"""What each completion's token losses are divided by, over the whole step.

One number per completion: the loss of a step is then a plain sum, which no sharding can change.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from learner.selection import Judged
from mgrpo.config import CorrectLayer, LayerConfig


def token_weights(judged: Sequence[Judged], layer: LayerConfig) -> list[float]:
    """[completions] the factor on each token loss: loss_weight over the layer's denominators.

    seq_mean    1 / |tokens of the row| / number of rows
    token_mean  1 / number of tokens of all rows
    fixed_length  1 / max_completion_tokens / number of rows

    where "rows" are, by `CorrectLayer.denominator`, all usable completions sampled, those
    retained, or those retained of the same parent; in that last case the result is averaged
    over the parents that retain any. Completions that do not train get 0. Tokens count where
    `train_mask` lets them train.
    """
    denominator = layer.denominator if isinstance(layer, CorrectLayer) else "sampled"
    families: dict[str, list[Judged]] = defaultdict(list)
    for one in judged:
        is_counted = one.reward.is_usable if denominator == "sampled" else one.is_selected
        if is_counted:
            families[one.parent_key if denominator == "per_parent" else ""].append(one)
    scales = {key: family_scale(members, layer) for key, members in families.items()}
    weights = []
    for one in judged:
        if not one.is_selected:
            weights.append(0.0)
            continue
        key = one.parent_key if denominator == "per_parent" else ""
        own_length = (
            max(1, one.completion.num_trained_tokens) if layer.aggregation == "seq_mean" else 1
        )
        weights.append(layer.loss_weight / (scales[key] * len(families) * own_length))
    return weights


def family_scale(members: Sequence[Judged], layer: LayerConfig) -> float:
    """What the summed losses of these rows are divided by, apart from a row's own length."""
    if layer.aggregation == "token_mean":
        return max(1, sum(one.completion.num_trained_tokens for one in members))
    if layer.aggregation == "fixed_length":
        return len(members) * layer.max_completion_tokens
    return len(members)
