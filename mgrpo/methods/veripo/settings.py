"""Preference pairs out of a run's own completions, for steps that train on pairs (VerIPO)."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from mgrpo.config.base import RelationError, StrictConfig
from mgrpo.errors import ConfigFault

PairKind = Literal["penalty", "consistency", "reflection"]
CONSISTENCY_RULES = ("last_number", "off")
SELF_CHECK_PHRASES = (
    "wait",
    "let me check",
    "let me verify",
    "double-check",
    "check again",
    "on second thought",
    "is that right",
)
"""Phrases of self-reflection in a completion (wording is ours)."""


class VerifierSettings(StrictConfig):
    """The rules that sort completions; the thresholds are our reconstruction (arXiv 2505.19000
    names the kinds of pairs, not the rules)."""

    consistency: str = "last_number"
    """The consistency rule: whether the reasoning leads to the answer. last_number: the last number
    before the final answer is that answer, where the answer is a number; other answers must occur
    in the reasoning. off: everything is consistent. Or your own function, "module:function" or
    "./file.py:function", which is given the completion and returns a bool."""
    ngram_tokens: PositiveInt = 20
    """Length of the sequences of tokens whose repetition counts."""
    max_repeats: PositiveInt = 4
    """A completion in which one of them stands more often than this is repetitive."""
    short_percentile: float = Field(default=25.0, ge=0, le=100)
    """A completion below this percentile of its group's lengths is short."""
    self_check_phrases: list[str] = Field(default=list(SELF_CHECK_PHRASES), min_length=1)
    """A completion that holds one of these, in any case, is reflective."""

    @model_validator(mode="after")
    def check_consistency(self) -> VerifierSettings:
        given = self.consistency
        if given in CONSISTENCY_RULES or re.fullmatch(r"[\w.~/-]+:\w+", given):
            return self
        raise RelationError(
            [
                ConfigFault(
                    "consistency",
                    repr(given),
                    "is not a rule.",
                    f"Allowed: {', '.join(CONSISTENCY_RULES)}, package.module:function, "
                    "./file.py:function.",
                )
            ]
        )


class PreferenceSettings(StrictConfig):
    """Keys of preferences."""

    train_on: Literal["rollouts", "pairs"] = "rollouts"
    """pairs: the pairs made since the last phase of pairs, held fixed while the phase lasts. A
    phase of the recipe changes it: {source: {train_on: pairs}}."""
    kinds: list[PairKind] = Field(default=["penalty", "consistency", "reflection"], min_length=1)
    """At most one pair of each kind comes from a prompt. penalty: right over wrong. consistency:
    right by its own reasoning over right in spite of it. reflection: right, long and checking
    itself over answers that do not check themselves."""
    pairs_per_step: PositiveInt = 32
    """Pairs of one update, drawn without replacement."""
    when_exhausted: Literal["skip", "repeat"] = "skip"
    """The phase's remaining steps after all pairs have trained: keep the policy, or repeat the
    pairs."""
    capacity: PositiveInt = 4096
    """Capacity in pairs; the oldest are removed first."""
    drop_solved_fraction: float = Field(default=0.8, ge=0, le=1)
    """After a phase of pairs, this share of the problems that were answered right every time is
    never drawn again."""
    min_problems: NonNegativeInt = 0
    """Minimum number of remaining problems, besides those of one step."""
    verifier: VerifierSettings = VerifierSettings()
    """Rules by which completions become pairs."""
