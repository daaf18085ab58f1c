"""PAG: the example of its page, by its recipe."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import pytest

from learner.batch import build_batch
from learner.plugin import LearnerPlugin
from mgrpo.config.load import load_recipe
from mgrpo.plugin import load_plugins
from mgrpo.types import Completion
from tests.learner.builders import completion


def verdicts(attempt: str, rewards: Sequence[float], accepts: Sequence[bool]) -> list[Completion]:
    return [
        completion(f"{attempt}/{number}", reward, accepts=accepted)
        for number, (reward, accepted) in enumerate(zip(rewards, accepts, strict=True), start=1)
    ]


def revision(name: str, reward: float) -> Completion:
    """Behind a verdict: its group is that one's, its parent the attempt."""
    one = completion(name, reward)
    return dataclasses.replace(one, parent_id=one.group_key.rpartition("/")[0])


FAMILY = [
    *(completion("q/1", 1.0), completion("q/2", 0.0)),
    *verdicts("q/1", [1, 0, 0, 0], [True, False, False, False]),
    *verdicts("q/2", [1, 1, 0, 1], [False, False, True, False]),
    *(revision("q/1/2/1", 1.0), revision("q/1/2/2", 0.0)),
    *(revision("q/2/1/1", 1.0), revision("q/2/1/2", 0.0)),
]


def test_the_page_s_example() -> None:
    config = load_recipe("methods/pag")
    plugins = load_plugins(config.method_view, LearnerPlugin)
    batch = build_batch(FAMILY, config.layers, config.objective, plugins=plugins)
    found = {one.completion_id: one.advantage for one in batch.selections}
    on_right = [found[f"q/1/{number}"] for number in (1, 2, 3, 4)]
    on_wrong = [found[f"q/2/{number}"] for number in (1, 2, 3, 4)]
    assert on_right == pytest.approx([1.5, -0.5, -0.5, -0.5], abs=1e-5)
    assert on_wrong == pytest.approx([0.5, 0.5, -1.5, 0.5], abs=1e-5)
    assert batch.shaped_rewards[-4:] == [1.0, -1.0, 2.0, 0.0]
    assert [one.advantage for one in batch.selections[-4:]] == [1.0, -1.0, 1.0, -1.0]
    assert all(one.selected for one in batch.selections)


def test_revisions_are_compared_with_those_of_their_own_verdict() -> None:
    """Two verdicts on one attempt: two groups, although the attempt is the parent of both."""
    config = load_recipe("methods/pag", ["plugins=[]"])
    made = [
        completion("q/1", 0.0),
        *verdicts("q/1", [1, 1], [False, False]),
        *(revision("q/1/1/1", 1.0), revision("q/1/1/2", 1.0)),
        *(revision("q/1/2/1", 1.0), revision("q/1/2/2", 0.0)),
    ]
    batch = build_batch(made, config.layers, config.objective)
    advantages = [one.advantage for one in batch.selections[3:]]
    assert advantages == pytest.approx([0, 0, 0.5, -0.5])
