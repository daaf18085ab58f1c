from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest

from mgrpo.errors import DataError
from mgrpo.methods.robust_sampler.domain_sampler import DomainSampler, groups_of
from mgrpo.methods.robust_sampler.mixture import RobustSamplerSettings
from tests.learner.builders import completion

DOMAINS = ["easy"] * 6 + ["hard"] * 4


def sampler(**settings: Any) -> DomainSampler:
    return DomainSampler(DOMAINS, RobustSamplerSettings(**{"decay": 0.0, **settings}), seed=3)


def observed(easy: list[float], hard: list[float]) -> list:
    return [
        completion(f"q/{number}", reward, domain=domain)
        for domain, rewards in (("easy", easy), ("hard", hard))
        for number, reward in enumerate(rewards)
    ]


def test_chances_are_the_datas_until_every_domain_was_seen() -> None:
    part = sampler()
    assert part.observe(observed([1.0], [])) == {"sampler/easy": 0.6, "sampler/hard": 0.4}


def test_the_radius_moves_draws_to_the_domain_that_fails() -> None:
    part = sampler(radius=0.2)
    chances = part.observe(observed([1.0, 1.0], [0.0, 1.0]))
    assert chances == {"sampler/easy": pytest.approx(0.4), "sampler/hard": pytest.approx(0.6)}
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


def test_groups_of_domains_are_drawn_and_their_belief_is_measured() -> None:
    """The data's shares are those of half plain and half tricky: 0.6 and 0.4."""
    part = sampler(groups={"plain": {"easy": 9, "hard": 1}, "tricky": {"easy": 3, "hard": 7}})
    found = part.observe(observed([1.0], [0.0]))
    assert found["sampler_belief/plain"] == pytest.approx(0.5, abs=1e-6)
    assert found["sampler/easy"] == pytest.approx(0.3 * 0.9 + 0.7 * 0.3, abs=1e-6)


def test_an_adaptive_belief_is_measured_by_domain() -> None:
    found = sampler(belief="adaptive").observe(observed([1.0], []))
    assert found["sampler_belief/hard"] == 0.4


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({"g": {"easy": 1, "x": 1}}, r"groups\.g has x\. The data's domains: easy, hard"),
        ({"g": {"easy": 1}}, r"no group has hard"),
    ],
)
def test_groups_have_the_domains_of_the_data(groups: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        groups_of(["easy", "hard"], groups)
