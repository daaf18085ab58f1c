"""How far a service agrees with labelled completions (`agreement` of a reward term)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import wait
from dataclasses import dataclass, replace

from mgrpo.config import RewardsConfig
from mgrpo.config.data import RowsSource
from mgrpo.config.services import Agreement, ServiceTerm
from mgrpo.data.problems import load_problems
from mgrpo.errors import DataError, RewardError
from mgrpo.findings import CheckLine
from mgrpo.types import Problem, Reward
from rewards.pool import RewardPool

NAME = "agreement"
COMPLETION, CORRECT = "completion", "correct"
LABELS = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}
"""As tables of all forms have them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Labelled:
    """A completion of which it is known whether it is right."""

    problem: Problem
    completion: str
    correct: bool


def agreement_lines(rewards: RewardsConfig) -> Iterator[CheckLine]:
    """One line for each term with labelled rows, all of which it scores."""
    for term in rewards.terms:
        if isinstance(term, ServiceTerm) and term.agreement is not None:
            try:
                rows = labelled_rows(term.agreement)
                alone = term.model_copy(update={"sources": None})
                config = rewards.model_copy(update={"terms": [alone], "num_processes": 1})
                scores = scores_of(config, rows)
            except (DataError, RewardError) as error:
                yield CheckLine("fail", NAME, f"{term.function}: {error}")
                continue
            yield agreement_line(term.function, term.agreement, rows, scores)


def labelled_rows(agreement: Agreement) -> list[Labelled]:
    """The rows of the file.

    Raises:
        DataError: it cannot be read, a column is missing, or all labels are equal.
    """
    source = RowsSource(
        path=agreement.path,
        needs_answer=False,
        metadata_fields="all",
        max_metadata_kib=1024,
    )
    found = load_problems(source)
    if found.num_dropped:
        raise DataError(f"{agreement.path} has unusable rows: {found.describe_dropped()}")
    rows = [labelled(problem, agreement.path) for problem in found.problems]
    if len({row.correct for row in rows}) < 2:
        raise DataError(
            f"{agreement.path} needs right and wrong completions: all {len(rows)} labels are equal."
        )
    return rows


def labelled(problem: Problem, path: str) -> Labelled:
    metadata = dict(problem.metadata)
    completion, correct = metadata.pop(COMPLETION, None), metadata.pop(CORRECT, None)
    if not isinstance(completion, str):
        raise DataError(f"{path}: {problem.problem_id} has no text in the column {COMPLETION}.")
    label = LABELS.get(str(correct).lower())
    if label is None:
        raise DataError(
            f"{path}: {problem.problem_id} has {correct!r:.40} in the column {CORRECT}, expected "
            "true or false."
        )
    return Labelled(
        problem=replace(problem, metadata=metadata), completion=completion, correct=label
    )


def scores_of(config: RewardsConfig, rows: Sequence[Labelled]) -> list[Reward]:
    """What the one term says of each row: [len(rows)]."""
    with RewardPool(config) as pool:
        futures = [pool.submit(row.problem, [row.completion]) for row in rows]
        for future in futures:
            while not wait([future], timeout=pool.patience_s).done:
                pool.refuse_stall()
        return [reward for future in futures for reward in future.result(timeout=0)]


def agreement_line(
    name: str, agreement: Agreement, rows: Sequence[Labelled], scores: Sequence[Reward]
) -> CheckLine:
    failures = [reward for reward in scores if not reward.is_usable]
    if failures:
        return CheckLine(
            "fail",
            NAME,
            f"{name} scored all but {len(failures)} of {len(rows)} labelled rows. The first: "
            f"{failures[0].status}, {failures[0].detail}",
        )
    pairs = [(row.correct, reward.correct) for row, reward in zip(rows, scores, strict=True)]
    agreed, kappa = accuracy(pairs), cohens_kappa(pairs)
    reached = agreed if agreement.measure == "accuracy" else kappa
    text = (
        f"{name} agrees with {sum(left == right for left, right in pairs)} of {len(pairs)} labels "
        f"of {agreement.path} (accuracy {agreed:.3f}, Cohen's kappa {kappa:.3f}); it took "
        f"{pairs.count((False, True))} wrong ones for right and {pairs.count((True, False))} right "
        "ones for wrong"
    )
    if reached >= agreement.at_least:
        return CheckLine("ok", NAME, text)
    return CheckLine(
        "fail",
        NAME,
        f"{text}. agreement.at_least asks for {agreement.measure} {agreement.at_least:g}: change "
        "its prompt, its model or correct_at.",
    )


def accuracy(pairs: Sequence[tuple[bool, bool]]) -> float:
    """The share of pairs (label, what the service says) that are equal."""
    return sum(left == right for left, right in pairs) / len(pairs)


def cohens_kappa(pairs: Sequence[tuple[bool, bool]]) -> float:
    """Agreement beyond chance: (observed - expected) / (1 - expected), Cohen 1960; at most 1, and
    0 where the service does not depend on the label. The labels must not be all equal."""
    labels = sum(left for left, _ in pairs) / len(pairs)
    said = sum(right for _, right in pairs) / len(pairs)
    expected = labels * said + (1 - labels) * (1 - said)
    return (accuracy(pairs) - expected) / (1 - expected)
