"""The statistics of an evaluation: pass@k, majority votes, bootstrap intervals, paired tests.

Pure functions of numbers. The bootstrap resamples problems, the source of variance between
evaluations (Efron's percentile method). Axes: P problems, R resamples, S columns, T turns.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Interval = tuple[float, float]

CONFIDENCE = 0.95
MAX_DRAWS_AT_ONCE = 500_000  # 12 MB of values for three statistics
ROUNDING = 1e-12  # differences of means closer than this are equal


def pass_at_k(num_samples: int, num_correct: int, k: int) -> float:
    """Probability that k samples, drawn without replacement, include a right one.

    The unbiased estimate of arXiv 2107.03374: 1 - C(n - c, k) / C(n, k), here in integers up to one
    division.

    Raises:
        ValueError: k is not between 1 and the number of samples.
    """
    if not 1 <= k <= num_samples:
        raise ValueError(f"pass@{k} of {num_samples} samples: k must be from 1 to {num_samples}.")
    all_draws = math.comb(num_samples, k)
    return (all_draws - math.comb(num_samples - num_correct, k)) / all_draws


def majority(votes: Sequence[str | None]) -> str | None:
    """The most frequent vote; of equally frequent ones the first seen. None does not vote."""
    counts = Counter(vote for vote in votes if vote is not None)
    return max(counts, key=counts.__getitem__, default=None)


def maj_at_k(votes: Sequence[str | None], correct: Sequence[bool], k: int) -> float:
    """Share of right majority answers among blocks of k consecutive samples.

    Blocks do not overlap, so their votes are independent; samples of an incomplete block are
    ignored. A block without votes is wrong.

    Args:
        votes: [n] each sample's answer, spelled so that equal answers are equal text.
        correct: [n] whether it is right; an answer's first sample in the block decides.
        k: samples to a vote.

    Raises:
        ValueError: k is not between 1 and the number of samples.
    """
    if not 1 <= k <= len(votes):
        raise ValueError(f"maj@{k} of {len(votes)} samples: k must be from 1 to {len(votes)}.")
    starts = range(0, len(votes) - k + 1, k)
    num_right = 0
    for start in starts:
        winner = majority(votes[start : start + k])
        if winner is not None:
            num_right += correct[votes.index(winner, start)]
    return num_right / len(starts)


def resampled(
    values_PS: Floats, statistic: Callable[..., Floats], *, num_resamples: int, seed: int
) -> tuple[Floats, list[Interval]]:
    """A statistic of P problems drawn with replacement, R times: [S, R], and 95 % intervals.

    All columns share each draw, so that differences between columns are paired. `statistic`
    takes [S, R, P] and the axis of the problems; P is at least 2.
    """
    # As scipy.stats.bootstrap, whose import would be a sixth of all that the driver imports.
    rng, num_problems = np.random.default_rng(seed), len(values_PS)
    at_once = max(1, MAX_DRAWS_AT_ONCE // num_problems)
    found_SR = np.concatenate(
        [
            statistic(values_PS.T[:, rng.integers(0, num_problems, (size, num_problems))], axis=-1)
            for size in block_sizes(num_resamples, at_once)
        ],
        axis=-1,
    )
    outside = 100 * (1 - CONFIDENCE) / 2
    low_S, high_S = np.percentile(found_SR, [outside, 100 - outside], axis=-1)
    return found_SR, list(zip(low_S.tolist(), high_S.tolist(), strict=True))


def block_sizes(total: int, largest: int) -> list[int]:
    """A number in parts of at most `largest`."""
    return [min(largest, total - start) for start in range(0, total, largest)]


def accuracy_intervals(
    correct_PT: Floats, num_chains_P: Floats, *, num_resamples: int, seed: int
) -> tuple[list[Interval], Interval]:
    """95 % intervals of each turn's accuracy, and of the last turn's minus the first's.

    Args:
        correct_PT: [P, T] right answers of each problem and turn.
        num_chains_P: [P] answers of each problem and turn, above 0.
        num_resamples: draws of the problems.
        seed: the same seed gives the same intervals.
    """

    def accuracies(drawn: Floats, axis: int) -> Floats:
        sums = drawn.sum(axis=axis)
        turns = sums[:-1] / sums[-1]
        return np.concatenate([turns, turns[-1:] - turns[:1]])

    table = np.column_stack([correct_PT, num_chains_P])
    _, intervals = resampled(table, accuracies, num_resamples=num_resamples, seed=seed)
    return intervals[:-1], intervals[-1]


def paired_bootstrap(
    differences_PS: Floats, *, num_resamples: int, seed: int
) -> list[tuple[Interval, float]]:
    """For each column of per-problem differences: the mean's 95 % interval, and a p-value.

    The two-sided p-value is the share of resamples in which the mean, shifted to the null
    hypothesis, is at least as far from 0 as the observed one; the observed one counts among them,
    so p is never 0.
    """
    means_SR, intervals = resampled(differences_PS, np.mean, num_resamples=num_resamples, seed=seed)
    observed_S = differences_PS.mean(axis=0)[:, None]
    is_as_far_SR = np.abs(means_SR - observed_S) >= np.abs(observed_S) - ROUNDING
    p_values = (1 + is_as_far_SR.sum(axis=1)) / (1 + num_resamples)
    return list(zip(intervals, p_values.tolist(), strict=True))


def exact_mcnemar(num_only_a: int, num_only_b: int) -> float:
    """Two-sided p-value of equal accuracy of A and B, from the problems that only one solves.

    Without a difference each of the discordant problems falls to A or B like a fair coin
    (McNemar 1947, in the exact binomial form).
    """
    total, fewer = num_only_a + num_only_b, min(num_only_a, num_only_b)
    as_few = sum(math.comb(total, count) for count in range(fewer + 1))
    return min(1.0, 2 * as_few / 2**total)
