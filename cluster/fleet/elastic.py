"""Autoscaling of an engine pool: a pure decision after each step.

A step samples, then trains, and nothing samples while the learner works; so the step's time is
divided among the pools and the learner. A pool grows if its share is the largest and its engines
have enough concurrent completions to share with one more. It shrinks if it is hardly busy, or if
the remaining engines could take the work of one without reaching the threshold for growing: the
two rules never trigger each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from mgrpo.config.cluster import ElasticConfig
from mgrpo.config.engines import EngineRange


class Decision(Enum):
    """The scaling decision for a pool after one step."""

    KEEP = "keep"
    GROW = "grow"  # ask for one more engine
    SHRINK = "shrink"  # release one engine and its resources


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolLoad:
    """Load of one pool in a step."""

    num_engines: int  # that could work
    num_coming: int  # asked for, or loading their model
    busy_fraction: float  # of the step, mean over the engines that could work
    inflight_mean: float  # completions at a time, per engine, while it was busy


@dataclass(frozen=True, slots=True)
class Streak:
    """Consecutive steps in favour of growing, and of shrinking."""

    grow_steps: int = 0
    shrink_steps: int = 0


def decide(
    load: PoolLoad,
    *,
    largest_other_fraction: float,
    count: EngineRange,
    streak: Streak,
    config: ElasticConfig,
) -> tuple[Decision, Streak]:
    """The scaling decision for a pool after a step.

    Args:
        load: the step's.
        largest_other_fraction: the largest busy fraction of the other pools and the learner.
        count: the fewest and most engines that the pool may have.
        streak: what this returned for the step before.
        config: the bounds.

    Returns:
        The decision, and the streak for the next step; a decision resets it.
    """
    num_asked = load.num_engines + load.num_coming
    wants_more = (
        load.busy_fraction > config.grow_above
        and load.busy_fraction >= largest_other_fraction
        and load.inflight_mean >= config.grow_min_inflight
    )
    wants_fewer = (
        load.busy_fraction < config.shrink_below
        or inflight_with_one_fewer(load) < config.grow_min_inflight
    )
    streak = Streak(
        streak.grow_steps + 1 if wants_more else 0,
        streak.shrink_steps + 1 if wants_fewer else 0,
    )
    # One at a time: until the engine that was asked for works, its effect is not known.
    may_grow = num_asked < count.max and load.num_coming == 0
    if may_grow and streak.grow_steps >= config.grow_after_steps:
        return Decision.GROW, Streak()
    if num_asked > count.min and streak.shrink_steps >= config.shrink_after_steps:
        return Decision.SHRINK, Streak()
    return Decision.KEEP, streak


def inflight_with_one_fewer(load: PoolLoad) -> float:
    """Concurrent completions per engine if one engine were removed.

    Example: three engines with 4 each would be two with 6 each.
    """
    if load.num_engines < 2:
        return float("inf")
    return load.inflight_mean * load.num_engines / (load.num_engines - 1)
