"""Stands in for `python -m mgrpo`: writes what a run leaves behind, without training.

    python fake_mgrpo.py train RECIPE key=value... --run NAME --overwrite
    python fake_mgrpo.py eval MODEL_OR_RUN --recipe R --json

Every call is noted in $FAKE_CALLS. Training accuracy is highest at learning rate 2e-4; held-out
accuracies are made from the seed. A run whose name holds $FAKE_FAILS ends with an error, one
whose name holds $FAKE_HANGS waits for SIGTERM, one whose name holds $FAKE_OTHER_SETTINGS trains
with another weight decay than it was told.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mgrpo.config import RunConfig

TRANSITIONS = {"layer": 2, "wrong_to_right": 0.2, "right_to_wrong": 0.1, "copy_fraction": 0.6}


def main() -> int:
    command, target, *rest = sys.argv[1:]
    if command == "eval":
        note(f"eval {Path(target).name}")
        seed = int(target[-1]) if target[-1].isdigit() else 0
        first = 0.5 + 0.1 * seed
        print("some chatter")
        print(json.dumps({"acc": [first, first + 0.1], "transitions": [TRANSITIONS]}))
        return 0
    from mgrpo.config.load import load_recipe  # half a second, which evaluations need not pay

    name = rest[rest.index("--run") + 1]
    note(f"train {name}")
    if is_in("FAKE_FAILS", name):
        print("out of luck", file=sys.stderr)
        return 1
    overrides = [text for text in rest if "=" in text]
    if is_in("FAKE_OTHER_SETTINGS", name):
        overrides.append("learner.weight_decay=0.5")
    config = load_recipe(target, [*overrides, f"name='{name}'"])
    run_dir = Path(config.output.runs_dir) / name
    if run_dir.exists():
        shutil.rmtree(run_dir)
    write_run(config, run_dir)
    if is_in("FAKE_HANGS", name):
        hang(run_dir)
    return 0


def write_run(config: RunConfig, run_dir: Path) -> None:
    from mgrpo.config.load import save_recipe
    from mgrpo.metrics.log import MetricsLog

    rate = config.learner.learning_rate
    with MetricsLog(run_dir) as log:
        save_recipe(config, run_dir / "config.yaml")
        (run_dir / "environment.json").write_text(json.dumps(environment()))
        turns = len(config.layers)
        for step in range(config.steps):
            log.write(step, step_metrics(0.9 - abs(rate - 2e-4) * 100))
        for step, share in ((0, 0.3), (config.steps, 0.8)):
            accuracies = [share, share + 0.05][:turns]
            log.write_evaluation({"step": step, "label": f"at {step}", "acc": accuracies})


def step_metrics(accuracy: float) -> dict[str, float]:
    return {
        "layer1/accuracy": accuracy,
        "layer1/completions": 64,
        "layer1/prompt_tokens_mean": 20.0,
        "tokens/generated": 2000,
        "learner/tokens": 1500,
        "learner/skipped_updates": 0.0,
        "seconds/step": 3.0,
    }


def environment() -> dict[str, object]:
    return {
        "started": "2026-01-02T03:04:05+0000",
        "cpu_cores": 2,
        "memory_gib": 8.0,
        "platform": "Linux",
        "python": "3.11.7",
        "packages": {"torch": "2.13.0", "vllm": None},
        "git_revision": "0123456789abcdef",
    }


def hang(run_dir: Path) -> None:
    """Wait until SIGTERM, and leave a file that says that it came."""

    def stop(number: int, _frame: object) -> None:
        (run_dir / "stopped").touch()
        sys.exit(128 + number)

    signal.signal(signal.SIGTERM, stop)
    (run_dir / "hanging").touch()
    time.sleep(60)


def is_in(variable: str, name: str) -> bool:
    return os.environ.get(variable, "-none-") in name


def note(call: str) -> None:
    with Path(os.environ["FAKE_CALLS"]).open("a") as calls:
        calls.write(call + "\n")


if __name__ == "__main__":
    sys.exit(main())
