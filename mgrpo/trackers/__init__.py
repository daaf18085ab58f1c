"""Trackers of a run's metrics: TensorBoard, W&B, MLflow, trackio.

    with open_trackers(config.output.trackers, facts) as trackers:
        trackers.write(0, {"layer1/accuracy": 0.42})

A tracker is anything with `write(step, values)` and `close()`; one with `write_completions(step,
table)` also gets some completions. Each works in a thread of its own, so one that fails, or hangs
on a network, neither ends nor delays the training: missed steps are counted, and reported once with
the reason.
"""

from mgrpo.trackers.group import Trackers, open_trackers
from mgrpo.trackers.interface import RunFacts, Tracker

__all__ = ["RunFacts", "Tracker", "Trackers", "open_trackers"]
