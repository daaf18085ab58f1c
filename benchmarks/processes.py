"""The two processes that the step-time benchmark compares, each started, timed and read."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.measurement import WARM_UP_STEPS, Measurement
from mgrpo.metrics import read_metrics

ROOT = Path(__file__).resolve().parent.parent
STOP_DEADLINE_S = 60  # for a process that was asked to end; ours then takes its actors down
PHASES = {"sampling and rewards": "rollout", "update": "update", "verified broadcast": "weights"}


class ProcessFailed(Exception):
    """A process ended with an error, took too long, or did not do the work asked for."""


def measure_ours(workload: Path, *, round_number: int, deadline_s: float) -> Measurement:
    """Train with `mgrpo train`, as a user would, and read the run's metrics.jsonl."""
    name = f"ours-{round_number}"
    recipe = str(workload / "recipe.yaml")
    command = [sys.executable, "-m", "mgrpo", "train", recipe, "--run", name, "--overwrite"]
    load = os.getloadavg()[0]
    run_logged(command, log=workload / f"{name}.log", environment={}, deadline_s=deadline_s)
    rows = read_metrics(workload / "runs" / name)
    steady = rows[WARM_UP_STEPS:]
    # wall_s is read once a step, so differences also hold what comes after "seconds/step" ends:
    # writing metrics, rollouts and TensorBoard.
    walls = [row["wall_s"] for row in rows]
    return Measurement(
        system="ours",
        round=round_number,
        load_before=load,
        step_seconds=[walls[step] - walls[step - 1] for step in range(WARM_UP_STEPS, len(walls))],
        tokens=[round(row["tokens/generated"]) for row in steady],
        phase_seconds={
            label: [row[f"seconds/{key}"] for row in steady] for label, key in PHASES.items()
        },
    )


def measure_trl(
    workload: Path, *, steps: int, round_number: int, deadline_s: float
) -> tuple[Measurement, dict[str, Any]]:
    """Train with TRL in its own environment. Also returns its versions and settings."""
    output = workload / f"trl-{round_number}.jsonl"
    script = str(ROOT / "benchmarks" / "trl_baseline.py")
    python = str(ROOT / ".venv-trl" / "bin" / "python")
    command = [python, script, str(workload), "--steps", str(steps), "--output", str(output)]
    environment = {"OMP_NUM_THREADS": str(os.cpu_count()), "HF_HUB_OFFLINE": "1"}
    load = os.getloadavg()[0]
    log = output.with_suffix(".log")
    run_logged(command, log=log, environment=environment, deadline_s=deadline_s)
    facts, *rows = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    steady = [row for row in rows if row["step"] >= WARM_UP_STEPS]
    measurement = Measurement(
        system="TRL",
        round=round_number,
        load_before=load,
        step_seconds=[row["seconds"] for row in steady],
        tokens=[row["completion_tokens"] for row in steady],
        phase_seconds={"sampling": [row["sampling_seconds"] for row in steady]},
    )
    return measurement, facts


def check_work(run: Measurement, *, steps: int, tokens_per_step: int) -> None:
    """Refuse a measurement of other work than was asked for."""
    wanted = [tokens_per_step] * (steps - WARM_UP_STEPS)
    if run.tokens != wanted or len(run.step_seconds) != len(wanted):
        raise ProcessFailed(
            f"Round {run.round} of {run.system} sampled {run.tokens} tokens in its steady steps, "
            f"expected {len(wanted)} steps of {tokens_per_step}: the times cannot be compared."
        )


def run_logged(
    command: list[str], *, log: Path, environment: dict[str, str], deadline_s: float
) -> None:
    """Run `command` from the repository's root, its output in `log`.

    Raises:
        ProcessFailed: it failed or was not done within `deadline_s`.
    """
    inherited = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    with log.open("w", encoding="utf-8") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, env=inherited | environment, stdout=output, stderr=output
        )
        try:
            code = process.wait(deadline_s)
        except subprocess.TimeoutExpired:
            raise ProcessFailed(
                f"{' '.join(command)} was not done after {deadline_s:g} s. Its output: {log}. "
                "If the machine is merely slow, raise --deadline-s."
            ) from None
        finally:
            end(process)
    if code:
        tail = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-20:])
        raise ProcessFailed(f"{' '.join(command)} failed with exit code {code}:\n{tail}\n({log})")


def end(process: subprocess.Popen[bytes]) -> None:
    """Ask a process to end, then make it; does nothing to one that has ended."""
    if process.poll() is not None:
        return
    process.send_signal(signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STOP_DEADLINE_S)
    process.kill()
    process.wait()
