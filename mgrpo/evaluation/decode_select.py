"""DeSel at evaluation: a vote among the sufficiently likely samples.

The paper (https://arxiv.org/abs/2310.06374) keeps the greedy answer and adds samples with a
sufficient likelihood; it selects keyphrases and does not state the rule. The likelihood (the
exponential of a completion's mean token log-probability), the threshold relative to the greedy
answer, and the vote over the kept samples are our reconstruction.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from mgrpo.config.evaluation import DecodeSelectConfig
from mgrpo.evaluation.statistics import majority
from mgrpo.types import Completion

Vote = Callable[[Completion], str | None]


@dataclass(frozen=True, slots=True)
class SelectedVote:
    """The selection and the vote for one problem."""

    is_right: bool
    num_kept: int  # of the samples
    num_samples: int


def likelihood(completion: Completion) -> float:
    """exp of the mean log-probability per token; 0 if there are none."""
    logprobs = completion.rollout_logprobs
    return math.exp(logprobs.mean(dtype=np.float64)) if len(logprobs) else 0.0


def likely_enough(
    likelihoods: Sequence[float], anchor: float, *, ratio: float, top_k: int | None = None
) -> list[bool]:
    """The samples with at least `ratio` times the anchor's likelihood, and of these the `top_k`
    likeliest (of equal ones the earlier)."""
    is_kept = [value >= ratio * anchor for value in likelihoods]
    places = [place for place, keep in enumerate(is_kept) if keep]
    if top_k is not None:
        places = sorted(places, key=lambda place: -likelihoods[place])[:top_k]
    return [place in places for place in range(len(likelihoods))]


def selected_vote(
    samples: Sequence[Completion],
    anchor: Completion | None,
    config: DecodeSelectConfig,
    vote: Vote,
) -> SelectedVote:
    """The most frequent answer of the anchor and the kept samples.

    Args:
        samples: of one problem, at least one.
        anchor: the greedy answer, which also votes; None: the likeliest sample replaces it.
        vote: an answer in its canonical spelling; None does not vote. Without any vote the answer
        is wrong.
    """
    likelihoods = [likelihood(sample) for sample in samples]
    bar = max(likelihoods) if anchor is None else likelihood(anchor)
    keeps = likely_enough(likelihoods, bar, ratio=config.ratio, top_k=config.top_k)
    kept = [one for one, keep in zip(samples, keeps, strict=True) if keep]
    voters = kept if anchor is None else [anchor, *kept]
    answers = [vote(sample) for sample in voters]
    winner = majority(answers)
    is_right = winner is not None and voters[answers.index(winner)].is_correct
    return SelectedVote(is_right=is_right, num_kept=len(kept), num_samples=len(samples))
