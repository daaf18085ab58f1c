"""Each hook on its own, and the order in which the loop calls them."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from mgrpo.config import EvaluationConfig
from mgrpo.errors import AlarmError, ClusterError
from mgrpo.metric_sums import MetricSums
from mgrpo.metrics.alarms import Alarm
from mgrpo.metrics.log import MetricsLog, read_alarms, read_metrics, read_rollouts, rollout_paths
from mgrpo.training import hooks
from mgrpo.training.hooks import (
    Alarms,
    EngineMetrics,
    Hook,
    OwnRay,
    RolloutMetrics,
    StepDone,
    SystemMetrics,
    WriteStep,
    is_evaluation_due,
    num_evaluations_left,
    whole_trees,
)
from mgrpo.training.loop import Run, train
from mgrpo.training.progress import TrainProgress
from mgrpo.training.sources.source import Work
from mgrpo.types import CompletionId
from tests.learner.builders import completion


def progress(console: io.StringIO | None = None) -> TrainProgress:
    return TrainProgress(9, "", 1, console=Console(file=console or io.StringIO(), width=300))


def two_problems() -> list[Any]:
    """A step's completions: two attempts at each of two problems."""
    return [
        replace(completion(f"q{slot}/{n}", float(n)), id=CompletionId.named(f"s0p{slot}#{n}"))
        for slot in (0, 1)
        for n in (0, 1)
    ]


def test_a_steps_values_are_its_means_and_the_policys_version() -> None:
    sums = MetricSums()
    sums.add("a", 6.0, 4.0)
    done = StepDone(4, (), 7, sums)
    assert done.num_done == 5
    assert done.values == {"policy_version": 7.0, "a": 1.5}


def test_engines_and_rollouts_add_to_the_steps_metrics() -> None:
    class Engines:
        def close_step(self, sums: MetricSums) -> None:
            sums.add("engines/healthy", 3.0)

    done = StepDone(0, two_problems())
    engines: Any = Engines()
    EngineMetrics(engines).measure(done)
    RolloutMetrics(1).measure(done)
    assert done.values["engines/healthy"] == 3
    assert done.values["layer1/accuracy"] == 0.5


@pytest.mark.parametrize("on_gpus", [[], [3.0, 5.0]])
def test_tokens_per_second_and_memory_of_the_machine_and_of_its_fullest_gpu(
    on_gpus: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hooks, "gpu_memory_gib", lambda: on_gpus)
    sums = MetricSums({"tokens/generated": (900.0, 1.0), "seconds/step": (6.0, 1.0)})
    done = StepDone(0, (), 1, sums)
    SystemMetrics().measure(done)
    assert done.values["tokens/per_s"] == 150.0
    assert done.values["memory/run_gib"] > 0
    assert done.values.get("memory/fullest_gpu_gib") == (5.0 if on_gpus else None)


def test_a_step_is_written_with_all_completions_of_some_problems(tmp_path: Path) -> None:
    console, sums = io.StringIO(), MetricSums()
    sums.add("layer1/accuracy", 1.0, 2.0)
    with MetricsLog(tmp_path) as log, progress(console) as shown:
        WriteStep(log, shown, problems_kept=1).after_step(StepDone(3, two_problems(), 4, sums))
    (row,) = read_metrics(tmp_path)
    assert (row["step"], row["layer1/accuracy"], row["policy_version"]) == (3, 0.5, 4.0)
    kept = read_rollouts(rollout_paths(tmp_path)[3])
    assert [one.completion_id for one in kept] == ["s0p0#0", "s0p0#1"]
    assert "step 3  Acc@t1 0.500" in console.getvalue()


@pytest.mark.parametrize(("count", "kept"), [(0, 0), (1, 2), (2, 4), (9, 4)])
def test_trees_are_kept_whole(count: int, kept: int) -> None:
    assert len(whole_trees(two_problems(), count)) == kept


