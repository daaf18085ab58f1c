"""The quickstart over several seeds: accuracies and times.

    python -m benchmarks.quickstart_seeds --seeds 0 1 2 --write

Trains `mgrpo/recipes/quickstart.yaml` once per seed, one after the other, and reports held-out
accuracies before and after, wall time and phase times. A finished run is not repeated, so the
command is resumable. `--write` puts the tables into docs/results/quickstart.md.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.commands import CommandFailed, stop_on_sigterm
from benchmarks.machine import REPOSITORY
from benchmarks.measured_page import write_measured
from benchmarks.study.page import provenance, table
from benchmarks.study.plan import LAST_STEPS
from benchmarks.study.runs import FINISHED, Runs, Trial, read_environment
from mgrpo.metrics.log import read_evaluations, read_metrics

PAGE = REPOSITORY / "docs" / "results" / "quickstart.md"
PHASES = ("rollout", "update", "weights", "step")


@dataclass(frozen=True)
class SeedResult:
    """One finished run."""

    seed: int
    before: dict[str, Any]
    after: dict[str, Any]
    steps: list[dict[str, Any]]
    wall_s: float
    environment: dict[str, Any]

    @property
    def gain(self) -> float:
        return float(self.after["acc"][0] - self.before["acc"][0])

    @property
    def delta(self) -> float:
        return float(self.after["acc"][1] - self.after["acc"][0])

    def sampled(self, turn: int) -> tuple[float, float]:
        """Right ones among sampled completions of a layer, in the first and the last steps."""
        shares = [step[f"layer{turn}/accuracy"] for step in self.steps]
        return statistics.mean(shares[:LAST_STEPS]), statistics.mean(shares[-LAST_STEPS:])

    def phase_s(self, phase: str) -> float:
        """Median seconds of one phase over the steps."""
        return statistics.median(step[f"seconds/{phase}"] for step in self.steps)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--write", action="store_true", help=f"update {PAGE.name}")
    arguments = parser.parse_args()
    stop_on_sigterm()
    runs = Runs(REPOSITORY / "runs")
    try:
        tables = describe([run_seed(runs, seed) for seed in arguments.seeds], arguments.seeds)
    except CommandFailed as error:
        print(error, file=sys.stderr)
        return 1
    print(tables)
    if arguments.write:
        write_measured(PAGE, tables, title="Quickstart results")
    return 0


def run_seed(runs: Runs, seed: int) -> SeedResult:
    """Train one seed unless it is there already."""
    trial = Trial(recipe="quickstart", seed=seed)
    if not runs.is_trained(trial):
        runs.train(trial)
    folder = runs.of(trial)
    evaluations = {row["label"]: row for row in read_evaluations(folder)}
    return SeedResult(
        seed=seed,
        before=evaluations["before"],
        after=evaluations["after"],
        steps=read_metrics(folder),
        wall_s=float((folder / FINISHED).read_text(encoding="utf-8")),
        environment=read_environment(folder),
    )


def describe(results: Sequence[SeedResult], seeds: Sequence[int]) -> str:
    """Both tables and how they were made, as Markdown."""
    command = f"python -m benchmarks.quickstart_seeds --seeds {' '.join(map(str, seeds))} --write"
    return "\n\n".join(
        [
            "Greedy, on the held-out problems:",
            accuracy_table(results),
            f"Sampled, in training: right ones in the first {LAST_STEPS} steps and the last:",
            sampled_table(results),
            time_table(results),
            f"{provenance([result.environment for result in results], command)} "
            "The machine is shared, so times vary; accuracies do not depend on them.",
        ]
    )


def accuracy_table(results: Sequence[SeedResult]) -> str:
    head = ["Seed", "Acc@t1' before", "Acc@t1' after", "gain", "Acc@t2 before", "Acc@t2 after"]
    head += ["Δ after", "wrong→right", "right→wrong"]
    rows = []
    for result in results:
        moves = result.after["transitions"][0]
        rows.append(
            [
                str(result.seed),
                share(result.before["acc"][0]),
                share(result.after["acc"][0]),
                points(result.gain),
                share(result.before["acc"][1]),
                share(result.after["acc"][1]),
                points(result.delta),
                share(moves["wrong_to_right"]),
                share(moves["right_to_wrong"]),
            ]
        )
    gains = mean_and_min([result.gain for result in results])
    deltas = mean_and_min([result.delta for result in results])
    return table(head, [*rows, ["mean", "", "", gains, "", "", deltas, "", ""]])


def sampled_table(results: Sequence[SeedResult]) -> str:
    head = ["Seed", "first attempts, before", "after", "second turns, before", "after"]
    return table(
        head,
        [
            [str(result.seed), *(share(value) for turn in (1, 2) for value in result.sampled(turn))]
            for result in results
        ],
    )


def time_table(results: Sequence[SeedResult]) -> str:
    head = ["Seed", "whole command", "training, first to last step"]
    return table(
        [*head, *(f"{phase}, median s" for phase in PHASES)],
        [
            [
                str(result.seed),
                f"{result.wall_s / 60:.1f} min",
                f"{sum(step['seconds/step'] for step in result.steps) / 60:.1f} min",
                *(f"{result.phase_s(phase):.2f}" for phase in PHASES),
            ]
            for result in results
        ],
    )


def share(value: float) -> str:
    return f"{100 * value:.1f} %"


def points(value: float) -> str:
    return f"{100 * value:+.1f}"


def mean_and_min(values: Sequence[float]) -> str:
    return f"{points(statistics.mean(values))} (min {points(min(values))})"


if __name__ == "__main__":
    sys.exit(main())
