"""Combines the results of checks to one Reward per completion. Pure."""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Sequence
from decimal import Decimal
from numbers import Real
from typing import Any, get_args

from mgrpo.types import Reward, RewardStatus

WORST_FIRST: tuple[RewardStatus, ...] = ("error", "timeout", "unparsable", "scored")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TermReward:
    """The result of one check of a recipe's reward, with its weight."""

    name: str
    weight: float
    reward: Reward


def failed(status: RewardStatus, detail: str) -> Reward:
    """The reward of a completion with a failed check."""
    return Reward(value=0.0, status=status, detail=detail)


def as_reward(returned: object) -> Reward:
    """Convert a check's result; anything but a finite number, a bool or a Reward is an error.

    Numbers and bools may be NumPy's or torch's. A bare number of 1 or more counts as correct. A
    check with another scale returns a Reward with its own `correct`.
    """
    if isinstance(returned, Reward):
        return checked(returned)
    value = plain_scalar(returned)
    if isinstance(value, bool):
        return Reward(value=float(value), correct=value)
    if isinstance(value, Real | Decimal):
        return checked(Reward(value=float(value), correct=float(value) >= 1.0))
    if inspect.iscoroutine(returned):
        returned.close()  # prevents the warning about a coroutine that was never awaited
    return failed(
        "error",
        f"the check returned {described(returned)}, expected a single number, a bool or a Reward",
    )


def plain_scalar(value: Any) -> Any:
    """A NumPy or torch scalar as a plain value; everything else as it is.

    Recognised by its attributes: reward processes import neither library.
    """
    is_scalar = getattr(value, "ndim", None) == 0 and callable(getattr(value, "item", None))
    return value.item() if is_scalar else value


def described(value: object) -> str:
    """ "None of type NoneType", "array([1., 2.]) of type numpy.ndarray with shape (2,)" """
    kind = type(value)
    name = kind.__qualname__
    if kind.__module__ != "builtins":
        name = f"{kind.__module__}.{name}"
    shape = getattr(value, "shape", None)
    suffix = f" with shape {tuple(shape)}" if isinstance(shape, tuple) and shape else ""
    return f"{value!r:.80} of type {name}{suffix}"


def checked(reward: Reward) -> Reward:
    """The same reward in plain Python types; an error if its fields have wrong types.

    Plain types, because it is sent from the reward process to the driver.
    """
    if reward.status not in get_args(RewardStatus):
        return failed("error", f"the check returned the unknown status {reward.status!r:.40}")
    value = plain_scalar(reward.value)  # a user's check may return anything here
    if not isinstance(value, Real | Decimal):
        return failed(
            "error", f"the check returned the value {described(value)}, expected a number"
        )
    if not math.isfinite(value):
        return failed("error", f"the check returned {value!r:.40}, expected a finite value")
    answer = reward.extracted_answer
    return Reward(
        value=float(value),
        status=reward.status,
        correct=bool(reward.correct),
        parts={str(name): float(part) for name, part in reward.parts.items()},
        extracted_answer=None if answer is None else str(answer),
        detail=str(reward.detail),
    )


def combine(terms: Sequence[TermReward]) -> Reward:
    """One completion's reward from all of its checks.

    The value is the weighted sum. The first term decides what is correct and which answer
    was read. The worst status counts (error, timeout, unparsable, scored): a completion with one
    failed check is not usable, whatever the others returned, and its value is 0.

    Args:
        terms: one entry per check, in the recipe's order; at least one.
    """
    assert terms, "a reward needs at least one term"
    first = terms[0].reward
    status = min((term.reward.status for term in terms), key=WORST_FIRST.index)
    usable = status in ("scored", "unparsable")
    names = distinct([term.name for term in terms])
    value = math.fsum(term.weight * term.reward.value for term in terms)
    return Reward(
        value=value if usable else 0.0,
        status=status,
        correct=first.correct and usable,
        parts={
            name: term.reward.value
            for name, term in zip(names, terms, strict=True)
            if term.reward.is_usable
        },
        extracted_answer=first.extracted_answer,
        detail=combined_detail(names, terms),
    )


def combined_detail(names: Sequence[str], terms: Sequence[TermReward]) -> str:
    """Every check's detail; with one check, only that."""
    if len(terms) == 1:
        return terms[0].reward.detail
    pairs = zip(names, terms, strict=True)
    return "; ".join(f"{name}: {term.reward.detail}" for name, term in pairs if term.reward.detail)


def distinct(names: Sequence[str]) -> list[str]:
    """Names made different: a check that is used twice becomes format and format#2."""
    seen: dict[str, int] = {}
    result = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        result.append(name if seen[name] == 1 else f"{name}#{seen[name]}")
    return result
