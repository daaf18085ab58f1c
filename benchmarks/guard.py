"""Did a training step become more expensive? CPU seconds per step and part, against recorded ones.

    python -m benchmarks.guard                   # a minute; exit code 1 if a part costs 10 % more
    python -m benchmarks.guard --against main    # than at that revision, measured here, too
    python -m benchmarks.guard --write           # record this processor's figures in guard.json

`mgrpo train` runs a few steps of the quickstart with a learning rate so small that every run
samples the same tokens. CPU seconds of its processes are counted, not wall-clock ones: waiting for
the cores of a shared machine then does not count. They are multiplied by the rate of a float32
matrix product on one core, measured before and after, so that a slower or throttled core does not
count either. Other processors have other ratios between matrix products and everything else:
figures are compared with those of the same processor, or of the same machine a minute ago.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import psutil
import torch

from benchmarks.commands import CommandFailed, end, stop_on_sigterm
from benchmarks.machine import REPOSITORY, Result, machine, processor
from benchmarks.revisions import check_out
from mgrpo.metrics.resources import role_of

RECORD = Path(__file__).with_suffix(".json")
NUM_STEPS = 6
WARM_UP_STEPS = 2
OVERRIDES = (
    *(f"steps={NUM_STEPS}", "prompts_per_step=8", "seed=0", "data.heldout=null"),
    *("learner.learning_rate=1e-12", "learner.warmup_steps=0", "learner.num_threads=2"),
    *("engines.shared=true", "engines.num_shared_engines=2", "engines.num_threads=1"),
    *("cluster.address=local", "cluster.device=cpu", "cluster.colocate=false"),
    *("checkpoints.every_steps=0", "output.report=false", "output.trackers=[]"),
)
ROOM = 1.10
"""A part may cost this much of its recorded figure."""
SMALLEST_SHARE = 0.05
"""Of a step: smaller parts vary more than `ROOM` by themselves, and count in the sum alone."""
DEADLINE_S = 600.0
LOOK_S = 0.02
MATRIX = 1024
"""Rows and columns of the matrix product that a core's rate is measured by."""


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.guard", description="Compare a step's CPU seconds with recorded."
    )
    parser.add_argument("--write", action="store_true", help="record this processor's figures")
    parser.add_argument("--against", metavar="REVISION", help="measure that one, too, and compare")
    args = parser.parse_args(argv)
    stop_on_sigterm()
    recorded = json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.exists() else {}
    if args.write:
        entry = measure(REPOSITORY, "here")
        entry |= {name: machine()[name] for name in ("commit", "python", "packages")}
        text = json.dumps({**recorded, processor(): entry}, indent=1, sort_keys=True)
        RECORD.write_text(text + "\n", encoding="utf-8")
        return 0
    if args.against:
        with tempfile.TemporaryDirectory(prefix="mgrpo-guard-") as folder:
            check_out(args.against, Path(folder))
            before = measure(Path(folder), args.against)
    elif processor() in recorded:
        before = recorded[processor()]
    else:
        known = ", ".join(sorted(recorded)) or "none"
        print(
            f"nothing to compare with: {RECORD.name} has no figures of {processor()} (but of: "
            f"{known}). Give --against REVISION; or, on an idle machine of this kind, --write."
        )
        return 2
    now = measure(REPOSITORY, "here")
    ratios = compared(now["normalised"], before["normalised"])
    for part, (ratio, is_compared) in ratios.items():
        note = "" if is_compared else " (not compared: small)"
        print(f"  {part:<8} {ratio:.3f} of {args.against or 'the recorded figure'}{note}")
    worse = [part for part, (ratio, is_compared) in ratios.items() if is_compared and ratio > ROOM]
    if worse:
        print(
            f"more expensive by more than {ROOM - 1:.0%}: {', '.join(worse)}. Repeat on an idle "
            "machine; if it stays, fix it, or say why in the commit that makes it so."
        )
    return 1 if worse else 0


