"""Whole runs: exact times by hand, what is conserved, what never gets slower."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mgrpo.simulation.outcome import Outcome
from mgrpo.simulation.rates import EngineRates, FailureRates, LearnerRates, Rates
from mgrpo.simulation.simulator import Layout, Order, Simulator, simulate
from mgrpo.simulation.workload import (
    EmpiricalLengths,
    FixedLengths,
    LayerWork,
    LognormalLengths,
    Workload,
)

SOLVE = LayerWork(name="solve", group_size=2, max_tokens=100, lengths=FixedLengths(tokens=10))
CORRECT = LayerWork(
    name="correct",
    group_size=3,
    max_tokens=100,
    lengths=FixedLengths(tokens=20),
    added_prompt_tokens=7,
)
ONE_LAYER = Workload(prompts_per_step=4, prompt_tokens=5, layers=[SOLVE])
TWO_LAYERS = replace(ONE_LAYER, layers=[SOLVE, CORRECT])
RATES = Rates(
    engine=EngineRates(step_s=1.0, max_running=4),
    learner=LearnerRates(token_s=0.1),
    weights_s=2.0,
)
ONE_EACH = Layout(num_engines=[1], num_ranks=1)
IN_TURN = replace(ONE_EACH, is_colocated=True)
STREAMED, AHEAD = Order(streams=True), Order(staleness_steps=1)


def test_a_synchronous_step_samples_then_trains_then_delivers() -> None:
    outcome = simulate(ONE_LAYER, ONE_EACH, Order(), RATES, num_steps=3)
    # 4 groups of 2 in batches of 4: 10 + 10 steps. 4 trees of 5 + 2 * 10 tokens at 0.1 s. 2 s.
    assert outcome.ends_s == pytest.approx([32.0, 64.0, 96.0])
    assert outcome.sampled_tokens == [80, 80, 80]
    assert outcome.learner_tokens == pytest.approx([100.0] * 3)
    assert outcome.tokens_per_s == pytest.approx(80 / 32)
    assert outcome.busy_shares == pytest.approx({"shared": 20 / 32, "learner": 10 / 32})
    assert outcome.gpus_busy == pytest.approx(30 / 64)
    shares = outcome.shares()
    assert (shares.sampling, shares.learner) == pytest.approx((20 / 32, 10 / 32))
    assert (shares.both, shares.tail, shares.waiting) == pytest.approx((0, 0, 2 / 32))


def test_a_streamed_step_trains_the_first_batch_s_trees_beside_the_second() -> None:
    outcome = simulate(ONE_LAYER, ONE_EACH, STREAMED, RATES, num_steps=2)
    # At 10 s two trees are done. The learner takes the first at once (2.5 s), then the other. The
    # other two come at 20 s: 5 s of learning are left.
    assert outcome.ends_s == pytest.approx([27.0, 54.0])
    assert outcome.shares().both == pytest.approx(5 / 27)


def test_a_streamed_learner_waits_for_as_many_tokens_as_it_wants() -> None:
    order = Order(streams=True, least_tokens=60)  # of the 80 that a step samples
    outcome = simulate(ONE_LAYER, ONE_EACH, order, RATES, num_steps=1)
    # 40 are too few; the last two trees come at the same time, and with one of them it begins.
    updates = [(s.start_s, s.end_s) for s in outcome.spans if s.kind == "update"]
    assert [time for span in updates for time in span] == pytest.approx([20.0, 27.5, 27.5, 30.0])


def test_one_step_off_takes_as_long_as_the_longer_of_sampling_and_update() -> None:
    outcome = simulate(ONE_LAYER, ONE_EACH, AHEAD, RATES, num_steps=4)
    # The first step is sampled alone; the last one trains alone.
    assert outcome.ends_s == pytest.approx([42.0, 64.0, 86.0, 98.0])
    assert list(outcome.steady) == [1, 2]
    assert outcome.seconds_per_step == pytest.approx(22.0)
    assert outcome.busy_shares["shared"] == pytest.approx(20 / 22)


def test_weights_in_flight_only_pause_the_engines() -> None:
    rates = RATES.model_copy(update={"learner": LearnerRates(token_s=0.05)})
    order = Order(staleness_steps=2, new_weights="in_flight")
    outcome = simulate(ONE_LAYER, ONE_EACH, order, rates, num_steps=8)
    # Engines always have work, 20 s of it a step, and stand still for the 2 s of a broadcast.
    assert outcome.step_seconds[1:] == pytest.approx([22.0] * 4)
    assert outcome.busy_shares["shared"] == pytest.approx(20 / 22, abs=0.02)


def test_weights_between_groups_wait_for_running_requests_and_hold_others_back() -> None:
    order = Order(staleness_steps=1, new_weights="between_groups")
    layout = Layout(num_engines=[1, 1], num_ranks=1)
    rates = RATES.model_copy(update={"learner": LearnerRates(token_s=0.0)})
    work = replace(TWO_LAYERS, prompts_per_step=1)
    outcome = simulate(work, layout, order, rates, num_steps=3)
    # A step's 10 + 40 s; its update takes no time. The next step's attempts, which have begun by
    # then, are done after 10 s. Weights take 2 s, and its corrections begin after these.
    assert outcome.ends_s == pytest.approx([50 + 10 + 2, 62 + 40 + 12, 114 + 40 + 2])


def test_gpus_in_turn_switch_twice() -> None:
    rates = RATES.model_copy(update={"switch_s": 3.0})
    outcome = simulate(ONE_LAYER, IN_TURN, Order(), rates, num_steps=2)
    assert outcome.ends_s == pytest.approx([38.0, 76.0])
    assert outcome.num_gpus == 1
    assert outcome.gpus_busy == pytest.approx(30 / 38)


def test_corrections_start_when_their_attempts_are_done() -> None:
    work = replace(TWO_LAYERS, prompts_per_step=1)
    layout = Layout(num_engines=[1, 1], num_ranks=1)
    rates = RATES.model_copy(update={"score_s": 0.5})
    outcome = simulate(work, layout, Order(), rates, num_steps=1)
    # 10 steps and the check; 2 parents x 3 corrections in batches of 4 sequences: 20 + 20 steps,
    # and the check.
    sampled_s = 10.5 + 40.5
    # The tree: 5 + 2 * 10 of the first layer, 2 * (5 + 7 + 10 + 3 * 20) of the second.
    assert outcome.learner_tokens == [189.0]
    assert outcome.ends_s == pytest.approx([sampled_s + 18.9 + 2.0])
    assert outcome.pool_busy(outcome.pools[0]) == pytest.approx(10 / outcome.ends_s[0])
    assert outcome.pool_busy(outcome.pools[1]) == pytest.approx(40 / outcome.ends_s[0])


def test_only_attempts_that_may_be_corrected_are() -> None:
    cut = replace(SOLVE, lengths=EmpiricalLengths(tokens=[10, 100]))
    work = replace(TWO_LAYERS, layers=[cut, replace(CORRECT, skips_truncated=True)])
    outcome = simulate(work, ONE_EACH, Order(), RATES, num_steps=8)
    attempts = 8 * 4 * 2
    corrected = (sum(outcome.sampled_tokens) - first_layer_tokens(work)) / (3 * 20)
    assert 0 < corrected < attempts
    few = replace(TWO_LAYERS, layers=[SOLVE, replace(CORRECT, max_parents=1)])
    assert simulate(few, ONE_EACH, Order(), RATES, num_steps=1).sampled_tokens == [4 * (20 + 60)]


def first_layer_tokens(work: Workload) -> int:
    alone = replace(work, layers=work.layers[:1])
    return sum(simulate(alone, ONE_EACH, Order(), RATES, num_steps=8).sampled_tokens)


def test_checkpoints_and_evaluations_hold_up_the_step_that_they_follow() -> None:
    rates = RATES.model_copy(update={"checkpoint_s": 7.0, "evaluation_s": 5.0})
    order = Order(checkpoint_every=2, evaluate_every=3)
    outcome = simulate(ONE_LAYER, ONE_EACH, order, rates, num_steps=3)
    assert outcome.ends_s == pytest.approx([32.0, 71.0, 108.0])


def test_an_engine_that_fails_has_its_groups_sampled_again_elsewhere() -> None:
    layout = Layout(num_engines=[2], num_ranks=1)
    simulator = Simulator(ONE_LAYER, layout, Order(), RATES, num_steps=1, seed=0)
    pool = simulator.pools[0]
    simulator.at(4.0, lambda: simulator.lose(pool, 0, 100.0))
    outcome = simulator.run()
    # Each engine had 2 groups; the other one samples the lost ones after its own: 10 + 10 steps.
    assert outcome.num_engine_losses == 1
    assert outcome.ends_s == pytest.approx([32.0])
    assert outcome.sampled_tokens == [80] and outcome.trained_trees == [4]


def test_requests_wait_for_an_engine_where_none_is_left() -> None:
    simulator = Simulator(ONE_LAYER, ONE_EACH, Order(), RATES, num_steps=1, seed=0)
    simulator.at(4.0, lambda: simulator.lose(simulator.pools[0], 0, 6.0))
    assert simulator.run().ends_s == pytest.approx([42.0])  # from 10 s on, from the start


def test_a_lost_rank_costs_what_was_done_since_the_checkpoint_and_the_restart() -> None:
    rates = RATES.model_copy(update={"failures": FailureRates(learner_restart_s=50.0)})
    simulator = Simulator(ONE_LAYER, ONE_EACH, Order(), rates, num_steps=2, seed=0)
    simulator.at(25.0, simulator.rank_lost)
    outcome = simulator.run()
    assert outcome.ends_s == pytest.approx([32.0 + 75.0, 64.0 + 75.0])
    assert outcome.num_learner_losses == 1
    assert sum(s.end_s - s.start_s for s in outcome.spans if s.kind == "update") == (
        pytest.approx(20.0)
    )


def test_spot_nodes_take_all_of_their_engines() -> None:
    failures = FailureRates(spot_mtbf_h=0.002, spot_return_s=5.0, engines_per_node=4)
    rates = RATES.model_copy(update={"failures": failures})
    layout = Layout(num_engines=[8], num_ranks=1)
    outcome = simulate(ONE_LAYER, layout, Order(), rates, num_steps=5)
    assert outcome.num_engine_losses > 0 and outcome.num_engine_losses % 4 == 0
    assert outcome.trained_trees == [4] * 5


def random_lengths(work: Workload, sigma: float) -> Workload:
    drawn = LognormalLengths(mean=12.0, sigma=sigma)
    return replace(work, layers=[replace(layer, lengths=drawn) for layer in work.layers])


GROUPS = Order(staleness_steps=2, new_weights="between_groups")
IN_FLIGHT = Order(staleness_steps=3, new_weights="in_flight")
ORDERS = [Order(), STREAMED, replace(STREAMED, least_tokens=100), AHEAD, GROUPS, IN_FLIGHT]


@settings(deadline=None, max_examples=40)
@given(
    order=st.sampled_from(ORDERS),
    engines=st.integers(1, 5),
    ranks=st.integers(1, 3),
    sigma=st.floats(0, 1.2),
    is_shared=st.booleans(),
    mtbf_h=st.sampled_from([0.0, 0.05]),
    seed=st.integers(0, 99),
)
def test_every_problem_trains_once_and_nobody_is_busier_than_always(
    order: Order,
    engines: int,
    ranks: int,
    sigma: float,
    is_shared: bool,
    mtbf_h: float,
    seed: int,
) -> None:
    failures = FailureRates(
        engine_mtbf_h=mtbf_h, engine_recovery_s=9.0, learner_mtbf_h=mtbf_h, learner_restart_s=5.0
    )
    layout = Layout(num_engines=[engines] * (1 if is_shared else 2), num_ranks=ranks)
    rates = RATES.model_copy(update={"failures": failures})
    work = random_lengths(TWO_LAYERS, sigma)
    outcome = simulate(work, layout, order, rates, num_steps=4, seed=seed)
    assert outcome.trained_trees == [4] * 4
    assert outcome.ends_s == sorted(outcome.ends_s)
    check_limits(outcome)
    again = simulate(work, layout, order, rates, num_steps=4, seed=seed)
    assert again.ends_s == outcome.ends_s


def check_limits(outcome: Outcome) -> None:
    for share in [*outcome.busy_shares.values(), outcome.gpus_busy]:
        assert -1e-9 <= share <= 1 + 1e-9
    parts = outcome.shares().named.values()
    assert sum(parts) == pytest.approx(1.0) and min(parts) >= 0
    for pool in outcome.pools:
        assert outcome.pool_running(pool) <= pool.max_running + 1e-9


@settings(deadline=None, max_examples=30)
@given(engines=st.integers(1, 6), token_s=st.floats(0.01, 0.5), prompts=st.integers(1, 12))
def test_streaming_and_one_step_off_are_never_slower_with_equal_lengths(
    engines: int, token_s: float, prompts: int
) -> None:
    rates = RATES.model_copy(update={"learner": LearnerRates(token_s=token_s)})
    work = replace(TWO_LAYERS, prompts_per_step=prompts)
    layout = Layout(num_engines=[engines], num_ranks=1)
    seconds = [
        simulate(work, layout, order, rates, num_steps=8).seconds_per_step
        for order in (Order(), STREAMED, AHEAD)
    ]
    assert all(later <= before + 1e-6 for before, later in pairwise(seconds))


@given(engines=st.integers(1, 8))
@settings(deadline=None, max_examples=8)
def test_one_more_engine_never_samples_slower_with_equal_lengths(engines: int) -> None:
    seconds = [
        simulate(
            ONE_LAYER, Layout(num_engines=[count], num_ranks=1), Order(), RATES, num_steps=2
        ).seconds_per_step
        for count in (engines, engines + 1)
    ]
    assert seconds[1] <= seconds[0] + 1e-9


def test_all_orders_do_the_same_work() -> None:
    work = random_lengths(TWO_LAYERS, 0.8)
    outcomes = [simulate(work, ONE_EACH, order, RATES, num_steps=3) for order in ORDERS]
    assert all(one.sampled_tokens == outcomes[0].sampled_tokens for one in outcomes)


def test_large_steps_are_coarser_and_take_as_long(monkeypatch: pytest.MonkeyPatch) -> None:
    work = Workload(
        prompts_per_step=64,
        prompt_tokens=100,
        layers=[
            replace(SOLVE, max_tokens=1400, lengths=LognormalLengths(mean=700.0), group_size=8)
        ],
    )
    layout = Layout(num_engines=[4], num_ranks=1)
    rates = RATES.model_copy(
        update={"engine": EngineRates(step_s=0.01, context_s=1e-8, max_running=64)}
    )
    exact = simulate(work, layout, AHEAD, rates, num_steps=3)
    monkeypatch.setattr("mgrpo.simulation.simulator.EXACT_BELOW", 0)
    coarse = simulate(work, layout, AHEAD, rates, num_steps=3)
    assert coarse.ends_s[-1] == pytest.approx(exact.ends_s[-1], rel=0.01)
