"""Stops a run with too many failed checks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from mgrpo.errors import RewardError
from mgrpo.types import Reward


def failed_fraction(rewards: Sequence[Reward]) -> float:
    """Share of rewards whose check timed out or crashed; 0 without rewards."""
    return sum(not reward.is_usable for reward in rewards) / len(rewards) if rewards else 0.0


def check_failed_fraction(rewards: Sequence[Reward], limit: float) -> None:
    """Stop the run when more than `limit` of the checks timed out or crashed.

    Args:
        rewards: all rewards of one step.
        limit: RewardsConfig.max_failed_fraction, from 0 to 1.

    Raises:
        RewardError: with the counts, the first failure's text and what to do.
    """
    fraction = failed_fraction(rewards)
    if fraction <= limit:
        return
    counts = Counter(reward.status for reward in rewards)
    first = next(reward for reward in rewards if not reward.is_usable)
    advice = []
    if counts["timeout"]:
        advice.append("raise rewards.deadline_s or rewards.num_processes if checks are slow")
    if counts["error"]:
        advice.append("run the check on one completion manually and fix it")
    raise RewardError(
        f"{counts['timeout']} checks timed out and {counts['error']} crashed, of {len(rewards)} "
        f"({fraction:.0%}); rewards.max_failed_fraction allows {limit:.0%}. "
        f"The first one, a {first.status}: {first.detail or 'no detail'}. "
        f"To continue: {', and '.join(advice)}; or raise rewards.max_failed_fraction if losing "
        "so many completions is acceptable."
    )
