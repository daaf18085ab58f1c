"""How much faster a step is where sampling and learning overlap, on the same work.

    python -m benchmarks.overlap                # 3 interleaved rounds, some 10 minutes
    python -m benchmarks.overlap --quick        # one round
    python -m benchmarks.overlap --unpinned     # engine and learner share all cores
    python -m benchmarks.overlap --write        # docs/benchmarks/overlap.md and .json

Three orders of the same steps (`pipeline.max_staleness_steps`): null samples a step and then trains
on it, 0 trains on its problems as they are done, 1 samples the next step while one trains. The
learning rate is too small to change a float32 weight, so that all orders sample the same
completions, of lengths that vary as the trained default policy's do. The engine's processes are
pinned to one core and the learner's to another, which makes them two devices; the work is such that
either needs about as long. Each run's first two steps are left out as warm-up, and its last, which
has no next one to sample. The last line of the output is one JSON object.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.commands import CommandFailed, run_command, stop_on_sigterm
from benchmarks.machine import REPOSITORY, Result, machine, origin_lines
from benchmarks.measured_page import publish
from mgrpo.metrics.log import read_metrics

ORDERS = {"synchronous": "null", "streamed": "0", "one step off": "1"}
PAGE = REPOSITORY / "docs" / "benchmarks" / "overlap.md"
NUM_WARM_UP = 2
DEADLINE_S = 1200
RECIPE = "quickstart"
WORK = (
    # Equal samples in every order: float32 weights do not move.
    "learner.learning_rate=1e-30",
    "evaluation.every_steps=0",
    "data.heldout=null",
    "checkpoints.every_steps=0",
    "output.report=false",
    "engines.shared=true",
    "engines.num_shared_engines=1",
    "engines.num_threads=1",
    # As on a cluster, a step has more completions than an engine samples at a time: problems are
    # done one after the other.
    "engines.max_num_seqs=64",
    "learner.num_threads=1",
    "learner.microbatch_tokens=1024",
    # The learner then needs about as long as the engine.
    "learner.merge_prefixes=false",
    "learner.gradient_checkpointing=true",
    "objective.kl.weight=0.001",
)
ENGINE, LEARNER = ("engine", "EngineCore"), ("learner",)


@dataclass(frozen=True, slots=True)
class Steps:
    """The steady steps of one run."""

    seconds: list[float]  # of whole steps
    rollout: list[float]
    update: list[float]
    tokens: list[float]


def main() -> int:
    args = parse()
    stop_on_sigterm()
    rounds: list[dict[str, Steps]] = []
    with tempfile.TemporaryDirectory(prefix="mgrpo-overlap-") as folder:
        for number in range(args.rounds):
            found = {}
            for order, bound in ORDERS.items():
                found[order] = run_order(
                    Path(folder), bound, args.steps, is_pinned=not args.unpinned
                )
                seconds = " ".join(f"{value:.2f}" for value in found[order].seconds)
                print(f"round {number} {order}: {seconds} s a step", file=sys.stderr, flush=True)
            check_equal_work(found)
            rounds.append(found)
    result = summary(rounds, is_pinned=not args.unpinned)
    text = "\n".join(page_lines(result))
    part = "unpinned" if args.unpinned else ""
    publish(result, text, PAGE if args.write else None, title="Overlapped steps", part=part)
    return 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Time overlapped steps against synchronous ones.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--quick", action="store_true", help="one round of 6 steps")
    parser.add_argument("--unpinned", action="store_true", help="share all cores")
    parser.add_argument("--write", action="store_true", help=f"update {PAGE.name} and its .json")
    args = parser.parse_args()
    if args.quick:
        args.rounds, args.steps = 1, 6
    if args.rounds < 1 or args.steps < NUM_WARM_UP + 2:
        parser.error(f"needs a round or more, and at least {NUM_WARM_UP + 2} steps")
    if not args.unpinned and (os.cpu_count() or 1) < 2:
        parser.error("pinning needs two cores")
    return args


def run_order(folder: Path, bound: str, steps: int, *, is_pinned: bool) -> Steps:
    """One run of `mgrpo train`, read from its metrics."""
    overrides = [*WORK, f"steps={steps}", f"pipeline.max_staleness_steps={bound}"]
    command = [sys.executable, "-m", "mgrpo", "train", RECIPE, "--run", "overlap", "--overwrite"]
    overrides.append(f"output.runs_dir={folder}")
    with Pinning(is_pinned):
        run_command([*command, *overrides], log=folder / "run.log", deadline_s=DEADLINE_S)
    rows = read_metrics(folder / "overlap")[NUM_WARM_UP:-1]
    return Steps(
        seconds=[row["seconds/step"] for row in rows],
        rollout=[row["seconds/rollout"] for row in rows],
        update=[row["seconds/update"] for row in rows],
        tokens=[row["tokens/generated"] for row in rows],
    )


class Pinning:
    """Engines on the first core and learners on the second, as they appear below this process."""

    def __init__(self, is_on: bool) -> None:
        self.is_on, self.ended = is_on, threading.Event()

    def __enter__(self) -> None:
        if self.is_on:
            self.thread = threading.Thread(target=self.keep, daemon=True)
            self.thread.start()

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        if self.is_on:
            self.thread.join(timeout=10)

    def keep(self) -> None:
        while not self.ended.wait(1.0):
            for process in psutil.Process().children(recursive=True):
                pin(process)


def pin(process: psutil.Process) -> None:
    """Put all threads of an engine or a learner on its core."""
    try:
        title = process.cmdline()[0]
        core = 0 if any(word in title for word in ENGINE) else 1
        if core == 0 or any(word in title for word in LEARNER):
            for thread in process.threads():
                os.sched_setaffinity(thread.id, {core})
    except (psutil.Error, OSError, IndexError):
        return  # it has just ended


def check_equal_work(found: dict[str, Steps]) -> None:
    """All orders must have trained on the same completions."""
    first, *others = [steps.tokens for steps in found.values()]
    if any(tokens != first for tokens in others):
        raise SystemExit(f"orders sampled different numbers of tokens: {found}")


def summary(rounds: Sequence[dict[str, Steps]], *, is_pinned: bool) -> Result:
    """Medians, and the ratio of each round to the synchronous order."""
    medians = {
        order: [statistics.median(found[order].seconds) for found in rounds] for order in ORDERS
    }
    base = medians["synchronous"]
    ratios = {
        order: [one / own for one, own in zip(base, medians[order], strict=True)]
        for order in ORDERS
        if order != "synchronous"
    }
    own = [found["synchronous"] for found in rounds]
    return {
        "benchmark": "overlap",
        "pinned": is_pinned,
        "seconds_per_step": {name: statistics.median(values) for name, values in medians.items()},
        "rounds": medians,
        "speedup": {name: statistics.median(values) for name, values in ratios.items()},
        "speedup_rounds": ratios,
        "sampling_s": statistics.median(value for steps in own for value in steps.rollout),
        "update_s": statistics.median(value for steps in own for value in steps.update),
        "tokens_per_step": statistics.median(value for steps in own for value in steps.tokens),
        "command": " ".join(["python -m benchmarks.overlap", *sys.argv[1:]]),
        "date": time.strftime("%Y-%m-%d"),
        **machine(),
    }


def page_lines(result: Result) -> Iterator[str]:
    where = "Engine and learner each on a core of its own" if result["pinned"] else "Shared cores"
    tokens = result["tokens_per_step"]
    yield f"{where}. In the synchronous order sampling takes {result['sampling_s']:.2f} s and the"
    yield f"update {result['update_s']:.2f} s. A step has {tokens:,.0f} tokens.\n"
    yield "| Order | Seconds a step | Times as fast as synchronous (each round) |"
    yield "| --- | --- | --- |"
    for order, seconds in result["seconds_per_step"].items():
        speed = "1"
        if order in result["speedup"]:
            rounds = ", ".join(f"{value:.2f}" for value in result["speedup_rounds"][order])
            speed = f"{result['speedup'][order]:.2f} ({rounds})"
        yield f"| {order} | {seconds:.2f} | {speed} |"
    yield ""
    yield from origin_lines(result)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except CommandFailed as failure:
        sys.exit(str(failure))
