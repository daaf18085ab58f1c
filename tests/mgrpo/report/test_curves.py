from __future__ import annotations

from typing import Any

import pytest

from mgrpo.metric_sums import MetricSums
from mgrpo.metrics.log import MetricsLog
from mgrpo.metrics.transitions import rollout_metrics
from mgrpo.report.curves import (
    Curves,
    accuracy,
    all_charts,
    comparable,
    other_metrics,
    phrases_note,
)
from mgrpo.report.run_data import load_run
from tests.mgrpo.metrics.test_transitions import completion


def curves_of(run_dir, num_layers: int, domains: list[str]) -> Curves:
    """A run of two equal steps: in each domain a wrong attempt whose corrections are right."""
    completions = []
    for domain in domains:
        parent = None
        for layer in range(1, num_layers + 1):
            key = f"{domain}/{layer}"
            completions.append(completion(layer, key, parent, layer > 1, domain=domain))
            parent = key
    values = MetricSums(rollout_metrics(completions, num_layers)).means()
    with MetricsLog(run_dir) as log:
        for step in range(2):
            log.write(step, values)
    return Curves(load_run(run_dir))


def titles(curves: Curves) -> list[str]:
    return [chart.title for chart in all_charts(curves)]


def test_every_layer_and_the_whole_chain_have_their_transitions_over_time(tmp_path):
    found = titles(curves_of(tmp_path, 3, ["sums"]))
    for suffix in ("layer 2", "layer 3", "first attempt to layer 3"):
        for title in ("What corrections change", "Attempt and correction"):
            assert f"{title} · {suffix}" in found
    assert "What becomes of an attempt · layer 2" in found


def test_two_layers_have_one_set_of_transitions_and_one_layer_none(tmp_path):
    found = titles(curves_of(tmp_path / "two", 2, ["sums"]))
    assert found.count("What corrections change") == 1
    assert not any("first attempt to" in title for title in found)
    assert not any("orrection" in title for title in titles(curves_of(tmp_path / "one", 1, ["a"])))


def test_the_gain_is_a_line_beside_what_it_is_made_of(tmp_path):
    charts = all_charts(curves_of(tmp_path, 2, ["sums"]))
    (chart,) = (chart for chart in charts if chart.title == "What corrections change")
    lines = {series.label: series.values for series in chart.series}
    assert lines["Gain"] == lines["Wrong → right"] == [1.0, 1.0]
    assert lines["Right → wrong"] == [0.0, 0.0]


def test_a_few_domains_have_charts(tmp_path):
    curves = curves_of(tmp_path, 2, ["legs", "a/b <i>"])
    charts = {chart.title: chart for chart in all_charts(curves)}
    accuracy = charts["Accuracy by domain · layer 2"]
    assert [series.label for series in accuracy.series] == ["a/b <i>", "legs"]
    gain = charts["Gain of corrections by domain · layer 2"]
    assert [series.values for series in gain.series] == [[1.0, 1.0]] * 2
    assert "Gain of corrections by domain · layer 1" not in charts
    assert "layer1/domain/legs/accuracy" not in other_metrics(curves)


@pytest.mark.parametrize("number", [1, 7])
def test_one_domain_or_very_many_have_no_charts(tmp_path, number):
    curves = curves_of(tmp_path, 2, [f"domain{index}" for index in range(number)])
    assert not any("by domain" in title for title in titles(curves))
    assert ("layer1/domain/domain0/accuracy" in other_metrics(curves)) == (number > 1)


def recorded(run_dir, rows: list[dict], accuracies: dict[int, float] | None = None) -> Curves:
    """A run of the given steps, and held-out accuracies by step."""
    with MetricsLog(run_dir) as log:
        for step, row in enumerate(rows):
            log.write(step, row)
        for step, acc in (accuracies or {}).items():
            log.write_evaluation({"step": step, "label": "during", "acc": [acc]})
    return Curves(load_run(run_dir))


def test_a_long_run_is_shown_as_means_of_near_equal_runs_of_steps(tmp_path, monkeypatch):
    monkeypatch.setattr("mgrpo.report.curves.MAX_POINTS", 4)
    rows = [{"learner/entropy": float(step)} if step != 4 else {} for step in range(10)]
    curves = recorded(tmp_path, rows)
    assert curves.step_names == ["0 to 1", "2 to 4", "5 to 7", "8 to 9"]
    assert curves.column("learner/entropy") == [0.5, 2.5, 6.0, 8.5]
    assert curves.column("learner/kl") == [None] * 4


def test_heldout_accuracies_stand_at_their_steps_and_after_the_last_one(tmp_path, monkeypatch):
    monkeypatch.setattr("mgrpo.report.curves.MAX_POINTS", 2)
    rows = [{"layer1/accuracy": 0.5}] * 4
    (chart,) = accuracy(recorded(tmp_path, rows, {0: 0.1, 3: 0.2, 4: 0.3}))
    line, mark = chart.series
    assert (chart.steps, chart.step_names) == ([0, 2, 4], ["0 to 1", "2 to 3", "4"])
    assert (line.kind, line.values) == ("line", [0.5, 0.5, None])
    assert (mark.kind, mark.values) == ("mark", [0.1, 0.2, 0.3])
    assert mark.label == "Layer 1, held-out" and chart.note.startswith("Diamonds")


def test_heldout_accuracies_are_compared_over_the_phrases_that_all_evaluations_have():
    def row(*second_turns: float | None) -> dict[str, Any]:
        phrases = [{"index": i, "acc": [0.5, acc]} for i, acc in enumerate(second_turns)]
        return {"acc": [0.5, 0.9], "phrases": phrases}

    every = [row(0.2, 0.4, 0.9), row(0.3), row(None, 0.5)]
    assert comparable(every) == [[0.5, 0.2], [0.5, 0.3], [0.5, None]]
    assert comparable(every[::2]) == [[0.5, pytest.approx(0.3)], [0.5, 0.5]]
    assert "phrases that all evaluations have" in phrases_note(every)
    assert phrases_note(every[1:2]) == phrases_note([]) == ""
    drawn = [{"acc": [0.5, 0.6], "phrases": []}]
    assert comparable([*every, *drawn])[-1] == [0.5, 0.6]


def test_a_steps_seconds_are_its_phases_and_the_rest(tmp_path):
    overlapped = {"seconds/rollout": 3.0, "seconds/update": 2.0, "seconds/step": 4.0}
    rows = [{"seconds/rollout": 1.0, "seconds/step": 4.0}, overlapped]
    (chart,) = all_charts(recorded(tmp_path, rows))
    found = {series.label: series.values for series in chart.series}
    assert found == {"Rollout": [1.0, 3.0], "Update": [None, 2.0], "Rest": [3.0, None]}
    assert {series.kind for series in chart.series} == {"bar"}
