"""Does a run that was interrupted end with the policy of one that was not? Hashes say it.

    make resume-proof ARGS=--write  # python -m benchmarks.resume; goes on where it stopped

Trains the shipped policy for a few steps on one engine and one learner rank with one thread each:
twice undisturbed, and then stopped in several ways, each at a moment of its own, and started again
by the same command. Compared are the SHA-256 of the policy's weights, that of all completions that
trained (ids, prompts, sampled tokens, rewards), and the problems of each step. A learner that goes
on with other ranks adds its gradients in another order: its weights are compared by their largest
difference. The last line of the output is one JSON object; the exit code is 1 if a hash differs
that must not.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil
from safetensors.torch import load_file

from benchmarks.chaos.processes import TITLES, title_of
from benchmarks.chaos.supervise import steps_in
from benchmarks.chaos.work import write_json
from benchmarks.commands import end, stop_on_sigterm
from benchmarks.machine import REPOSITORY, Result, machine, origin_lines
from benchmarks.measured_page import publish
from mgrpo.metrics.log import read_rollouts, rollout_paths

PAGE = REPOSITORY / "docs" / "results" / "reliability.md"
STEPS = 8
DEADLINE_S = 400.0
POLL_S = 0.05
OVERRIDES = (
    *(f"steps={STEPS}", "prompts_per_step=4", f"output.rollouts_per_step={4}"),
    *("layers.0.group_size=4", "layers.1.group_size=2", "output.report=false"),
    *("layers.0.max_completion_tokens=24", "layers.1.max_completion_tokens=24"),
    *("data.heldout=null", "checkpoints.every_steps=2", "learner.learning_rate=1e-4"),
    *("engines.shared=true", "engines.num_shared_engines=1", "engines.num_threads=1"),
    # An engine's log-probabilities depend, in the last digit, on what it happens to batch.
    *("learner.num_threads=1", "objective.importance=none", "cluster.device=cpu"),
)
AHEAD = ("pipeline.max_staleness_steps=1",)
Cut = Literal["driver killed", "driver told to stop", "learner rank killed", "steps were fewer"]
Compared = Literal["hashes", "weights nearly", "problems"]


@dataclass(frozen=True, slots=True)
class Way:
    """A run, and what happens to it."""

    name: str
    cut: Cut | None = None
    before: Sequence[str] = ()  # what its recipe says besides, until it is cut
    after: Sequence[str] = ()  # ... and then
    of: str = "undisturbed"  # the run that it is compared with
    compared: Compared = "hashes"


WAYS = (
    Way("undisturbed"),
    Way("undisturbed once more"),
    Way("driver killed (SIGKILL), resumed", "driver killed"),
    Way("told to stop (SIGTERM), resumed", "driver told to stop"),
    Way("learner's rank killed, restarted", "learner rank killed"),
    Way(
        "on 2 ranks, ZeRO-3, after step 4",
        "steps were fewer",
        before=("steps=4", "learner.schedule=constant"),
        after=("learner.num_ranks=2", "learner.zero_stage=3", "learner.schedule=constant"),
        of="undisturbed, constant rate",
        compared="weights nearly",
    ),
    Way(
        "undisturbed, constant rate",
        after=("learner.schedule=constant",),
        of="undisturbed, constant rate",
    ),
    Way("one step ahead, undisturbed", after=AHEAD, of="one step ahead, undisturbed"),
    Way(
        "one step ahead, driver killed, resumed",
        "driver killed",
        before=AHEAD,
        after=AHEAD,
        of="one step ahead, undisturbed",
        compared="problems",
    ),
)
NEARLY = 1e-4
"""A step of Adam moves a weight by up to its rate, which is this."""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Compare interrupted runs with one that was not.")
    parser.add_argument("--seed", type=int, default=0, help="of the moments; default: 0")
    parser.add_argument("--work", type=Path, metavar="DIR", help="default: runs/resume-S")
    parser.add_argument("--write", action="store_true", help=f"update {PAGE.name}")
    args = parser.parse_args(arguments)
    stop_on_sigterm()
    args.work = args.work or REPOSITORY / "runs" / f"resume-{args.seed}"
    found = {
        way.name: recorded(way, args.work / f"run-{number}", f"{args.seed}/{number}")
        for number, way in enumerate(WAYS)
    }
    rows = [row_of(way, found, args.work) for way in WAYS]
    result: Result = {
        "benchmark": "resume",
        "seed": args.seed,
        "steps": STEPS,
        "runs": rows,
        "differing": [row["name"] for row in rows if not row["is_same"]],
        "command": " ".join(["python -m benchmarks.resume", *sys.argv[1:]]),
        "date": time.strftime("%Y-%m-%d"),
        **machine(),
    }
    text = "\n".join(page_lines(result))
    publish(result, text, PAGE if args.write else None, title="Reliability", part="resume")
    return 1 if result["differing"] else 0


def recorded(way: Way, folder: Path, seed: str) -> Result:
    """What came of a run: of an earlier call, or made now."""
    file = folder / "outcome.json"
    if not file.is_file():
        print(way.name, file=sys.stderr, flush=True)
        shutil.rmtree(folder, ignore_errors=True)
        moment = random.Random(seed).uniform(2.0, STEPS - 3.0)
        cut_after = run(way, folder, moment)
        facts = {"cut": cut_after, "commit": machine()["commit"]}
        write_json(file, outcome(folder / "proof") | facts)
    found: Result = json.loads(file.read_text(encoding="utf-8"))
    return found


def run(way: Way, folder: Path, moment: float) -> float | None:
    """The run from its beginning to its end; returns after how many steps it was cut.

    Args:
        moment: steps until the cut, a part of one included.
    """
    folder.mkdir(parents=True)
    if way.cut is None:
        finish(start(folder, way.after), way.name)
        return None
    if way.cut == "steps were fewer":
        finish(start(folder, way.before), way.name)
        cut_after = float(steps_in(folder / "proof"))
    else:
        process = start(folder, way.before)
        cut_after = cut(process, way.cut, folder / "proof", moment)
        if way.cut == "learner rank killed":
            finish(process, way.name)
            return cut_after
    finish(start(folder, way.after), way.name)
    return cut_after


def start(folder: Path, more: Sequence[str]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "mgrpo", "train", "quickstart", *OVERRIDES, *more]
    command += ["--run", "proof", f"output.runs_dir={folder}"]
    # The order in which BLAS adds would otherwise depend on where a matrix lies in memory.
    environment = {**os.environ, "MKL_CBWR": "COMPATIBLE"}
    with (folder / "log").open("ab") as log:
        return subprocess.Popen(
            command, cwd=REPOSITORY, env=environment, stdout=log, stderr=subprocess.STDOUT
        )


def finish(process: subprocess.Popen[bytes], name: str) -> None:
    try:
        code = process.wait(DEADLINE_S)
    finally:
        end(process)
    if code:
        raise RuntimeError(f"{name}: the run ended with exit code {code}")


def cut(process: subprocess.Popen[bytes], how: Cut, run_dir: Path, moment: float) -> float:
    """Interrupt a run after so many steps, and wait for its end if it is to end."""
    until = time.monotonic() + DEADLINE_S
    seen_at: dict[int, float] = {}
    while (done := steps_in(run_dir)) < int(moment):
        seen_at.setdefault(done, time.monotonic())
        if process.poll() is not None or time.monotonic() > until:
            end(process)
            raise RuntimeError(f"the run did not reach step {moment:.0f}: {process.returncode}")
        time.sleep(POLL_S)
    a_step = time.monotonic() - seen_at.get(done - 1, time.monotonic())
    time.sleep(moment % 1 * a_step)
    if how == "learner rank killed":
        rank_of(process).kill()
    else:
        family = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGKILL if how == "driver killed" else signal.SIGTERM)
        process.wait(DEADLINE_S)
        psutil.wait_procs(family, timeout=60)
    return float(round(moment, 2))


def rank_of(process: subprocess.Popen[bytes]) -> psutil.Process:
    family = psutil.Process(process.pid).children(recursive=True)
    words = TITLES["learner rank"]
    return next(one for one in family if any(word in title_of(one) for word in words))


def outcome(run_dir: Path) -> Result:
    """Hashes of a finished run."""
    tokens, problems = hashlib.sha256(), []
    for _, path in sorted(rollout_paths(run_dir).items()):
        completions = sorted(read_rollouts(path), key=lambda one: one.completion_id)
        problems.append(sorted({one.problem_id for one in completions}))
        for one in completions:
            told = [one.completion_id, one.problem_id, one.reward.value if one.reward else None]
            columns = [list(map(int, ids)) for ids in (one.prompt_token_ids, one.token_ids)]
            tokens.update(json.dumps([*told, *columns]).encode())
    weights = hashlib.sha256()
    for name, tensor in sorted(load_file(weights_of(run_dir)).items()):
        weights.update(name.encode() + tensor.contiguous().numpy().tobytes())
    drawn = hashlib.sha256(json.dumps(problems).encode())
    return {
        "num_steps": len(problems),
        "weights": weights.hexdigest(),
        "completions": tokens.hexdigest(),
        "problems": drawn.hexdigest(),
    }


def weights_of(run_dir: Path) -> Path:
    return run_dir / "policy" / "model.safetensors"


def row_of(way: Way, found: dict[str, Result], folder: Path) -> Result:
    """A run beside the one that it must be like."""
    own, other = found[way.name], found[way.of]
    numbers = {one.name: number for number, one in enumerate(WAYS)}
    own_weights, other_weights = (
        load_file(weights_of(folder / f"run-{numbers[name]}" / "proof"))
        for name in (way.name, way.of)
    )
    farthest = max(
        float((tensor - other_weights[name]).abs().max()) for name, tensor in own_weights.items()
    )
    keys = {
        "hashes": ("weights", "completions", "problems"),
        "weights nearly": ("problems",),
        "problems": ("problems",),
    }[way.compared]
    is_same = own["num_steps"] == STEPS and all(own[key] == other[key] for key in keys)
    return {
        "name": way.name,
        "of": way.of,
        "compared": way.compared,
        "farthest_weight": farthest,
        "is_same": is_same and (way.compared != "weights nearly" or farthest < NEARLY),
        **own,
    }


def page_lines(result: Result) -> list[str]:
    """The measured part about resumes."""
    lines = ["| Run | Cut after steps | Weights | Completions | Problems | Weights differ by |"]
    lines.append("| --- | ---: | --- | --- | --- | ---: |")
    for row in result["runs"]:
        hashes = [f"`{row[key][:12]}`" for key in ("weights", "completions", "problems")]
        cut_after = "-" if row["cut"] is None else f"{row['cut']:.2f}"
        apart = "-" if row["name"] == row["of"] else f"{row['farthest_weight']:.1e}"
        lines.append(f"| {' | '.join([row['name'], cut_after, *hashes, apart])} |")
    said = ", ".join(result["differing"]) or "none"
    commits = ", ".join(sorted({row["commit"] for row in result["runs"]}))
    lines += ["", f"Not as they must be: {said}. Seed {result['seed']}; runs made at {commits}."]
    lines += ["", *origin_lines(result)]
    return lines


if __name__ == "__main__":
    sys.exit(main())