@pytest.mark.parametrize("action", ["warn", "stop"])
def test_an_alarm_is_written_down_before_it_stops_the_run(tmp_path: Path, action: Any) -> None:
    alarm = Alarm(
        step=2,
        name="no_signal",
        layer=1,
        action=action,
        first_step=2,
        num_steps=1,
        seen="nothing",
        meaning="It does not learn.",
        advice="Look.",
    )

    class Watch:
        def check(self, step: int, values: dict[str, float]) -> list[Alarm]:
            assert step == 2 and values["a"] == 1.0
            return [alarm]

    sums, console, watch = MetricSums({"a": (1.0, 1.0)}), io.StringIO(), Watch()
    with MetricsLog(tmp_path) as log:
        hook = Alarms(watch, log, progress(console))  # type: ignore[arg-type]
        if action == "stop":
            with pytest.raises(AlarmError, match=r"alarms\.no_signal\.action is stop"):
                hook.after_step(StepDone(2, (), 0, sums))
        else:
            hook.after_step(StepDone(2, (), 0, sums))
    assert [one["name"] for one in read_alarms(tmp_path)] == ["no_signal"]
    assert "warning: no_signal: Step 2: nothing." in console.getvalue()


@pytest.mark.parametrize(
    ("every", "steps", "due"), [(2, 6, [2, 4]), (2, 5, [2, 4]), (3, 3, []), (0, 6, [])]
)
def test_evaluations_are_due_after_every_so_many_steps_but_not_after_the_last(
    every: int, steps: int, due: list[int]
) -> None:
    config = EvaluationConfig(every_steps=every)
    assert [n for n in range(1, steps + 1) if is_evaluation_due(n, config, steps)] == due
    left = [num_evaluations_left(n, config, steps) for n in range(steps)]
    assert left == [1 + sum(one > n for one in due) for n in range(steps)]


class Notes(Hook):
    """Notes when it is called."""

    def __init__(self, name: str, calls: list[str]) -> None:
        self.name, self.calls = name, calls

    def before_run(self, first_step: int) -> None:
        self.calls.append(f"{self.name} before {first_step}")

    def measure(self, done: StepDone) -> None:
        done.sums.add(self.name, 1.0)
        self.calls.append(f"{self.name} measures {done.step}")

    def after_step(self, done: StepDone) -> None:
        assert {"a", "b", "seconds/step"} <= done.values.keys()  # all have measured
        self.calls.append(f"{self.name} after {done.step}")

    def after_run(self, num_steps: int) -> None:
        self.calls.append(f"{self.name} at the end {num_steps}")


class Idle:
    """A source without work, or whose work is empty."""

    def __init__(self, work: Work | None) -> None:
        self.work = work
        self.observed: list[int] = []

    def next(self, step: int, *_: Any) -> Work | None:
        return self.work

    def observe(self, step: int, *_: Any) -> None:
        self.observed.append(step)


def run_of(source: Idle, hooks: list[Hook], orders: list[int]) -> Run:
    anything: Any = type("Workers", (), {"policy_version": 0})()
    stack: Any = source
    return Run(
        first_step=3,
        num_steps=5,
        source=stack,
        workers=anything,
        order=lambda workers, step, work, sums: orders.append(step) or [],
        hooks=hooks,
    )


def test_all_hooks_measure_before_any_works_with_the_metrics() -> None:
    calls: list[str] = []
    train(run_of(Idle(Work()), [Notes("a", calls), Notes("b", calls)], []))
    assert calls == [
        *["a before 3", "b before 3"],
        *["a measures 3", "b measures 3", "a after 3", "b after 3"],
        *["a measures 4", "b measures 4", "a after 4", "b after 4"],
        *["a at the end 5", "b at the end 5"],
    ]


@pytest.mark.parametrize(("work", "steps"), [(Work(), [3, 4]), (None, [])])
def test_a_step_without_work_is_still_a_step_but_changes_nothing(
    work: Work | None, steps: list[int]
) -> None:
    """Empty work is not the same: the policy's version goes on then."""
    source, orders, calls = Idle(work), list[int](), list[str]()
    train(run_of(source, [Hook(), Notes("a", calls), Notes("b", calls)], orders))
    assert source.observed == orders == steps
    assert calls.count("a after 4") == 1


def test_a_run_on_a_ray_that_has_lost_a_process_ends_unless_it_is_nearly_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now, lost = 100.0, ""
    monkeypatch.setattr("mgrpo.training.hooks.time.monotonic", lambda: now)
    hook = OwnRay(num_steps=10, what_is_lost=lambda: lost)
    now += 5
    hook.after_step(StepDone(0))
    now, lost = now + 5, "Ray's GCS has ended"
    with pytest.raises(ClusterError, match="GCS has ended"):
        hook.after_step(StepDone(1))  # 8 steps of 5 s are left
    now += 5
    hook.after_step(StepDone(5))  # 4 steps: 20 s
