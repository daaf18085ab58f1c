"""What a run's own rollouts are sampled with: the keys of the phase that the step is in."""

from __future__ import annotations

from typing import Any

from cluster.fleet.in_process import InProcessEngines
from learner.scripted import ScriptedLearner
from mgrpo.config import RunConfig
from mgrpo.config.load import load_recipe
from mgrpo.metric_sums import MetricSums
from mgrpo.training.progress import TrainProgress
from mgrpo.training.stop_signals import StopSignals
from mgrpo.training.workers import RunWorkers, StepLimits
from tests.actors.test_rollout import PROBLEMS, scripted
from tests.mgrpo.training.light_run import light_rollout


def asked_at(config: RunConfig, step: int) -> tuple[list[dict[str, Any]], list[int]]:
    engine = scripted()
    engines = InProcessEngines({1: [engine], 2: [engine]})
    workers = RunWorkers(
        config.method_view,
        limits=StepLimits(max_failed_fraction=0.1, on_signal_s=1.0, least_tokens=1),
        pipeline=config.pipeline,
        rollout=light_rollout(config, engines),
        engines=engines,
        learner=ScriptedLearner(),
        progress=TrainProgress(1, "", 2),
        signals=StopSignals(),
    )
    workers.sample(step, PROBLEMS, MetricSums())
    return engine.asked, engine.seeds


def recipe(*overrides: str) -> RunConfig:
    return load_recipe("quickstart", overrides)


def test_the_recipe_s_temperature_lengths_and_group_sizes_reach_the_engines() -> None:
    config = recipe(
        "sampling.temperature=0.7",
        "layers.solve.max_completion_tokens=21",
        "layers.solve.group_size=2",
        "layers.correct.max_completion_tokens=34",
    )
    asked, _ = asked_at(config, step=0)
    assert {one["temperature"] for one in asked} == {0.7}
    shapes = {(one["num_samples"], one["max_tokens"]) for one in asked}
    assert shapes == {(2, 21), (config.layers[1].group_size, 34)}


def test_a_phase_may_change_the_temperature() -> None:
    phase = "[{name: late, from_step: 3, changes: {sampling: {temperature: 0.3}}}]"
    config = recipe("sampling.temperature=1.2", f"phases={phase}")
    assert {one["temperature"] for one in asked_at(config, step=2)[0]} == {1.2}
    assert {one["temperature"] for one in asked_at(config, step=3)[0]} == {0.3}


def test_the_recipe_s_seed_and_the_step_decide_the_requests_seeds() -> None:
    def seeds(seed: int, step: int) -> list[int]:
        return sorted(asked_at(recipe(f"seed={seed}"), step)[1])

    assert seeds(1, 0) == seeds(1, 0)
    assert not set(seeds(1, 0)) & set(seeds(1, 1))
    assert not set(seeds(1, 0)) & set(seeds(2, 0))
