"""The light twins can stand in for engines and learner: the same calls, with the same arguments."""

from __future__ import annotations

import inspect

import pytest

from actors.engine import VllmEngine
from actors.scripted import ScriptedEngine
from cluster.fleet.fleet import Fleet
from cluster.fleet.in_process import InProcessEngines
from learner.scripted import ScriptedLearner
from mgrpo.training.learner_ranks import Learner, LearnerRanks
from mgrpo.training.workers import Engines
from tests.learner.builders import completion


def methods_of(protocol: type) -> list[str]:
    return [name for name, value in vars(protocol).items() if inspect.isfunction(value)]


def shape(kind: type, method: str) -> list[tuple[str, str, object]]:
    """Names, kinds and types of a method's parameters."""
    found = inspect.signature(getattr(kind, method)).parameters.values()
    return [
        (one.name, one.kind.description, one.annotation)
        for one in found
        if one.name != "_ray_trace_ctx"  # which Ray adds where it made an actor of the class
    ]


@pytest.mark.parametrize(
    ("protocol", "real", "twin"),
    [(Learner, LearnerRanks, ScriptedLearner), (Engines, Fleet, InProcessEngines)],
)
def test_the_loop_calls_both_alike(protocol: type, real: type, twin: type) -> None:
    names = [name for name in methods_of(protocol) if not name.startswith("_")]
    assert len(names) >= 4
    for name in names:
        assert shape(real, name) == shape(twin, name) == shape(protocol, name), name


def test_an_engine_is_asked_alike() -> None:
    names = [name for name, _, _ in shape(VllmEngine, "generate")]
    assert [name for name, _, _ in shape(ScriptedEngine, "generate")] == names


def test_engines_sample_at_the_version_of_the_last_broadcast() -> None:
    engine = ScriptedEngine(lambda prompt, index: "a", encode=lambda text: [97], end_id=0)
    engines = InProcessEngines({1: [engine], 2: [engine]})
    assert engines.members == [engine]
    report = engines.broadcast(3)
    assert report.policy_version == 3 and engines.versions == [3]
    assert engine.generation("a", 9).oldest_version == 3


def test_a_scripted_learner_compares_within_groups() -> None:
    learner = ScriptedLearner()
    rows = [completion("q/1", 1.0), completion("q/2", 0.0), completion("r/1", 1.0)]
    result = learner.update(rows, [], 0, [], meanwhile=lambda: None)
    assert result.policy_version == learner.policy_version == 1
    assert [one.advantage for one in result.selections] == [0.5, -0.5, 0.0]
    assert [one.selected for one in result.selections] == [True, True, False]
