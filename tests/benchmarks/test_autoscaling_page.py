"""The timeline's bars follow from the record."""

from __future__ import annotations

from typing import Any

from benchmarks.autoscaling import node_spans
from benchmarks.autoscaling_page import engine_spans, figure


def change(at: float, engine: str, now: str) -> dict[str, Any]:
    return {"time": at, "engine": engine, "to": now}


RECORD: dict[str, Any] = {
    "began": 100.0,
    "ended": 160.0,
    "metrics_began": 2.0,
    "calm_from": 1,
    "lost": {"time": 130.0},
    "nodes": [{"node": "127.0.0.3", "from": 100.0, "to": 170.0}],
    "engines": [
        change(105.0, "a", "starting"),
        change(110.0, "a", "stale"),
        change(112.0, "a", "healthy"),
        change(120.0, "b", "starting"),
        change(130.0, "a", "dead"),
        change(130.5, "a", "restarting"),
        change(140.0, "b", "gone"),
    ],
    "metrics": [
        {"step": 0, "wall_s": 20.0, "seconds/step": 5.0},
        {"step": 1, "wall_s": 25.0, "seconds/step": 5.0},
    ],
}


def test_a_state_lasts_until_the_next_and_the_last_until_the_run_ends() -> None:
    assert engine_spans(RECORD) == {
        "a": [
            (5.0, 10.0, "starting"),
            (10.0, 12.0, "stale"),
            (12.0, 30.0, "healthy"),
            (30.0, 30.5, "dead"),
            (30.5, 60.0, "restarting"),
        ],
        "b": [(20.0, 40.0, "starting")],
    }


def test_the_figure_shows_every_node_engine_and_mark() -> None:
    drawn = figure(RECORD)
    for words in ("node 127.0.0.3", ">a<", ">b<", "node lost", "layer 1 samples less", "run ends"):
        assert words in drawn
    assert "a: healthy, 12 to 30 s" in drawn


def test_nodes_are_seen_from_their_first_to_their_last_sample() -> None:
    samples = [(0.0, ["x"]), (1.0, ["x", "y"]), (2.0, ["y"])]
    assert node_spans(samples) == [
        {"node": "x", "from": 0.0, "to": 1.0},
        {"node": "y", "from": 1.0, "to": 2.0},
    ]
