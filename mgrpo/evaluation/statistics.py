"""The statistics of an evaluation: pass@k, majority votes, bootstrap intervals, paired tests.

Pure functions of numbers. The bootstrap resamples problems, the source of variance between
evaluations (Efron's percentile method). Axes: P problems, R resamples, S statistics.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

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


def resampled_sums(values_PS: Floats, *, num_resamples: int, seed: int) -> Floats:
    """Column sums over P problems drawn with replacement, R times: [R, S].

    All columns share each draw, so that differences between columns are paired.
    """
    rng = np.random.default_rng(seed)
    num_problems = len(values_PS)
    rows_at_once = max(1, MAX_DRAWS_AT_ONCE // num_problems)
    parts = []
    for start in range(0, num_resamples, rows_at_once):
        rows = min(rows_at_once, num_resamples - start)
        drawn_RP = rng.integers(num_problems, size=(rows, num_problems))
        parts.append(values_PS[drawn_RP].sum(axis=1))
    return np.concatenate(parts)


def percentile_interval(values_R: Floats) -> Interval:
    """The middle 95 % of a statistic's resampled values."""
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(values_R, [tail, 1 - tail])
    return float(low), float(high)


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
    table = np.column_stack([correct_PT, num_chains_P])
    sums_RS = resampled_sums(table, num_resamples=num_resamples, seed=seed)
    accuracies_RT = sums_RS[:, :-1] / sums_RS[:, -1:]
    intervals = [percentile_interval(column) for column in accuracies_RT.T]
    return intervals, percentile_interval(accuracies_RT[:, -1] - accuracies_RT[:, 0])


def paired_bootstrap(
    differences_PS: Floats, *, num_resamples: int, seed: int
) -> list[tuple[Interval, float]]:
    """For each column of per-problem differences: the mean's 95 % interval, and a p-value.

    The two-sided p-value is the share of resamples in which the mean, shifted to the null
    hypothesis, is at least as far from 0 as the observed one; the observed one counts among them,
    so p is never 0.
    """
    num_problems = len(differences_PS)
    sums_RS = resampled_sums(differences_PS, num_resamples=num_resamples, seed=seed)
    means_RS = sums_RS / num_problems
    observed_S = differences_PS.mean(axis=0)
    is_as_far_RS = np.abs(means_RS - observed_S) >= np.abs(observed_S) - ROUNDING
    p_values = (1 + is_as_far_RS.sum(axis=0)) / (1 + num_resamples)
    return [
        (percentile_interval(column), float(p))
        for column, p in zip(means_RS.T, p_values, strict=True)
    ]


def exact_mcnemar(num_only_a: int, num_only_b: int) -> float:
    """Two-sided p-value of equal accuracy of A and B, from the problems that only one solves.

    Without a difference each of the discordant problems falls to A or B like a fair coin
    (McNemar 1947, in the exact binomial form).
    """
    total = num_only_a + num_only_b
    fewer = min(num_only_a, num_only_b)
    tail = sum(math.comb(total, i) for i in range(fewer + 1))
    return min(1.0, 2 * tail / 2**total)