def measure(source: Path, name: str) -> Result:
    """A step's CPU seconds by part at one revision, as they are and times the core's rate."""
    before, load = matmul_rate(), os.getloadavg()[0]
    seconds = step_seconds(source)
    rate = statistics.mean([before, matmul_rate()])
    print(f"{name}, {processor()}: {rate:.1f} GFLOP/s of one core in float32")
    for part, value in seconds.items():
        print(f"  {part:<8} {value:7.2f} CPU s a step")
    return {
        "gflop_per_core_s": round(rate, 1),
        "cpu_s": seconds,
        "normalised": {part: round(value * rate, 2) for part, value in seconds.items()},
        "load_before": round(load, 1),
    }


def compared(
    found: Mapping[str, float], recorded: Mapping[str, float]
) -> dict[str, tuple[float, bool]]:
    """Part -> how much of its recorded figure it costs, and whether that may fail the guard."""
    return {
        part: (found.get(part, 0.0) / value, value >= SMALLEST_SHARE * recorded["sum"])
        for part, value in recorded.items()
        if value > 0
    }


def matmul_rate() -> float:
    """GFLOP per CPU second of a float32 matrix product on one core: the best of several."""
    torch.set_num_threads(1)
    left, right = torch.rand(MATRIX, MATRIX), torch.rand(MATRIX, MATRIX)
    seconds = []
    for _ in range(8):
        began = time.process_time()
        left @ right
        seconds.append(time.process_time() - began)
    return 2 * MATRIX**3 / min(seconds) / 1e9


def step_seconds(source: Path) -> dict[str, float]:
    """Part -> median CPU seconds of a step; and their "sum".

    Args:
        source: the root of the revision that trains.

    Raises:
        CommandFailed: the run failed or took too long.
    """
    with tempfile.TemporaryDirectory(prefix="mgrpo-guard-") as folder:
        totals = list(totals_by_step(Path(folder), source))
    steps = [
        {part: after[part] - before.get(part, 0.0) for part in after}
        for before, after in pairwise(totals)
    ][WARM_UP_STEPS - 1 :]
    parts = sorted({part for step in steps for part in step})
    medians = {part: statistics.median(step.get(part, 0.0) for step in steps) for part in parts}
    medians["sum"] = statistics.median(sum(step.values()) for step in steps)
    return {part: round(value, 3) for part, value in medians.items()}


def totals_by_step(folder: Path, source: Path) -> Iterator[dict[str, float]]:
    """The run's CPU seconds so far, by part, at the end of each step."""
    log, metrics = folder / "log", folder / "guard" / "metrics.jsonl"
    command = [
        *(sys.executable, "-m", "mgrpo", "train", "quickstart", "--run", "guard"),
        *(f"output.runs_dir={folder}", *OVERRIDES),
    ]
    with log.open("w", encoding="utf-8") as said:
        process = subprocess.Popen(
            command,
            cwd=source,
            env={**os.environ, "PYTHONPATH": str(source)},
            stdout=said,
            stderr=subprocess.STDOUT,
        )
    driver, until = psutil.Process(process.pid), time.monotonic() + DEADLINE_S
    num_steps = 0
    try:
        while num_steps < NUM_STEPS:
            if process.poll() is not None or time.monotonic() > until:
                raise CommandFailed(
                    f"{' '.join(command)} made {num_steps} of {NUM_STEPS} steps. The end of "
                    f"what it said:\n{log.read_text(encoding='utf-8')[-3000:]}"
                )
            if metrics.exists() and metrics.read_bytes().count(b"\n") > num_steps:
                num_steps += 1
                yield cpu_seconds(driver)
            time.sleep(LOOK_S)
    finally:
        end(process)


def cpu_seconds(driver: psutil.Process) -> dict[str, float]:
    """CPU seconds so far of a run's living processes, by part."""
    seconds: defaultdict[str, float] = defaultdict(float)
    for process in [driver, *driver.children(recursive=True)]:
        try:
            times, command = process.cpu_times(), " ".join(process.cmdline())
        except psutil.NoSuchProcess:
            continue
        is_driver = process.pid == driver.pid
        seconds["driver" if is_driver else role_of(command)] += times.user + times.system
    return seconds


if __name__ == "__main__":
    sys.exit(main())
