"""What a verdict on an attempt says, and its reward: it is right when it agrees with the check."""

from __future__ import annotations

from collections.abc import Sequence

from mgrpo.config.layers import VerdictPhrases
from mgrpo.types import Reward

RIGHT, WRONG = "right", "wrong"
"""What `Reward.extracted_answer` has of a verdict."""


def read_verdict(text: str, phrases: VerdictPhrases) -> bool | None:
    """Whether a text says that the attempt is right; None: it says nothing of it. The phrase that
    ends last counts, in any case."""
    right, wrong = last_end(text, phrases.right), last_end(text, phrases.wrong)
    return None if right == wrong else right > wrong  # equal where none is found


def last_end(text: str, phrases: Sequence[str]) -> int:
    """Where the last of some phrases ends in a text; -1: it has none."""
    folded = text.casefold()
    found = [(folded.rfind(one.casefold()), len(one.casefold())) for one in phrases]
    return max((start + length for start, length in found if start >= 0), default=-1)


def verdict_reward(text: str, phrases: VerdictPhrases, attempt: Reward) -> Reward:
    """1 where the verdict agrees with the attempt's check, 0 where it does not or cannot be read.

    Of an attempt whose check failed nothing is known, so a verdict on it has failed alike.
    """
    if not attempt.is_usable:
        return Reward(value=0.0, status=attempt.status, detail="the check of its attempt failed")
    accepts = read_verdict(text, phrases)
    if accepts is None:
        return Reward(value=0.0, status="unparsable", detail="it has no verdict")
    agrees = accepts == attempt.correct
    return Reward(value=float(agrees), correct=agrees, extracted_answer=RIGHT if accepts else WRONG)
