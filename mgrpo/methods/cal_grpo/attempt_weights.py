"""Weights of successive attempts at a problem (https://arxiv.org/abs/2604.17912)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor

from learner.columns import StepBatch
from learner.other_prompts import root_of
from learner.plugin import LearnerPlugin
from learner.plugin_pairs import is_z_scored
from mgrpo.config import CorrectLayer, MethodView
from mgrpo.config.base import StrictConfig
from mgrpo.errors import ConfigFault, Faults, must_be


class AttemptWeights(LearnerPlugin):
    """Weighs each attempt's advantage so that the gradient is that of success by the last attempt.

    A failed attempt is tried again, so its failure costs only what later attempts do not repair:
    with chance p_2 that the second succeeds, a first success is worth 1 - p_2 more than a failure,
    not 1. And an attempt of a later layer is made only where those before it failed.

    Chances of later attempts are estimated from the problem's own. The gradient is exact where they
    depend on the attempts before by their failure alone.

    Formula:
        A_k ← A_k · Π_{j>k} (1 - p_j) · Π_{j<k} f_j
        k: the attempt's layer;  p_j: share of right ones among the problem's attempts of layer j
        f_j: share of the step's attempts of layer j that were tried again

    Metrics:
        cal/first_weight_mean: mean weight of first attempts.
    """

    Settings: ClassVar[type[StrictConfig]] = StrictConfig

    @classmethod
    def faults(cls, settings: StrictConfig, layers: frozenset[int], method: MethodView) -> Faults:
        if len(layers) < len(method.layers) or len(layers) < 2:
            why = "weighs the attempts of a whole chain of two layers or more."
            yield ConfigFault("(layers)", str(sorted(layers)), why, "Leave `layers` out.")
            return
        for depth, layer in enumerate(method.layers[1:], start=1):
            if not isinstance(layer, CorrectLayer):
                why, path = "weighs attempts, and this layer makes none.", f"(layers.{depth}.kind)"
                yield ConfigFault(path, layer.kind, why)
            else:
                why, path = "is of attempts after failed ones.", f"(layers.{depth}.parents)"
                yield from must_be(path, layer.parents.type, "wrong_only", why)

    @classmethod
    def warnings(
        cls, settings: StrictConfig, layers: frozenset[int], method: MethodView
    ) -> list[str]:
        return [
            f"layers.{number - 1}.advantage divides by the group's spread, so the gradient is no "
            "longer that of success by the last attempt. Use {scale_by_std: false}."
            for number in sorted(layers)
            if is_z_scored(method.layers[number - 1])
        ]

    def transform_advantages(self, batch: StepBatch, advantages: Tensor) -> Tensor:
        last = max(self.layers)
        trees = [root_of(one, batch.parents).group_key for one in batch.completions]
        rates = pass_rates(batch, trees)
        reached = reach(batch, last)
        weights = []
        for one, tree in zip(batch.completions, trees, strict=True):
            weight = reached[one.layer - 1]
            for later in range(one.layer + 1, last + 1):
                weight *= 1 - rates.get((tree, later), 0.0)
            weights.append(weight)
        column = batch.rows(weights)
        first = column[(batch.layers == 1) & batch.is_usable]
        batch.metrics["cal/first_weight_mean"] = (float(first.sum()), float(len(first)))
        return advantages * batch.spread(column)


def pass_rates(batch: StepBatch, trees: Sequence[str]) -> dict[tuple[str, int], float]:
    """(problem's tree, layer) -> share of right ones among its usable completions.

    Args:
        trees: [N] of each completion.
    """
    found: dict[tuple[str, int], list[bool]] = defaultdict(list)
    for place, one in enumerate(batch.completions):
        if batch.is_usable[place]:
            found[trees[place], one.layer].append(one.is_correct)
    return {key: sum(values) / len(values) for key, values in found.items()}


def reach(batch: StepBatch, last: int) -> Sequence[float]:
    """[layers] the share of chains that come to a layer: the product, over the layers before, of
    the share of usable completions that were tried again."""
    parents = {one.parent_id for one in batch.completions}
    shares = [1.0]
    for layer in range(1, last):
        usable = [
            one
            for place, one in enumerate(batch.completions)
            if one.layer == layer and batch.is_usable[place]
        ]
        tried_again = sum(one.completion_id in parents for one in usable)
        shares.append(shares[-1] * tried_again / max(1, len(usable)))
    return shares
