"""CAL-GRPO: what attempts weigh, by hand and against the gradient that it stands for."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
import torch

from learner.batch import build_batch
from mgrpo.config import ObjectiveConfig
from mgrpo.config.load import load_recipe
from mgrpo.errors import ConfigError
from mgrpo.plugin import Plugin, load_plugins
from mgrpo.types import Completion
from tests.learner.builders import completion, layer, plugin, solve_layer

CENTRED = {"scale_by_std": False}
RETRY = layer(parents="wrong_only", select="none", advantage=CENTRED)
CHAIN = [solve_layer(advantage=CENTRED), RETRY, RETRY]
FAMILY = [
    *(completion(f"q/{number}", reward) for number, reward in ((1, 1.0), (2, 0.0), (3, 0.0))),
    completion("q/4", 0.0),
    *(completion(f"q/2/{number}", reward) for number, reward in ((1, 1.0), (2, 0.0))),
    *(completion(f"q/3/{number}", 0.0) for number in (1, 2)),
    *(completion(f"q/4/{number}", 1.0) for number in (1, 2)),
]


def advantages(completions: Sequence[Completion], num_layers: int = 2) -> dict[str, float]:
    own = plugin("attempt_weights", *range(1, num_layers + 1))
    batch = build_batch(completions, CHAIN[:num_layers], ObjectiveConfig(), plugins=[own])
    return {one.completion_id: one.advantage for one in batch.selections}


def test_a_failure_costs_what_later_attempts_do_not_repair() -> None:
    """p_2 = 3/6, so first attempts weigh 1/2; 3 of 4 were tried again, so retries weigh 3/4."""
    found = advantages(FAMILY)
    assert found["q/1"] == pytest.approx(0.5 * (1 - 0.25))
    assert found["q/2"] == pytest.approx(0.5 * (0 - 0.25))
    assert found["q/2/1"] == pytest.approx(0.75 * (1 - 0.5))
    assert found["q/3/1"] == found["q/4/1"] == 0.0


def test_where_retries_always_succeed_first_attempts_learn_nothing() -> None:
    sure = [completion("q/1", 1.0), completion("q/2", 0.0), completion("q/2/1", 1.0)]
    assert advantages([*sure, completion("q/2/2", 1.0)])["q/1"] == 0.0


def test_weights_of_three_attempts_multiply() -> None:
    """p_2 = 1/2 and p_3 = 1/2: (1 - p_2)(1 - p_3); all three layers are reached by halves."""
    chain = [
        *(completion("q/1", 1.0), completion("q/2", 0.0)),
        *(completion("q/2/1", 1.0), completion("q/2/2", 0.0)),
        *(completion("q/2/2/1", 1.0), completion("q/2/2/2", 0.0)),
    ]
    found = advantages(chain, 3)
    assert found["q/1"] == pytest.approx(0.25 * 0.5)
    assert found["q/2/1"] == pytest.approx(0.5 * 0.5 * 0.5)
    assert found["q/2/2/1"] == pytest.approx(0.25 * 0.5)


def test_problems_have_their_own_chances() -> None:
    other = [completion("p/1", 1.0), completion("p/2", 0.0)]
    other += [completion(f"p/2/{number}", 0.0) for number in (1, 2)]
    assert advantages([*FAMILY, *other])["p/1"] == pytest.approx(0.5)


def test_its_expectation_is_the_gradient_of_success_by_the_last_attempt() -> None:
    """Two attempts of a policy with two logits, every outcome of a step by its probability.

    J = p_1 + (1 - p_1) p_2. The group's mean has the attempt itself in it, which takes 1/G off, in
    both layers alike: G = H = 2 gives half of the gradient.
    """
    logits = torch.tensor([0.3, -0.4], dtype=torch.float64, requires_grad=True)
    p1, p2 = logits.sigmoid()
    (expected,) = torch.autograd.grad(p1 + (1 - p1) * p2, logits)
    p1, p2 = p1.item(), p2.item()
    found = torch.zeros(2, dtype=torch.float64)
    for first in itertools.product((1, 0), repeat=2):
        retried = [number for number, right in enumerate(first) if not right]
        for later in itertools.product((1, 0), repeat=2 * len(retried)):
            chance = 1.0
            made = []
            for number, right in enumerate(first):
                chance *= p1 if right else 1 - p1
                made.append(completion(f"q/{number}", float(right)))
            for place, right in enumerate(later):
                chance *= p2 if right else 1 - p2
                parent = retried[place // 2]
                made.append(completion(f"q/{parent}/{place % 2}", float(right)))
            for one in made:
                value = advantages(made)[one.completion_id]
                same = sum(other.layer == one.layer for other in made)
                score = float(one.is_correct) - (p1 if one.layer == 1 else p2)
                found[one.layer - 1] += chance * value * score / same
    torch.testing.assert_close(found, expected / 2, rtol=1e-9, atol=0)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["layers.correct.parents=all"], "attempts after failed ones"),
        (["plugins.0.layers=[correct]"], "whole chain"),
    ],
)
def test_what_it_cannot_work_with_is_refused(overrides: list[str], message: str) -> None:
    config = load_recipe("methods/cal_grpo", overrides)
    with pytest.raises(ConfigError, match=message):
        load_plugins(config.method_view, Plugin)
