"""How well the policy verifies its own attempts: a verify layer's verdicts against the checks.

What is detected is an error: a verdict that does not accept its attempt is positive, one that
cannot be read too, since it accepts nothing.

    precision = rejected and wrong / rejected      recall = rejected and wrong / wrong

The accuracy is that of the reward, in which an unreadable verdict is no right one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mgrpo.types import Completion

Pair = tuple[Completion, Completion]  # (attempt, verdict)


@dataclass(frozen=True, slots=True)
class Verdicts:
    """Counts over the pairs without failed checks."""

    num_pairs: int = 0
    num_right: int = 0  # verdicts that agree with the check
    num_unreadable: int = 0
    num_rejected: int = 0
    num_wrong_attempts: int = 0
    num_wrong_rejected: int = 0  # of the rejected attempts, those that are wrong

    @property
    def ratios(self) -> dict[str, tuple[float, float]]:
        """By name, (sum, count)."""
        return {
            "accuracy": (self.num_right, self.num_pairs),
            "precision": (self.num_wrong_rejected, self.num_rejected),
            "recall": (self.num_wrong_rejected, self.num_wrong_attempts),
            "accepted_fraction": (self.num_pairs - self.num_rejected, self.num_pairs),
            "unreadable_fraction": (self.num_unreadable, self.num_pairs),
        }

    def shares(self) -> dict[str, float | None]:
        """By name; None where there is nothing to divide by."""
        return {name: part / of if of else None for name, (part, of) in self.ratios.items()}


def count_verdicts(pairs: Iterable[Pair]) -> Verdicts:
    """Count (attempt, verdict) pairs; a pair with a failed check is left out."""
    counts = dict.fromkeys(Verdicts.__dataclass_fields__, 0)
    for attempt, verdict in pairs:
        if verdict.reward is None or not verdict.reward.is_usable:
            continue
        counts["num_pairs"] += 1
        counts["num_right"] += verdict.is_correct
        counts["num_unreadable"] += verdict.reward.status == "unparsable"
        counts["num_rejected"] += not verdict.accepts
        counts["num_wrong_attempts"] += not attempt.is_correct
        counts["num_wrong_rejected"] += not verdict.accepts and not attempt.is_correct
    return Verdicts(**counts)
