"""The controller's decisions, worked by hand."""

from __future__ import annotations

import pytest

from cluster.fleet.elastic import Decision, PoolLoad, Streak, decide
from mgrpo.config.cluster import ElasticConfig
from mgrpo.config.engines import EngineRange

CONFIG = ElasticConfig(
    grow_above=0.5, grow_min_inflight=8, grow_after_steps=2, shrink_below=0.1, shrink_after_steps=3
)
RANGE = EngineRange(min=1, max=3)


def load(busy: float, *, engines: int = 1, coming: int = 0, inflight: float = 16) -> PoolLoad:
    return PoolLoad(
        num_engines=engines, num_coming=coming, busy_fraction=busy, inflight_mean=inflight
    )


def after_steps(
    *loads: PoolLoad, others: float = 0.3, count: EngineRange = RANGE
) -> list[Decision]:
    streak, decisions = Streak(), []
    for one in loads:
        decision, streak = decide(
            one, largest_other_fraction=others, count=count, streak=streak, config=CONFIG
        )
        decisions.append(decision)
    return decisions


KEEP, GROW, SHRINK = Decision.KEEP, Decision.GROW, Decision.SHRINK


def test_a_bottleneck_grows_after_two_steps_and_waits_for_the_engine_to_come() -> None:
    coming = load(0.8, coming=1)
    assert after_steps(load(0.7), load(0.7), coming, coming, coming) == [
        KEEP,
        GROW,
        KEEP,
        KEEP,
        KEEP,
    ]


def test_a_pool_goes_on_growing_up_to_its_most() -> None:
    loads = [load(0.7, engines=n) for n in (1, 1, 2, 2, 3, 3, 3)]
    assert after_steps(*loads) == [KEEP, GROW, KEEP, GROW, KEEP, KEEP, KEEP]


@pytest.mark.parametrize(
    ("one", "others"),
    [
        (load(0.7), 0.8),  # the learner is busier: more engines would only wait for it
        (load(0.5), 0.3),  # not above grow_above
        (load(0.7, inflight=7.9), 0.3),  # too little at a time to share
    ],
)
def test_no_growth_where_an_engine_would_not_help(one: PoolLoad, others: float) -> None:
    assert after_steps(*[one] * 5, others=others) == [KEEP] * 5


def test_a_single_calm_step_begins_the_count_anew() -> None:
    loads = [load(0.7), load(0.4), load(0.7), load(0.7)]
    assert after_steps(*loads) == [KEEP, KEEP, KEEP, GROW]


def test_an_idle_pool_shrinks_to_its_fewest() -> None:
    loads = [load(0.05, engines=n) for n in (2, 2, 2, 1, 1, 1, 1)]
    assert after_steps(*loads) == [KEEP, KEEP, SHRINK, KEEP, KEEP, KEEP, KEEP]


def test_engines_that_would_share_too_little_work_are_too_many() -> None:
    busy = load(0.9, engines=2, inflight=3.9)  # one engine would have 7.8 of the 8 at a time
    assert after_steps(busy, busy, busy) == [KEEP, KEEP, SHRINK]
    enough = load(0.9, engines=2, inflight=4)
    assert after_steps(*[enough] * 5) == [KEEP] * 5
    alone = load(0.9, engines=1, inflight=7.8)  # what is left: it neither shrinks nor grows
    assert after_steps(*[alone] * 5) == [KEEP] * 5


def test_thresholds_that_would_answer_each_other_are_refused() -> None:
    with pytest.raises(ValueError, match="at most half of grow_above"):
        ElasticConfig(grow_above=0.4, shrink_below=0.3)


def test_an_engine_that_has_not_come_yet_can_be_called_off() -> None:
    waiting = load(0.05, engines=1, coming=1)
    assert after_steps(waiting, waiting, waiting) == [KEEP, KEEP, SHRINK]


def test_a_fixed_count_never_moves() -> None:
    fixed = EngineRange(min=2, max=2)
    assert after_steps(*[load(0.9, engines=2)] * 5, count=fixed) == [KEEP] * 5
    assert after_steps(*[load(0.0, engines=2)] * 5, count=fixed) == [KEEP] * 5
