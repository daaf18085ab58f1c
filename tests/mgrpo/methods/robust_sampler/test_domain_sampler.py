from __future__ import annotations

import json
from collections import Counter

import pytest

from mgrpo.errors import DataError
from mgrpo.methods.robust_sampler.domain_sampler import DomainSampler, RobustSamplerSettings
from tests.learner.builders import completion

DOMAINS = ["easy"] * 6 + ["hard"] * 4


def sampler(**settings: float) -> DomainSampler:
    return DomainSampler(DOMAINS, RobustSamplerSettings(**{"decay": 0.0, **settings}), seed=3)


def observed(easy: list[float], hard: list[float]) -> list:
    return [
        completion(f"q/{number}", reward, domain=domain)
        for domain, rewards in (("easy", easy), ("hard", hard))
        for number, reward in enumerate(rewards)
    ]


def test_chances_are_the_datas_until_every_domain_was_seen() -> None:
    part = sampler()
    assert part.observe(observed([1.0], [])) == {"easy": 0.6, "hard": 0.4}


def test_the_radius_moves_draws_to_the_domain_that_fails() -> None:
    part = sampler(radius=0.2)
    chances = part.observe(observed([1.0, 1.0], [0.0, 1.0]))
    assert chances == {"easy": pytest.approx(0.4), "hard": pytest.approx(0.6)}
    counts = Counter(DOMAINS[place] for _ in range(100) for place in part.take(10))
    assert 0.55 < counts["hard"] / 1000 < 0.65


def test_every_problem_of_a_domain_comes_before_one_comes_again() -> None:
    places = [place for place in sampler().take(40) if DOMAINS[place] == "hard"]
    assert set(places[:4]) == {6, 7, 8, 9}


def test_a_sampler_goes_on_where_another_stood() -> None:
    part, other = sampler(), sampler()
    part.take(5)
    part.observe(observed([1.0], [0.0]))
    other.load_state_dict(json.loads(json.dumps(part.state_dict())))
    assert [other.take(7) for _ in range(5)] == [part.take(7) for _ in range(5)]
    with pytest.raises(DataError, match="draws from easy, hard"):
        DomainSampler(["a", "b"], RobustSamplerSettings(), seed=3).load_state_dict(
            part.state_dict()
        )


def test_one_domain_is_nothing_to_choose_from() -> None:
    with pytest.raises(DataError, match=r"data\.sampler: robust .* only easy"):
        DomainSampler(["easy"] * 3, RobustSamplerSettings(), seed=0)
