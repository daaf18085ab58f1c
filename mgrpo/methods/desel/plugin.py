"""DeSel: keep what is likely enough (after https://arxiv.org/abs/2310.06374)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor

from learner.columns import StepBatch
from learner.plugin import LearnerPlugin, RowFilter
from learner.row_groups import usable_groups
from mgrpo.config.base import StrictConfig
from mgrpo.errors import LearnerError

SOURCE, GREEDY_LOGPROB = "greedy_anchor", "greedy_logprob_mean"


class DeselSettings(StrictConfig):
    """Keys of desel."""

    ratio: NonNegativeFloat = 0.6
    """A completion is likely enough at this share of the anchor's likelihood or more; 0 keeps
    everything."""
    anchor: Literal["greedy", "max_likelihood"] = "max_likelihood"
    """greedy: the answer without chance, as in the paper (needs the plug-in greedy_anchor).
    max_likelihood: the likeliest completion of the group, which costs nothing."""
    top_k: PositiveInt | None = None
    """Of those likely enough, keep so many at most, the likeliest; null: all."""
    drop: Literal["unlikely_wrong", "unlikely"] = "unlikely_wrong"
    """The excluded completions: those that are neither likely enough nor right; or all unlikely
    ones, which also forgets rare right answers."""


class Desel(LearnerPlugin):
    """Leaves out completions that are much less likely than an anchor.

    Likelihood is the exponential of the mean log-probability of the sampled tokens, as the engine
    recorded it. Excluded completions are in no statistics.

    Formula:
        u_i = exp(mean_t log p_it);  i stays where u_i ≥ ratio · u of the anchor
        (with drop: unlikely_wrong also where i is right), at most top_k of them

    Reconstructed:
        The paper selects decoded answers of a keyphrase generator. Its use as a filter of training
        rows, the ratio, and keeping right answers are ours.
    """

    by_tree = True
    Settings: ClassVar[type[StrictConfig]] = DeselSettings
    needs: ClassVar[tuple[str, ...]] = (SOURCE,)
    overlaps: ClassVar[Mapping[str, str]] = {
        "unlikeliness": "ranks a group's completions by likelihood, and this leaves unlikely ones "
        "out: ranks are among the rest"
    }

    @classmethod
    def needed(cls, settings: DeselSettings) -> tuple[str, ...]:
        return cls.needs if settings.anchor == "greedy" else ()

    def filter_rows(self, batch: StepBatch) -> RowFilter | None:
        logprobs = batch.rollout_logprobs
        likelihoods = batch.row_means(logprobs, batch.is_sampled).exp()
        is_known = batch.row_sums(batch.is_sampled.double()) > 0
        is_kept = torch.ones(len(batch.completions), dtype=torch.bool)
        for places in usable_groups(batch, self.layers):
            measured = [place for place in places if is_known[place]]
            if measured:
                is_kept[measured] = likely_enough(
                    likelihoods[measured],
                    self.anchor_likelihood(batch, measured, likelihoods),
                    ratio=self.settings.ratio,
                    top_k=self.settings.top_k,
                )
        if self.settings.drop == "unlikely_wrong":
            is_kept |= batch.is_correct
        return RowFilter(
            is_kept=is_kept,
            is_trained=torch.ones_like(is_kept),
            reason="it is much less likely than its group's anchor",
        )

    def anchor_likelihood(self, batch: StepBatch, places: list[int], likelihoods: Tensor) -> float:
        """Of one group.

        Raises:
            LearnerError: a completion carries no greedy answer's log-probability.
        """
        if self.settings.anchor == "max_likelihood":
            return float(likelihoods[places].max())
        one = batch.completions[places[0]]
        if GREEDY_LOGPROB not in one.metadata:
            raise LearnerError(
                f"Completion {one.completion_id} does not say how likely the greedy answer to its "
                f"prompt is. Let {SOURCE} work on layer {one.layer} too, or set anchor: "
                "max_likelihood."
            )
        return float(torch.tensor(one.metadata[GREEDY_LOGPROB], dtype=torch.float64).exp())


def likely_enough(
    likelihoods: Tensor, anchor: float, *, ratio: float, top_k: int | None = None
) -> Tensor:
    """[G] bool: at least ratio * anchor, and among the top_k of these (ties: the earlier).

    Args:
        likelihoods: [G] of one group.
    """
    is_kept = likelihoods >= ratio * anchor
    if top_k is None or int(is_kept.sum()) <= top_k:
        return is_kept
    order = torch.where(is_kept, likelihoods, -1.0).argsort(descending=True, stable=True)
    best = torch.zeros_like(is_kept)
    best[order[:top_k]] = True
    return best
