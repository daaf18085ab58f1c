from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from cluster.monitoring import ray_metrics
from cluster.monitoring.ray_metrics import RayMetrics


class RecordedGauge:
    """Takes Ray's gauge's place; the real one is read by Prometheus in test_watching.py."""

    made: dict[str, RecordedGauge]

    def __init__(self, name: str, description: str, tag_keys: tuple[str, ...]) -> None:
        assert name not in self.made, f"{name} is made twice"
        self.description, self.tag_keys = description, tag_keys
        self.values: list[tuple[dict[str, str], float]] = []
        self.made[name] = self

    def set(self, value: float, tags: dict[str, str]) -> None:
        assert set(tags) == set(self.tag_keys)
        self.values.append((tags, value))


@pytest.fixture
def gauges(monkeypatch: pytest.MonkeyPatch) -> dict[str, RecordedGauge]:
    monkeypatch.setattr(RecordedGauge, "made", {}, raising=False)
    monkeypatch.setattr(ray_metrics, "Gauge", RecordedGauge)
    return RecordedGauge.made


def sink(**options: Any) -> RayMetrics:
    return RayMetrics("sums", **{"refresh_s": 1000.0, "clock": lambda: 50.0, **options})


def last(gauge: RecordedGauge) -> dict[str, float]:
    """Newest value by the tags other than the run."""
    return {
        ",".join(value for key, value in tags.items() if key != "run"): value
        for tags, value in gauge.values
    }


def test_a_step_sets_a_gauge_for_each_metric(gauges):
    with sink() as metrics:
        metrics.write(7, {"layer1/accuracy": 0.25, "layer2/accuracy": 0.5, "learner/loss": -1.0})
    assert last(gauges["mgrpo_layer_accuracy"]) == {"1": 0.25, "2": 0.5}
    assert last(gauges["mgrpo_learner_loss"]) == {"": -1.0}
    assert last(gauges["mgrpo_step"]) == {"": 7.0}
    assert {tags["run"] for gauge in gauges.values() for tags, _ in gauge.values} == {"sums"}
    text = gauges["mgrpo_layer_accuracy"].description
    assert text.startswith("Right answers among those that could be checked")
    assert text.endswith("Unit: fraction.")


def test_a_run_reports_from_its_start_on(gauges):
    clock = iter([50.0, 60.0])
    with sink(clock=lambda: next(clock)) as metrics:
        assert last(gauges["mgrpo_last_report_time_seconds"]) == {"": 50.0}
        metrics.write(0, {})
    assert last(gauges["mgrpo_last_report_time_seconds"]) == {"": 60.0}


def test_events_of_steps_add_up_beginning_at_0(gauges):
    with sink() as metrics:
        for step, deaths in enumerate((0, 2, 1)):
            metrics.write(step, {"engines/deaths": float(deaths)})
    seen = [value for _, value in gauges["mgrpo_engines_deaths_total"].values]
    assert seen == [0.0, 2.0, 3.0]
    assert last(gauges["mgrpo_engines_deaths"]) == {"": 1.0}


def test_a_metric_that_a_step_lacks_stays_and_one_that_is_no_number_ends(gauges):
    with sink() as metrics:
        metrics.write(0, {"layer1/accuracy": 0.25, "learner/loss": 1.0})
        metrics.write(1, {"learner/loss": float("nan")})
    assert [value for _, value in gauges["mgrpo_layer_accuracy"].values] == [0.25, 0.25]
    assert [value for _, value in gauges["mgrpo_learner_loss"].values] == [1.0]


def test_values_are_set_again_and_again_because_ray_forgets_them(gauges):
    with sink(refresh_s=0.01) as metrics:
        metrics.write(0, {"learner/loss": 1.0})
        end = time.monotonic() + 10
        while len(gauges["mgrpo_learner_loss"].values) < 4:
            assert time.monotonic() < end
            time.sleep(0.01)


def test_nothing_is_set_after_the_end(gauges):
    metrics = sink(refresh_s=0.01)
    metrics.write(0, {"learner/loss": 1.0})
    metrics.close()
    num_values = len(gauges["mgrpo_learner_loss"].values)
    metrics.write(1, {"learner/loss": 2.0})
    metrics.close()  # a second time does nothing
    assert len(gauges["mgrpo_learner_loss"].values) == num_values
    assert "ray-metrics" not in {thread.name for thread in threading.enumerate()}


def test_a_plug_in_s_own_metric_becomes_a_gauge_too(gauges):
    with sink() as metrics:
        metrics.write(0, {"brief/bonus": 0.5})
    assert gauges["mgrpo_brief_bonus"].values[-1] == ({"run": "sums", "layer": ""}, 0.5)
