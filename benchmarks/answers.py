"""Error rates of `math_answer` and of plain math-verify on labelled pairs.

    make answers                  # prints the table
    make answers ARGS=--write     # also writes docs/results/answers.md

The pairs are in tests/rewards/answer_pairs, one file a kind. math-verify is called as its authors
show it, `verify(parse(gold), parse(completion))`, in a process that is killed after
`DEADLINE_S`: some answers never terminate. A pair whose check failed counts as refused.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.machine import REPOSITORY
from benchmarks.measured_page import write_measured
from mgrpo.config.rewards import CheckTerm, RewardsConfig
from mgrpo.types import Problem
from rewards.math_answer import math_answer
from rewards.pool import RewardPool

PAIRS = REPOSITORY / "tests" / "rewards" / "answer_pairs"
PAGE = REPOSITORY / "docs" / "results" / "answers.md"
SETTINGS_KIND = "settings"  # pairs that try math_answer's settings; math-verify has none of them
DEADLINE_S = 10.0

HEADER = (
    "| Kind | right | wrong | false negatives | false positives "
    "| math-verify: false negatives | false positives |\n| --- |" + " ---: |" * 6
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A reference, what stands in the box, and whether it is that answer.

    Example: {"reference": "18", "boxed": "18\\\\text{ cm}", "expected": true}
    """

    kind: str
    reference: str
    boxed: str
    expected: bool
    settings: dict[str, Any] = field(default_factory=dict)  # of math_answer

    @property
    def problem(self) -> Problem:
        return Problem(problem_id=self.kind, question="", answer=self.reference)

    @property
    def completion(self) -> str:
        return f"So \\boxed{{{self.boxed}}}"


@dataclass(frozen=True, slots=True)
class Row:
    """One kind's pairs, and how many of them each of the two gets wrong."""

    kind: str
    num_right: int
    num_wrong: int
    ours: tuple[int, int]  # false negatives, false positives
    theirs: tuple[int, int] | None

    def __str__(self) -> str:
        theirs = self.theirs or ("–", "–")  # noqa: RUF001  # a dash for "does not apply"
        cells = [self.kind, self.num_right, self.num_wrong, *self.ours, *theirs]
        return "| " + " | ".join(str(cell) for cell in cells) + " |"


def read_pairs(folder: Path = PAIRS) -> list[Pair]:
    """Every labelled pair, by kind."""
    return [
        Pair(kind=path.stem, **json.loads(line))
        for path in sorted(folder.glob("*.jsonl"))
        for line in path.read_text(encoding="utf-8").splitlines()
    ]


def accepts(pair: Pair) -> bool:
    """What `math_answer` says."""
    return math_answer(pair.completion, pair.problem, **pair.settings).correct


def plain_math_verify(completion: str, problem: Problem) -> bool:
    """What math-verify says, with the settings that it comes with."""
    from math_verify import parse, verify

    return bool(verify(parse(f"${problem.answer}$"), parse(completion)))


def accepted_by_pool(pool: RewardPool, pair: Pair) -> bool:
    """What a pool's check says; not right where the check failed."""
    return pool.score_blocking(pair.problem, [pair.completion])[0].correct


def mistakes(pairs: Iterable[Pair], accepts: Callable[[Pair], bool]) -> tuple[int, int]:
    """(right answers refused, wrong answers accepted)."""
    found = [(pair.expected, accepts(pair)) for pair in pairs]
    return found.count((True, False)), found.count((False, True))


def rows_of(pairs: list[Pair], theirs: Callable[[Pair], bool]) -> list[Row]:
    """One row a kind, then all kinds that both were asked about."""
    kinds = sorted({pair.kind for pair in pairs} - {SETTINGS_KIND})
    rows = []
    for kind in [*kinds, SETTINGS_KIND]:
        chosen = [pair for pair in pairs if pair.kind == kind]
        num_right = sum(pair.expected for pair in chosen)
        found = None if kind == SETTINGS_KIND else mistakes(chosen, theirs)
        rows.append(Row(kind, num_right, len(chosen) - num_right, mistakes(chosen, accepts), found))
    return [total(rows[:-1]), *rows]


def total(rows: list[Row]) -> Row:
    def added(pairs: Iterable[tuple[int, int]]) -> tuple[int, int]:
        refused, accepted = zip(*pairs, strict=True)
        return sum(refused), sum(accepted)

    return Row(
        "**all**",
        sum(row.num_right for row in rows),
        sum(row.num_wrong for row in rows),
        added(row.ours for row in rows),
        added(row.theirs for row in rows if row.theirs is not None),
    )


def measured(rows: list[Row]) -> str:
    """What the command measured, as it stands on the page."""
    first = rows[0]
    assert first.theirs is not None
    shares = [
        f"{name}: false positives {accepted / first.num_wrong:.1%} of {first.num_wrong} wrong "
        f"answers, false negatives {refused / first.num_right:.1%} of {first.num_right} right ones."
        for name, (refused, accepted) in (
            ("`math_answer`", first.ours),
            (f"Plain math-verify {version('math-verify')}", first.theirs),
        )
    ]
    table = "\n".join([HEADER, *map(str, rows)])
    return "\n".join(["", *(f"- {share}" for share in shares), "", table, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.name} as well")
    arguments = parser.parse_args()
    term = CheckTerm(check="benchmarks.answers:plain_math_verify")
    config = RewardsConfig(terms=[term], num_processes=1, deadline_s=DEADLINE_S)
    with RewardPool(config) as pool:
        found = measured(rows_of(read_pairs(), partial(accepted_by_pool, pool)))
    print(found)
    if arguments.write:
        write_measured(PAGE, found, title="Error rates of the answer check")


if __name__ == "__main__":
    main()
