"""When a pool of engines grows and when it shrinks: a pure decision after each step.

A step samples, then trains, and nothing samples while the learner works; so the step's time is
shared out between the pools and the learner. One more engine helps where a pool's share is the
largest and its engines have enough to do at a time to hand some of it over. One fewer does no
harm where the pool hardly works, or where the others could take its work and would still not have
enough to call for one more: the two rules never answer each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from mgrpo.config.cluster import ElasticConfig
from mgrpo.config.engines import EngineRange


class Decision(Enum):
    """One step's verdict on a pool."""

    KEEP = "keep"
    GROW = "grow"  # ask for one more engine
    SHRINK = "shrink"  # give one engine and its place back


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolLoad:
    """What a step showed of one pool."""

    num_engines: int  # that could work
    num_coming: int  # asked for, or loading their model
    busy_fraction: float  # of the step, mean over the engines that could work
    inflight_mean: float  # completions at a time, per engine, while it was busy


@dataclass(frozen=True, slots=True)
class Streak:
    """Steps in a row that spoke for growing, and for shrinking."""

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
    """What to do with a pool after a step.

    Args:
        load: the step's.
        largest_other_fraction: the largest busy fraction of the other pools and the learner.
        count: the fewest and most engines that the pool may have.
        streak: what this returned for the step before.
        config: the bounds.

    Returns:
        The decision, and the streak for the next step; after a decision it begins anew.
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
    """Completions at a time that each engine would have if one of them handed over its share.

    Example: three engines with 4 each would be two with 6 each.
    """
    if load.num_engines < 2:
        return float("inf")
    return load.inflight_mean * load.num_engines / (load.num_engines - 1)
