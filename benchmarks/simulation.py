"""How far simulated steps are from measured ones, on a CPU.

    python -m benchmarks.simulation                  # six runs, some 15 minutes
    python -m benchmarks.simulation --folder DIR     # keep the runs there, and use those that are
    python -m benchmarks.simulation --write          # docs/benchmarks/simulation.md and .json

The work is that of `benchmarks.overlap`: engine and learner are pinned to a core each. Rates and
lengths are those of one run, in the synchronous order (`mgrpo simulate --measured`); the same rates
predict the other orders, and steps of twice the problems. The last line of the output is one JSON
object.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.commands import CommandFailed, run_command, stop_on_sigterm
from benchmarks.machine import REPOSITORY, machine
from benchmarks.overlap import DEADLINE_S, ORDERS, RECIPE, WORK, Pinning
from mgrpo.config.load import load_recipe
from mgrpo.plan.layouts import with_given
from mgrpo.plan.measured_run import measured_tree
from mgrpo.plan.recipe import plan_recipe
from mgrpo.plan.simulated import simulated
from mgrpo.simulation.measured import average, steady_rows
from mgrpo.simulation.rates import Rates

PAGE = REPOSITORY / "docs" / "benchmarks" / "simulation.md"
STEPS = {16: 8, 32: 5}
"""Steps of a run, by its problems per step."""
SEEDS = range(5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """One run and its simulation; seconds of a step, busy shares of it."""

    order: str
    prompts: int
    measured_s: float
    measured_range_s: tuple[float, float]
    simulated_s: float
    measured_busy: dict[str, float]
    simulated_busy: dict[str, float]
    is_source: bool  # of the rates

    @property
    def error(self) -> float:
        """Of the simulated seconds, as a share of the measured."""
        return self.simulated_s / self.measured_s - 1


def main() -> int:
    args = parse()
    stop_on_sigterm()
    with tempfile.TemporaryDirectory(prefix="mgrpo-simulation-") as made:
        folder = args.folder or Path(made)
        rates: Rates | None = None
        rows = []
        for prompts in STEPS:
            for order in ORDERS:
                run = run_of(folder, order, prompts)
                rates = rates or with_given(None, measured_tree(run))
                rows.append(compared(run, order, prompts, rates, is_source=not rows))
                print(f"{order} {prompts}: {rows[-1]}", file=sys.stderr, flush=True)
    result = summary(rows)
    if args.write:
        write(rows, result)
    print(json.dumps(result))
    return 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Compare simulated steps with measured ones.")
    parser.add_argument("--folder", type=Path, help="of the runs; those that are there are used")
    parser.add_argument("--write", action="store_true", help=f"update {PAGE.name} and its .json")
    return parser.parse_args()


def run_of(folder: Path, order: str, prompts: int) -> Path:
    """The run of an order, trained now unless it is there."""
    name = f"{order.replace(' ', '-')}-{prompts}"
    run = folder / name
    if not (run / "policy").is_dir():
        command = [sys.executable, "-m", "mgrpo", "train", RECIPE, "--run", name, "--overwrite"]
        command += [f"output.runs_dir={folder}", *overrides(order, prompts)]
        with Pinning(True):
            run_command(command, log=folder / f"{name}.log", deadline_s=DEADLINE_S)
    return run


def overrides(order: str, prompts: int) -> list[str]:
    return [
        *WORK,
        f"steps={STEPS[prompts]}",
        f"prompts_per_step={prompts}",
        f"pipeline.max_staleness_steps={ORDERS[order]}",
        f"output.rollouts_per_step={prompts}",
    ]


def compared(run: Path, order: str, prompts: int, rates: Rates, *, is_source: bool) -> Compared:
    rows = steady_rows(run)
    recipe = plan_recipe(load_recipe(RECIPE, overrides(order, prompts)))
    outcomes = [simulated(recipe, rates, num_steps=8, seed=seed) for seed in SEEDS]
    seconds = [float(row["seconds/step"]) for row in rows]
    return Compared(
        order=order,
        prompts=prompts,
        measured_s=mean(seconds),
        measured_range_s=(min(seconds), max(seconds)),
        simulated_s=mean(one.seconds_per_step for one in outcomes),
        measured_busy={
            part: average(rows, f"pipeline/{part}_busy_fraction") for part in ("shared", "learner")
        },
        simulated_busy={
            part: mean(one.busy_shares[part] for one in outcomes) for part in ("shared", "learner")
        },
        is_source=is_source,
    )


def summary(rows: Sequence[Compared]) -> dict[str, Any]:
    predicted = [abs(row.error) for row in rows if not row.is_source]
    return {
        "benchmark": "simulation",
        "rows": [asdict(row) | {"error": row.error} for row in rows],
        "mean_abs_error": mean(predicted),
        "max_abs_error": max(predicted),
        "command": "python -m benchmarks.simulation --write",
        "date": time.strftime("%Y-%m-%d"),
        **machine(),
    }


def write(rows: Sequence[Compared], result: dict[str, Any]) -> None:
    PAGE.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    PAGE.write_text("\n".join(page_lines(rows, result)) + "\n", encoding="utf-8")


def page_lines(rows: Sequence[Compared], result: dict[str, Any]) -> Iterator[str]:
    yield "# Simulated steps\n"
    yield "`mgrpo simulate` against measured steps of the quickstart's policy, with engine and"
    yield "learner on a core each. Rates and lengths are measured in the table's first run; the"
    yield "other rows are predictions by the same rates.\n"
    yield (
        "| Order | Problems a step | Measured, s (range) | Simulated, s | Error | "
        "Engine busy, measured / simulated | Learner busy |"
    )
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for row in rows:
        low, high = row.measured_range_s
        source = " (rates are its own)" if row.is_source else ""
        engine, learner = (
            f"{100 * row.measured_busy[part]:.0f} / {100 * row.simulated_busy[part]:.0f} %"
            for part in ("shared", "learner")
        )
        yield (
            f"| {row.order} | {row.prompts} | {row.measured_s:.2f} ({low:.2f} to {high:.2f}) | "
            f"{row.simulated_s:.2f} | {100 * row.error:+.1f} %{source} | {engine} | {learner} |"
        )
    yield (
        f"\nThe predictions are off by {100 * result['mean_abs_error']:.1f} % on average and by "
        f"{100 * result['max_abs_error']:.1f} % at most. Times on GPUs have not been compared with"
    )
    yield "measured ones.\n"
    packages = ", ".join(f"{name} {version}" for name, version in result["packages"].items())
    yield f"`{result['command']}`, {result['date']}, commit {result['commit']}, {result['cpu']},"
    yield f"{result['cores']} cores, Python {result['python']}, {packages}."


if __name__ == "__main__":
    try:
        sys.exit(main())
    except CommandFailed as failure:
        sys.exit(str(failure))
