"""Rewards: the checks of completions and their processes."""

from __future__ import annotations

from typing import Any

from pydantic import Field, PositiveFloat, PositiveInt

from mgrpo.config.base import StrictConfig


class RewardTerm(StrictConfig):
    """One check and its weight in the sum."""

    check: str
    """A built-in name (math_answer, format, reasoning_gym), or your own `module:function` or
    `./file.py:function`. Modules and files lie in the folder that the command is run in, beside
    the recipe, or (modules) are installed."""
    weight: float = 1.0
    settings: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments that the check is called with."""


class RewardsConfig(StrictConfig):
    """The checks and their processes."""

    terms: list[RewardTerm] = Field(default=[RewardTerm(check="math_answer")], min_length=1)
    """Added up by weight. The first one decides whether a completion is correct."""
    num_processes: PositiveInt = 2
    deadline_s: PositiveFloat = 10.0
    """A check that takes longer is killed and counted as a timeout, in seconds. Importing it does
    not count."""
    start_deadline_s: PositiveFloat = 60.0
    """Longest wait for the reward processes to import the checks, in seconds."""
    max_failed_fraction: float = Field(default=0.2, ge=0, le=1)
    """The run stops when more than this share of a step's checks time out or crash."""
