"""Comparison of two policies on the same problems: differences and significance tests.

Pairing by problem removes the variance of the problems' difficulty. With one greedy answer per
problem, the exact McNemar test uses the problems that only one policy solves; with several answers,
the means per problem are compared by a paired bootstrap.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mgrpo.errors import DataError
from mgrpo.evaluation.statistics import CONFIDENCE, Floats, exact_mcnemar, paired_bootstrap
from mgrpo.evaluation.summary import Evaluation, problem_table
from mgrpo.records.json_object import JsonObject

ProblemKey = tuple[str, int]  # problem id, and its number of earlier occurrences
MCNEMAR = "exact McNemar"
BOOTSTRAP = "paired bootstrap"


@dataclass(frozen=True, slots=True)
class PairedMeans:
    """Both policies' mean per problem and turn, over the problems answered by both."""

    a_PT: Floats
    b_PT: Floats
    num_unpaired: int  # problems answered by only one of them


def compare(a: Evaluation, b: Evaluation) -> JsonObject:
    """A minus B, per turn and for the gain of correction.

    Raises:
        DataError: they have no common problem.
    """
    return compare_means(
        problem_means(a),
        problem_means(b),
        one_answer=[
            gives_one_answer(a, turn) and gives_one_answer(b, turn) for turn in range(a.num_layers)
        ],
        num_resamples=a.settings.bootstrap_resamples,
        seed=a.bootstrap_seed,
    )


def compare_means(
    a: Mapping[ProblemKey, Floats],
    b: Mapping[ProblemKey, Floats],
    *,
    one_answer: Sequence[bool],
    num_resamples: int,
    seed: int,
) -> JsonObject:
    """A minus B, per turn and for the gain of correction.

    Args:
        a: [T] share of right answers of each turn, by problem.
        b: the same of the other policy.
        one_answer: [T] whether both gave one greedy answer to each problem.
        num_resamples: of the bootstrap; 0: no intervals.
        seed: of the bootstrap.

    Raises:
        DataError: they have no common problem.
    """
    pairs, num_turns = paired_means(a, b), len(one_answer)
    differences_PT = pairs.a_PT - pairs.b_PT
    # One more column: the difference of the two gains.
    table = np.column_stack([differences_PT, differences_PT[:, -1] - differences_PT[:, 0]])
    tests: list[dict[str, object]] = [{} for _ in range(table.shape[1])]
    if num_resamples > 0 and len(table) > 1:
        tests = [
            {"ci": list(interval), "p_value": p_value, "test": BOOTSTRAP}
            for interval, p_value in paired_bootstrap(table, num_resamples=num_resamples, seed=seed)
        ]
    turns = []
    for turn in range(num_turns):
        row = {
            "turn": turn + 1,
            "acc": [float(pairs.a_PT[:, turn].mean()), float(pairs.b_PT[:, turn].mean())],
            "difference": float(differences_PT[:, turn].mean()),
            **tests[turn],
        }
        if one_answer[turn]:
            row |= discordant(differences_PT[:, turn])
        turns.append(row)
    return {
        "num_problems": len(table),
        "num_unpaired": pairs.num_unpaired,
        "level": CONFIDENCE,
        "resamples": num_resamples,
        "turns": turns,
        "delta": {"difference": float(table[:, -1].mean()), **tests[-1]} if num_turns > 1 else None,
    }


def gives_one_answer(evaluation: Evaluation, turn: int) -> bool:
    """Whether each problem has one greedy answer at this turn, counted from 0."""
    settings = evaluation.settings
    return settings.decoding == "greedy" and (turn == 0 or len(evaluation.phrases) <= 1)


def discordant(differences_P: Floats) -> dict[str, object]:
    """The numbers of problems that only one policy solves, and their exact test."""
    only_a, only_b = int((differences_P > 0).sum()), int((differences_P < 0).sum())
    return {
        "only_a": only_a,
        "only_b": only_b,
        "p_value": exact_mcnemar(only_a, only_b),
        "test": MCNEMAR,
    }


def paired_means(
    means_a: Mapping[ProblemKey, Floats], means_b: Mapping[ProblemKey, Floats]
) -> PairedMeans:
    """Match the problems by their ids.

    A problem may be too long for only one policy's tokenizer, so the sets can differ.
    """
    common = [name for name in means_a if name in means_b]
    if not common:
        raise DataError(
            f"The two evaluations have no common problem: {len(means_a)} of the first and "
            f"{len(means_b)} of the second have a usable answer. Check whether the reward checks "
            "fail."
        )
    return PairedMeans(
        np.array([means_a[name] for name in common]),
        np.array([means_b[name] for name in common]),
        len(means_a) + len(means_b) - 2 * len(common),
    )


def problem_means(evaluation: Evaluation) -> dict[ProblemKey, Floats]:
    """[T] mean of each problem's answers, by turn."""
    by_problem = evaluation.by_problem()
    if not by_problem:
        return {}
    correct_PT, num_chains_P = problem_table(list(by_problem.values()), evaluation.num_layers)
    asked: Counter[str] = Counter()
    means: dict[ProblemKey, Floats] = {}
    for chains, row_T in zip(by_problem.values(), correct_PT / num_chains_P[:, None], strict=True):
        problem_id = chains[0].turns[0].problem_id
        means[problem_id, asked[problem_id]] = row_T
        asked[problem_id] += 1
    return means
