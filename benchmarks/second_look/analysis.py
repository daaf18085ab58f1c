"""The registered tests (docs/results/protocol.md) on the confirming rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from benchmarks.second_look.design import (
    ARMS,
    AT_EQUAL_TOKENS,
    REFERENCE,
    TOKEN_REFERENCE,
    trials_at,
)
from benchmarks.second_look.rows import Results, Row
from benchmarks.second_look.tuning import chosen_rate
from mgrpo.evaluation.seeds import Difference, equivalence, holm, paired_t

MARGIN = 0.02
"""Means closer than this are called equivalent, in shares of 1."""
LEVEL = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Test:
    """A difference of means over seeds, paired by seed, in shares of 1."""

    family: str
    arm: str
    difference: Difference
    p_holm: float  # adjusted for all tests of its question
    p_equivalent: float | None

    @property
    def decision(self) -> str:
        if self.p_holm < LEVEL:
            return "above" if self.difference.mean > 0 else "below"
        if self.p_equivalent is not None and self.p_equivalent < LEVEL:
            return "equivalent"
        return "not decided"


def confirmed(results: Results, family: str, arm: str) -> list[Row]:
    """The confirming rows of an arm at its chosen rate, by seed."""
    rate = chosen_rate(results, family, arm)
    return [] if rate is None else results.of(trials_at("confirming", family, arm, rate))


def first_turn_tests(results: Results) -> list[Test]:
    """Primary question: first attempts of each arm against those of GRPO at the same budget of
    completions."""
    arms = [arm for arm in ARMS if arm not in (REFERENCE, TOKEN_REFERENCE)]
    return tests_against(REFERENCE, arms, results)


def equal_token_tests(results: Results) -> list[Test]:
    """The same at the same budget of tokens."""
    return tests_against(TOKEN_REFERENCE, AT_EQUAL_TOKENS, results)


def tests_against(reference: str, arms: Sequence[str], results: Results) -> list[Test]:
    """First attempts of arms against those of another one, paired by seed."""

    def pair(family: str, arm: str) -> tuple[list[float], list[float]]:
        others = {row.seed: row.t1 for row in confirmed(results, family, reference)}
        own = [row for row in confirmed(results, family, arm) if row.seed in others]
        return [others[row.seed] for row in own], [row.t1 for row in own]

    return tests_of(results.scale.families, arms, pair)


def second_turn_tests(results: Results) -> list[Test]:
    """Secondary question: second turns against the second of two independent attempts."""

    def pair(family: str, arm: str) -> tuple[list[float], list[float]]:
        own = confirmed(results, family, arm)
        return [row.t2_independent for row in own], [row.t2 for row in own]

    return tests_of(results.scale.families, ARMS, pair)


def tests_of(
    families: Iterable[str],
    arms: Sequence[str],
    pair: Callable[[str, str], tuple[list[float], list[float]]],
) -> list[Test]:
    """One for each family and arm that has enough rows, with p adjusted over all of them."""
    found = []
    for family in families:
        for arm in arms:
            first, second = pair(family, arm)
            if (difference := paired_t(first, second)) is not None:
                found.append(
                    Test(
                        family=family,
                        arm=arm,
                        difference=difference,
                        p_holm=1.0,
                        p_equivalent=equivalence(first, second, margin=MARGIN),
                    )
                )
    adjusted = holm([one.difference.p for one in found])
    return [replace(one, p_holm=p) for one, p in zip(found, adjusted, strict=True)]
