"""Over-sampling: the kept completions are the shortest, whichever was finished first."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import replace

import pytest

from actors.scripted import ScriptedEngine
from actors.shortest import kept_first, shortest, too_long
from mgrpo.config import CorrectLayer, SolveLayer
from mgrpo.metric_sums import MetricSums
from mgrpo.training.workers import add_over_sampling
from mgrpo.types import Generation
from tests.actors.byte_tokenizer import END
from tests.actors.test_rollout import PROBLEMS, TOKENIZER, chain, rollout, run


def test_equal_lengths_are_kept_in_the_order_in_which_they_were_begun() -> None:
    assert shortest({0: 5, 1: 3, 2: 3, 3: 3, 4: 9}, 2) == [1, 2]
    assert shortest({0: 5, 1: 3, 2: 3, 3: 3, 4: 9}, 4) == [0, 1, 2, 3]
    assert shortest({7: 1}, 4) == [7]


def test_a_running_one_is_too_long_once_its_next_token_decides() -> None:
    finished = {1: 4, 2: 6}
    assert too_long(finished, {0: 100}, num_kept=3) == []  # too few are finished
    # Number 0 comes before number 2, so that at 5 tokens it may still be its equal.
    assert too_long(finished, {0: 5, 3: 5}, num_kept=2) == [3]
    assert too_long(finished, {0: 6, 3: 4}, num_kept=2) == [0]


def test_any_order_of_events_keeps_the_same_ones() -> None:
    """Whichever sequence is ahead, what is aborted is never one of the shortest."""
    lengths, num_kept = {0: 3, 1: 2, 2: 3, 3: 1}, 2
    for order in itertools.permutations(lengths):
        finished: dict[int, int] = {}
        running = dict.fromkeys(lengths, 0)
        for number in order:  # each grows to its end before the next one grows at all
            while number in running:
                running[number] += 1
                if running[number] == lengths[number]:
                    finished[number] = running.pop(number)
                for dropped in too_long(finished, running, num_kept):
                    del running[dropped]
        assert shortest(finished, num_kept) == [1, 3], order


def said(text: str, *, is_whole: bool = True) -> Generation:
    engine = ScriptedEngine(lambda *_: text, encode=TOKENIZER.encode, end_id=END)
    one = engine.generation(text, 99)
    return one if is_whole else replace(one, finish_reason="aborted")


def test_aborted_ones_come_last_however_short_they_are() -> None:
    found = {2: said("cc"), 0: said("a", is_whole=False), 1: said("bbb"), 3: said("d")}
    assert [one.text for one in kept_first(found, 2)] == ["cc", "d", "a", "bbb"]


def test_a_layer_trains_on_the_shortest_of_what_it_began() -> None:
    engine = ScriptedEngine(
        lambda prompt, index: "x" * (5, 1, 3, 2)[index], encode=TOKENIZER.encode, end_id=END
    )
    parts = rollout(engine, [SolveLayer(name="solve", group_size=2, over_sample=2)])
    completions = run(parts)
    assert [len(one.text) for one in completions] == [1, 2] * len(PROBLEMS)
    assert [one.completion_id for one in completions[:2]] == ["s4p0#0", "s4p0#1"]
    assert all(one["num_samples"] == 2 for one in engine.asked)
    sums = MetricSums()
    add_over_sampling(sums, "layer1", parts.clocks[1])
    # Of 6 + 2 + 4 + 3 tokens, ends of turns included, 2 + 3 are kept: means of 2.5 and 15 / 4.
    assert sums.means() == {
        "layer1/aborted_tokens_fraction": pytest.approx(10 / 15),
        "layer1/kept_length_ratio": pytest.approx(2.5 / (15 / 4)),
    }


def test_what_an_evaluation_asks_for_is_never_over_sampled() -> None:
    """It goes through `sample_all` with requests of its own."""
    layer = SolveLayer(name="solve", group_size=2, over_sample=3)
    engine = ScriptedEngine(lambda *_: "x", encode=TOKENIZER.encode, end_id=END)
    parts = rollout(engine, [layer])
    from actors.layers import solve_request
    from mgrpo.types import CompletionId

    request = solve_request(parts.builder, layer, PROBLEMS[0], tree=CompletionId(0, 0))
    assert request.num_spare == 0
    assert len(asyncio.run(parts.sample_all(1, PROBLEMS[0], [request]))) == 2


def test_without_spare_ones_nothing_changes() -> None:
    plain = ScriptedEngine(lambda p, i: str(i), encode=TOKENIZER.encode, end_id=END)
    parts = rollout(plain, chain(2, 2))
    run(parts)
    assert all(clock.num_aborted == 0 for clock in parts.clocks.values())


def test_corrections_with_phrases_of_their_own_cannot_be_over_sampled() -> None:
    with pytest.raises(ValueError, match="over_sample"):
        CorrectLayer(
            name="correct", group_size=2, over_sample=1, guidance={"draw": "per_correction"}
        )
