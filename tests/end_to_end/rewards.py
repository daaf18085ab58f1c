"""Rewards that any policy can raise, however small."""

from __future__ import annotations

from mgrpo.types import Problem


def digits(completion: str, problem: Problem) -> float:
    """The share of characters that are digits: a random policy has 1 in 25."""
    return sum(character.isdigit() for character in completion) / max(1, len(completion))
