"""Which sandbox `code_answer` runs programs in, and what it does not keep them from."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

from mgrpo.config import CheckTerm, RewardsConfig
from mgrpo.findings import CheckLine
from mgrpo.records.json_object import JsonObject
from rewards.code.check import code_answer
from rewards.code.sandbox import SandboxError, kind_for, weaknesses

NAME = "sandbox"


def sandbox_lines(rewards: RewardsConfig) -> Iterator[CheckLine]:
    """One line for each term that runs programs, from programs that were run."""
    for term in rewards.terms:
        if not isinstance(term, CheckTerm) or term.check != code_answer.__name__:
            continue
        chosen = settings_of(term.settings)
        try:
            kind = kind_for(chosen["sandbox"])
        except SandboxError as error:
            yield CheckLine("fail", NAME, str(error))
            continue
        limits = (
            f"at most {chosen['processes']} processes of {chosen['memory_mb']} MiB, "
            f"{chosen['cpu_s']:g} s of the processor a test, {chosen['total_s']:g} s in all"
        )
        found = weaknesses(kind)
        if found:
            yield CheckLine(
                "warn",
                NAME,
                f"code_answer runs programs in {kind}, and here a program {', '.join(found)}. "
                f"Otherwise {limits}.",
            )
        else:
            yield CheckLine("ok", NAME, f"code_answer runs programs in {kind}: {limits}")
        if chosen["total_s"] >= rewards.deadline_s:
            yield CheckLine(
                "warn",
                NAME,
                f"code_answer gives a program {chosen['total_s']:g} s (total_s), and the check is "
                f"ended after rewards.deadline_s = {rewards.deadline_s:g} s: slow programs then "
                "count as failed checks, not as wrong answers. Lower total_s or raise deadline_s.",
            )


def settings_of(given: JsonObject) -> JsonObject:
    """Settings of the check, with its defaults."""
    parameters = inspect.signature(code_answer).parameters.values()
    defaults = {one.name: one.default for one in parameters if one.kind is one.KEYWORD_ONLY}
    return {**defaults, **given}
