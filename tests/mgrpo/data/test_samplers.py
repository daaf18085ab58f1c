"""Orders of problems that depend on their source or difficulty, and go on exactly."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from mgrpo.config.sources import Curriculum
from mgrpo.data.curriculum import CurriculumSampler, difficulties
from mgrpo.data.weighted import WeightedSampler
from mgrpo.errors import DataError
from mgrpo.types import Problem

SOURCES = ["a"] * 6 + ["b"] * 30


def weighted(seed: int = 3, **weights: float) -> WeightedSampler:
    return WeightedSampler(SOURCES, weights or {"a": 3.0, "b": 1.0}, seed)


def curriculum(seed: int = 3, num_problems: int = 100) -> CurriculumSampler:
    difficulty = [float(num_problems - place) for place in range(num_problems)]
    return CurriculumSampler(difficulty, seed, start_fraction=0.2, num_draws_until_full=80)


def test_sources_are_drawn_in_proportion_to_their_weights() -> None:
    sampler = weighted()
    for step in range(1, 30):
        sampler.take(5)
        assert abs(sampler.num_drawn["a"] - 0.75 * 5 * step) <= 1


def test_each_source_goes_through_its_problems_before_it_repeats_one() -> None:
    sampler = weighted(a=1.0, b=1.0)
    drawn = [index for _ in range(12) for index in sampler.take(5)]
    counts = Counter(drawn)
    assert {counts[index] for index in range(6)} == {5}
    assert {counts[index] for index in range(6, 36)} == {1}
    assert weighted(seed=4).take(20) != weighted(seed=3).take(20)


def test_a_source_without_problems_is_refused() -> None:
    with pytest.raises(DataError, match=r"source c of data\.train has no usable problem"):
        weighted(a=1.0, b=1.0, c=1.0)


@pytest.mark.parametrize("make", [weighted, curriculum])
def test_a_sampler_goes_on_where_its_state_was_taken(make) -> None:
    sampler = make()
    sampler.take(17)
    state = json.loads(json.dumps(sampler.state_dict()))
    following = [sampler.take(7) for _ in range(9)]
    resumed = make()
    resumed.load_state_dict(state)
    assert [resumed.take(7) for _ in range(9)] == following


def test_states_of_other_data_are_refused() -> None:
    with pytest.raises(DataError, match="draws from a, this run from a, b"):
        weighted(a=1.0, b=1.0).load_state_dict({"samplers": {"a": {}}, "num_drawn": {}})
    with pytest.raises(DataError, match="num_problems 100"):
        curriculum(num_problems=50).load_state_dict(curriculum().state_dict())


def test_a_curriculum_opens_from_the_easiest_to_all() -> None:
    sampler = curriculum()
    steps = [sampler.take(8) for _ in range(40)]
    assert min(steps[0]) >= 80  # the last ones are the easiest, and a fifth is open
    assert min(steps[5]) >= 40  # 40 of 80 draws are done: 60 % is open
    assert min(min(step) for step in steps[10:]) < 10
    assert all(len(set(step)) == 8 for step in steps)


def test_a_curriculum_of_fewer_problems_than_a_step_repeats_some() -> None:
    assert sorted(set(curriculum(num_problems=3).take(8))) == [0, 1, 2]


def test_difficulties_are_numbers_of_metadata() -> None:
    problems = [
        Problem(problem_id=str(n), question="q", answer="1", metadata={"info": {"rate": str(n)}})
        for n in range(3)
    ]
    rising = Curriculum(by="info.rate", full_after_steps=4)
    falling = Curriculum(by="info.rate", full_after_steps=4, order="descending")
    assert difficulties(problems, rising) == [0, 1, 2]
    assert difficulties(problems, falling) == [0, -1, -2]
    with pytest.raises(DataError, match=r"'level'.*0 has no number.*Columns kept: info"):
        difficulties(problems, Curriculum(by="level", full_after_steps=4))
