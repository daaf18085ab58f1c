"""The quickstart over several seeds: how much it learns, and how long it takes.

    python -m benchmarks.quickstart_seeds --seeds 0 1 2 --write

Trains `recipes/quickstart.yaml` once per seed, one after the other, and reports held-out
accuracies before and after, wall time and phase times. A finished run is not repeated, so the
command picks up where it stopped. `--write` puts the tables into docs/results/quickstart.md.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
PAGE = REPOSITORY / "docs" / "results" / "quickstart.md"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
PHASES = ("rollout", "update", "weights", "step")


@dataclass(frozen=True)
class SeedResult:
    """One finished run."""

    seed: int
    before: dict[str, Any]
    after: dict[str, Any]
    steps: list[dict[str, float]]
    wall_s: float
    environment: dict[str, Any]

    @property
    def gain(self) -> float:
        return float(self.after["acc"][0] - self.before["acc"][0])

    @property
    def delta(self) -> float:
        return float(self.after["acc"][1] - self.after["acc"][0])

    def phase_s(self, phase: str) -> float:
        """Median seconds of one phase over the steps."""
        return statistics.median(step[f"seconds/{phase}"] for step in self.steps)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--write", action="store_true", help=f"update {PAGE.name}")
    arguments = parser.parse_args()
    tables = describe([run_seed(seed) for seed in arguments.seeds], arguments.seeds)
    print(tables)
    if arguments.write:
        write_page(tables)
    return 0


def run_seed(seed: int) -> SeedResult:
    """Train one seed unless it is there already."""
    run_dir = REPOSITORY / "runs" / f"quickstart-seed-{seed}"
    clock = run_dir / "wall_s.txt"
    if not clock.is_file():
        began = time.monotonic()
        command = ["train", "quickstart", f"seed={seed}", "--run", run_dir.name, "--overwrite"]
        subprocess.run(
            [sys.executable, "-m", "mgrpo", *command], cwd=REPOSITORY, check=True, timeout=3600
        )
        clock.write_text(f"{time.monotonic() - began:.1f}\n", encoding="utf-8")
    evaluations = rows_of(run_dir / "evaluation.jsonl")
    return SeedResult(
        seed=seed,
        before=next(e for e in evaluations if e["label"] == "before"),
        after=next(e for e in evaluations if e["label"] == "after"),
        steps=rows_of(run_dir / "metrics.jsonl"),
        wall_s=float(clock.read_text(encoding="utf-8")),
        environment=json.loads((run_dir / "environment.json").read_text(encoding="utf-8")),
    )


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def describe(results: list[SeedResult], seeds: list[int]) -> str:
    """Both tables and how they were made, as Markdown."""
    machine = results[0].environment
    packages = ", ".join(f"{name} {v}" for name, v in machine["packages"].items() if v)
    command = f"python -m benchmarks.quickstart_seeds --seeds {' '.join(map(str, seeds))} --write"
    return "\n".join(
        [
            accuracy_table(results),
            "",
            time_table(results),
            "",
            f"Command: `{command}`. Measured {machine['started'][:10]} on "
            f"{machine['cpu_cores']} CPU cores, {machine['memory_gib']} GiB, without a GPU; "
            f"{machine['platform']}; Python {machine['python']}, {packages}; revision "
            f"{(machine['git_revision'] or '?')[:10]}. "
            "The machine is shared, so times vary; accuracies do not depend on them.",
        ]
    )


def accuracy_table(results: list[SeedResult]) -> str:
    lines = [
        "| Seed | Acc@t1' before | Acc@t1' after | gain | Acc@t2 before | Acc@t2 after | "
        "Δ after | wrong→right | right→wrong |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for result in results:
        moves = result.after["transitions"][0]
        lines.append(
            f"| {result.seed} | {share(result.before['acc'][0])} | {share(result.after['acc'][0])} "
            f"| {points(result.gain)} | {share(result.before['acc'][1])} "
            f"| {share(result.after['acc'][1])} | {points(result.delta)} "
            f"| {share(moves['wrong_to_right'])} | {share(moves['right_to_wrong'])} |"
        )
    gains = [result.gain for result in results]
    deltas = [result.delta for result in results]
    lines.append(
        f"| mean | | | {points(statistics.mean(gains))} (min {points(min(gains))}) | | "
        f"| {points(statistics.mean(deltas))} (min {points(min(deltas))}) | | |"
    )
    return "\n".join(lines)


def time_table(results: list[SeedResult]) -> str:
    lines = [
        "| Seed | whole command | training, first to last step | "
        + " | ".join(f"{phase}, median s" for phase in PHASES)
        + " |",
        "| --- | ---: | ---: |" + " ---: |" * len(PHASES),
    ]
    for result in results:
        training_s = sum(step["seconds/step"] for step in result.steps)
        lines.append(
            f"| {result.seed} | {result.wall_s / 60:.1f} min | {training_s / 60:.1f} min | "
            + " | ".join(f"{result.phase_s(phase):.2f}" for phase in PHASES)
            + " |"
        )
    return "\n".join(lines)


def share(value: float) -> str:
    return f"{100 * value:.1f} %"


def points(value: float) -> str:
    return f"{100 * value:+.1f}"


def write_page(tables: str) -> None:
    """Replace what stands between the marks."""
    text = PAGE.read_text(encoding="utf-8")
    head, rest = text.split(BEGIN)
    tail = rest.split(END)[1]
    PAGE.write_text(f"{head}{BEGIN}\n{tables}\n{END}{tail}", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
