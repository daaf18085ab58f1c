"""An engine's times by hand: a batch of equal sequences, a queue, a growing context, prefill."""

from __future__ import annotations

import math

import pytest

from mgrpo.simulation.engine import Engine, Group
from mgrpo.simulation.rates import EngineRates
from mgrpo.simulation.workload import FixedLengths, LayerWork, Tree, Workload

LAYER = LayerWork(name="solve", group_size=2, max_tokens=100, lengths=FixedLengths(tokens=10))
TREE = Tree(Workload(prompts_per_step=1, prompt_tokens=5, layers=[LAYER]), seed=0, step=0, slot=0)


def engine_of(quantum: int = 1, **rates: float) -> Engine:
    settings = {"step_s": 1.0, "max_running": 8} | rates
    return Engine(EngineRates.model_validate(settings), quantum=quantum)


def ends(engine: Engine) -> list[tuple[float, int]]:
    """When groups are done, and how many completions each has."""
    engine.admit()
    found = []
    while engine.num_running:
        now = engine.next_end()
        found += [(now, len(group.lengths)) for group in engine.finish(now)]
        engine.admit()
    return found


def test_sequences_of_a_batch_get_a_token_per_decode_step() -> None:
    engine = engine_of()
    engine.submit(Group(TREE, 5, [10, 10]))
    assert ends(engine) == [(10.0, 2)]


def test_a_group_is_done_with_its_longest_completion() -> None:
    engine = engine_of(sequence_s=0.5)
    engine.submit(Group(TREE, 5, [4, 10]))
    # 4 steps of 1 + 2 * 0.5, then 6 of 1 + 0.5.
    assert ends(engine) == [(17.0, 2)]


def test_a_full_batch_lets_others_wait() -> None:
    engine = engine_of(max_running=2)
    engine.submit(Group(TREE, 5, [10, 10]))
    engine.submit(Group(TREE, 5, [3, 4]))
    assert ends(engine) == [(10.0, 2), (14.0, 2)]


def test_prompts_delay_decoding_once_per_group() -> None:
    engine = engine_of(prefill_s=0.1, cached_share=0.5)
    engine.submit(Group(TREE, 40, [10, 10]))
    assert ends(engine) == [(12.0, 2)]  # 40 * 0.5 * 0.1


def test_contexts_that_grow_slow_each_step_down() -> None:
    engine = engine_of(context_s=0.1)
    engine.submit(Group(TREE, 5, [10]))
    # 10 * (1 + 5 * 0.1), and 0.1 * 10**2 / 2 for the growth.
    ((ended, size),) = ends(engine)
    assert (ended, size) == pytest.approx((20.0, 1))


def test_arithmetic_and_reading_the_weights_happen_at_the_same_time() -> None:
    engine = engine_of(arithmetic_s=0.75)
    engine.submit(Group(TREE, 5, [4, 10]))
    # 4 steps of max(1, 2 * 0.75), then 6 of max(1, 0.75).
    assert ends(engine) == [(12.0, 2)]


@pytest.mark.parametrize("context_s", [0.0, 0.02])
def test_time_may_pass_in_pieces(context_s: float) -> None:
    whole, pieces = engine_of(context_s=context_s), engine_of(context_s=context_s)
    for engine in (whole, pieces):
        engine.submit(Group(TREE, 5, [10, 20]))
        engine.admit()
    for now in (0.3, 2.5, 2.6, 7.0):
        pieces.advance(now)
    assert pieces.next_end() == pytest.approx(whole.next_end())
    assert pieces.context == pytest.approx(10 + 2 * pieces.steps)


def test_coarser_ends_are_multiples_of_the_quantum() -> None:
    engine = engine_of(quantum=4)
    engine.submit(Group(TREE, 5, [1]))
    engine.submit(Group(TREE, 5, [9]))
    engine.submit(Group(TREE, 5, [11]))
    assert ends(engine) == [(4.0, 1), (8.0, 1), (12.0, 1)]


def test_a_lost_engine_gives_its_groups_back_whole() -> None:
    engine = engine_of(max_running=2)
    engine.submit(Group(TREE, 5, [2, 10]))
    engine.submit(Group(TREE, 5, [3, 4]))
    engine.admit()
    engine.finish(engine.next_end())
    lost = engine.fail()
    assert [group.num_open for group in lost] == [2, 2]
    assert not engine.is_up and engine.next_end() == math.inf and engine.num_requested == 0
