"""Combines the results of a reward's terms to one Reward per completion. Pure."""

from __future__ import annotations

import dataclasses
import inspect
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from numbers import Real
from typing import Any

from mgrpo.types import Reward, RewardStatus

Outcome = Reward | None
"""What a term says of a completion; None: it leaves that one out."""
MAX_FEEDBACK_CHARS = 4000  # of one term; guidance.max_tokens bounds what a prompt has of it
MAX_DETAIL_CHARS = 4000
MAX_PARTS, MAX_NAME_CHARS = 64, 200  # they are metrics' names
WORST_FIRST: tuple[RewardStatus, ...] = ("error", "timeout", "unparsable", "scored")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TermReward:
    """The result of one term of a recipe's reward, with its weight."""

    name: str
    weight: float
    reward: Outcome
    says_correct: bool = True  # it knows what is right: the first that does decides


def failed(status: RewardStatus, detail: str) -> Reward:
    """The reward of a completion with a failed check."""
    return Reward(value=0.0, status=status, detail=detail)


def no_answer_in_time(outcome: Outcome) -> Outcome:
    """A check that timed out as one that found no answer: a legitimate 0."""
    if outcome is None or outcome.status != "timeout":
        return outcome
    return dataclasses.replace(outcome, value=0.0, status="unparsable")


def as_reward(returned: object, correct_at: float | None = 1.0) -> Reward:
    """Convert a check's result; anything but a finite number, a bool or a Reward is an error.

    Numbers and bools may be NumPy's or torch's.

    Args:
        returned: what the check returned.
        correct_at: a bare number of this or more counts as correct; None: no number does.
    """
    if isinstance(returned, Reward):
        return checked(returned)
    value = plain_scalar(returned)
    if isinstance(value, bool):
        return Reward(value=float(value), correct=value)
    if isinstance(value, Real | Decimal):
        correct = correct_at is not None and float(value) >= correct_at
        return checked(Reward(value=float(value), correct=correct))
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
    if reward.status not in WORST_FIRST:
        return failed("error", f"the check returned the unknown status {reward.status!r:.40}")
    value = plain_scalar(reward.value)  # a user's check may return anything here
    if not isinstance(value, Real | Decimal):
        return failed(
            "error", f"the check returned the value {described(value)}, expected a number"
        )
    if not math.isfinite(value):
        return failed("error", f"the check returned {value!r:.40}, expected a finite value")
    parts = {
        str(name)[:MAX_NAME_CHARS]: float(part)
        for name, part in itertools.islice(reward.parts.items(), MAX_PARTS)
    }
    for name, part in parts.items():
        if not math.isfinite(part):
            detail = f"the check returned the part {name!r:.40} = {part}, expected a finite value"
            return failed("error", detail)
    answer, detail = reward.extracted_answer, str(reward.detail)[:MAX_DETAIL_CHARS]
    if reward.status in ("error", "timeout") and not detail:
        detail = f"the check returned the status {reward.status!r} without a detail"
    return Reward(
        value=float(value),
        status=reward.status,
        correct=bool(reward.correct),
        parts=parts,
        extracted_answer=None if answer is None else str(answer)[:MAX_DETAIL_CHARS],
        detail=detail,
        feedback=tidy_feedback(reward.feedback),
    )


def tidy_feedback(text: object) -> str:
    """As text that every tokenizer reads: bounded, without halves of characters."""
    return str(text).strip()[:MAX_FEEDBACK_CHARS].encode(errors="replace").decode()


def combine(terms: Sequence[TermReward]) -> Reward:
    """One completion's reward from all of its terms.

    The value is the weighted sum over the terms that do not leave it out. The first of these that
    says what is right decides what is correct and which answer was read; without one, nothing is.
    The worst status counts (error, timeout, unparsable, scored): a completion with one failed check
    is not usable, whatever the others returned, and its value is 0. So is one that every term
    leaves out. Feedback has the terms' texts in their order, a line or more for each.

    Args:
        terms: one entry per term, in the recipe's order; at least one.
    """
    assert terms, "a reward needs at least one term"
    names = distinct([term.name for term in terms])
    found = [
        (name, term, term.reward)
        for name, term in zip(names, terms, strict=True)
        if term.reward is not None
    ]
    if not found:
        return failed("error", "no term scores it: each returned None")
    status = min((reward.status for *_, reward in found), key=WORST_FIRST.index)
    usable = status in ("scored", "unparsable")
    deciding = next((reward for _, term, reward in found if term.says_correct), None)
    value = weighted_sum([(term.weight, reward.value) for _, term, reward in found])
    if not math.isfinite(value):
        return failed("error", f"the weighted sum of the terms is {value}")
    return Reward(
        value=value if usable else 0.0,
        status=status,
        correct=deciding is not None and deciding.correct and usable,
        parts={
            key: part
            for name, _, reward in found
            if reward.is_usable
            for key, part in parts_of(name, reward)
        },
        extracted_answer=None if deciding is None else deciding.extracted_answer,
        detail=combined_detail({name: reward for name, _, reward in found}, len(terms)),
        feedback="\n".join(reward.feedback for *_, reward in found if reward.feedback),
    )


def weighted_sum(pairs: Sequence[tuple[float, float]]) -> float:
    """The exact sum of weight * value, rounded once; infinite where no float holds it."""
    try:
        return math.fsum(weight * value for weight, value in pairs)
    except (OverflowError, ValueError):
        return math.inf


def parts_of(name: str, reward: Reward) -> Iterator[tuple[str, float]]:
    """A term's value under its name, and its own parts as name#part."""
    yield name, reward.value
    for part, value in reward.parts.items():
        yield f"{name}#{part}", value


def combined_detail(rewards: Mapping[str, Reward], num_terms: int) -> str:
    """Every check's detail with its name; of a single one that worked, only that."""
    return "; ".join(
        reward.detail if num_terms == 1 and reward.is_usable else f"{name}: {reward.detail}"
        for name, reward in rewards.items()
        if reward.detail
    )


def distinct(names: Sequence[str]) -> list[str]:
    """Names made different: a check that is used twice becomes format and format#2."""
    seen: dict[str, int] = {}
    result = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        result.append(name if seen[name] == 1 else f"{name}#{seen[name]}")
    return result
