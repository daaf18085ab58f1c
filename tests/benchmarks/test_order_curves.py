"""What is said of the curves of three orders."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import order_curves
from benchmarks.machine import machine
from benchmarks.order_curves import Curve, curve_of, figure, page_lines, smoothed, summary

FOUND = {
    "synchronous": [Curve([0.4, 0.6], 0.60, 0.7), Curve([0.5, 0.7], 0.62, 0.7)],
    "streamed": [Curve([0.4, 0.7], 0.61, 0.7), Curve([0.5, 0.7], 0.66, 0.7)],
}


def test_orders_are_compared_seed_by_seed() -> None:
    result = summary(FOUND)
    assert result["values"]["streamed"]["area"] == pytest.approx([0.55, 0.6])
    found = result["differences"]["streamed"]
    assert found["area"]["mean"] == pytest.approx(0.025)
    assert found["first"]["mean"] == pytest.approx(0.025) and found["first"]["p"] > 0.1
    assert found["last"] == {"mean": 0, "half_width": None, "p": None}  # no spread
    lines = "\n".join(page_lines(result | {"command": "x", "date": "y", **machine()}))
    assert "| synchronous | 55.0 (50.0, 60.0) | 61.0 (60.0, 62.0) | 70.0 (70.0, 70.0) |" in lines
    assert "| streamed minus synchronous, points | +2.5 ± " in lines


def test_a_curve_is_smoothed_over_its_neighbours_and_drawn_for_each_order() -> None:
    assert smoothed([0.0, 1.0, 0.5]) == pytest.approx([0.5, 0.5, 0.5])
    svg = figure(FOUND)
    assert all(f">{order}<" in svg for order in FOUND)


def test_a_run_that_is_there_is_read_and_not_made_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def make(command: list[str], **_: object) -> str:
        (run,) = (tmp_path / one for one in command if one == "one_step_off-1")
        run.mkdir()
        rows = [{"step": step, "layer1/accuracy": 0.25 * step} for step in (1, 2)]
        (run / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)))
        (run / "evaluation.jsonl").write_text("{}\n{}")
        made.append(command)
        return ""

    made: list[list[str]] = []
    accuracies = [{"acc": [0.5, 0.6]}, {"acc": [0.7, 0.8]}]
    monkeypatch.setattr(order_curves, "run_command", make)
    monkeypatch.setattr(order_curves, "read_evaluations", lambda run: accuracies)
    for _ in range(2):
        found = curve_of(tmp_path, "one step off", 1)
    assert found == Curve([0.25, 0.5], 0.7, 0.8) and len(made) == 1
    assert {"seed=1", "pipeline.max_staleness_steps=1"} <= {*made[0]}
