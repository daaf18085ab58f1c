"""What reward functions return."""

from __future__ import annotations

from pathlib import Path

from mgrpo.config.rewards import BatchTerm, CheckTerm, OpenRlhfTerm, TrlTerm, VerlTerm
from rewards.conventions import RewardFunction, invocations
from rewards.worker import scored
from tests.fuzz.odd_values import odd_return
from tests.fuzz.outcomes import GROUP, check_outcomes
from tests.fuzz.target import Seed, Target

TERMS = (
    CheckTerm(check="m:f"),
    BatchTerm(batch="m:f"),
    VerlTerm(verl="m:f"),
    TrlTerm(trl="m:f"),
    OpenRlhfTerm(openrlhf="m:f"),
)


def returns() -> list[Seed]:
    """Each byte string stands for what a function returns (`odd_return`)."""
    return [Seed(term.KEY, bytes(range(16))) for term in TERMS]


def read_return(folder: Path, given: Seed) -> None:
    term = next(one for one in TERMS if given.name == one.KEY)
    value = odd_return(given.data)
    function = RewardFunction(
        term=term, call=lambda *_, **__: value, signature=None, is_async=False
    )
    found = [one for call in invocations(function, GROUP) for one in scored(call)]
    assert len(found) == len(GROUP.texts), f"{len(found)} outcomes for {len(GROUP.texts)}"
    check_outcomes(found)


TARGETS = (Target("reward outputs", returns, read_return),)
