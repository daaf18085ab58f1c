"""A run of five steps that was interrupted after its checkpoint at step 3, for every tracker."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from mgrpo.trackers import RunFacts, open_trackers

RECIPE = {"steps": 5, "layers": [{"name": "solve"}, {"name": "correct"}], "tags": ["a", "b"]}


def record(config: Any, run_dir: Path, pause_s: float = 0.0) -> None:
    """Steps 0 to 4 are recorded with 0.25, then 3 and 4 again, by a resumed run, with 0.75."""
    for first_step, value in ((0, 0.25), (3, 0.75)):
        facts = RunFacts("sums", run_dir, RECIPE, first_step)
        with open_trackers([config], facts) as trackers:
            trackers.warn = raise_it
            for step in range(first_step, 5):
                trackers.write(step, {"layer1/accuracy": value, "learner/kl": float("nan")})
        time.sleep(pause_s)


def raise_it(message: str) -> None:
    raise AssertionError(message)
