"""How far simulated steps are from measured ones, on a CPU.

    python -m benchmarks.simulation                  # six runs, some 15 minutes
    python -m benchmarks.simulation --quick          # three
    python -m benchmarks.simulation --folder DIR     # keep the runs there, and use those that are
    python -m benchmarks.simulation --write          # docs/benchmarks/simulation.md and .json

The work is that of `benchmarks.overlap`: engine and learner are pinned to a core each. Rates and
lengths are those of one run, in the synchronous order (`mgrpo simulate --measured`); the same rates
predict the other orders, and steps of twice the problems. With the synchronous times of
`docs/benchmarks/overlap.json` in place of its own they predict that page's other orders too. The
last line of the output is one JSON object.
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

from benchmarks.commands import CommandFailed, run_command, stop_on_sigterm
from benchmarks.machine import REPOSITORY, Result, machine, origin_lines
from benchmarks.overlap import DEADLINE_S, ORDERS, RECIPE, WORK, Pinning
from benchmarks.overlap import PAGE as OVERLAP
from mgrpo.config.load import load_recipe
from mgrpo.plan.layouts import with_given
from mgrpo.plan.measured_run import measured_tree
from mgrpo.plan.recipe import plan_recipe
from mgrpo.plan.simulated import simulated
from mgrpo.simulation.measured import average, scaled, steady_rows
from mgrpo.simulation.rates import Rates

PAGE = REPOSITORY / "docs" / "benchmarks" / "simulation.md"
STEPS = {16: 8, 32: 5}
"""Steps of a run, by its problems per step."""
SEEDS = range(5)
PARTS = ("shared", "learner")


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """One run and its simulation; seconds of a step, busy shares of it."""

    source: str  # of the measured seconds: "runs", or a page's
    order: str
    prompts: int
    measured_s: float
    measured_range_s: tuple[float, float]
    simulated_s: float
    measured_busy: dict[str, float]  # {} where it was not recorded
    simulated_busy: dict[str, float]

    @property
    def is_fitted(self) -> bool:
        """Whether the rates are those of this very row."""
        return self.order == "synchronous" and self.prompts == min(STEPS)

    @property
    def error(self) -> float:
        """Of the simulated seconds, as a share of the measured."""
        return self.simulated_s / self.measured_s - 1


def main() -> int:
    args = parse()
    stop_on_sigterm()
    with tempfile.TemporaryDirectory(prefix="mgrpo-simulation-") as made:
        folder = args.folder or Path(made)
        source = run_of(folder, "synchronous", min(STEPS))
        rates = with_given(None, measured_tree(source))
        rows = [
            compared(run_of(folder, order, prompts), order, prompts, rates)
            for prompts in ([min(STEPS)] if args.quick else STEPS)
            for order in args.orders
        ]
        rows += list(of_overlap_page(rates, steady_rows(source)))
    result = summary(rows) | {"command": command_of(args)}
    if args.write:
        write(rows, result)
    print(json.dumps(result))
    return 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Compare simulated steps with measured ones.")
    parser.add_argument("--folder", type=Path, help="of the runs; those that are there are used")
    parser.add_argument("--quick", action="store_true", help="steps of one size only")
    parser.add_argument(
        "--orders", nargs="+", choices=ORDERS, default=[*ORDERS], metavar="ORDER", help="to run"
    )
    parser.add_argument("--write", action="store_true", help=f"update {PAGE.name} and its .json")
    return parser.parse_args()


def command_of(args: argparse.Namespace) -> str:
    """The command without the folder, which is of one machine."""
    words = ["python -m benchmarks.simulation", *(["--quick"] if args.quick else [])]
    if args.orders != [*ORDERS]:
        words += ["--orders", *(f"'{order}'" if " " in order else order for order in args.orders)]
    return " ".join([*words, *(["--write"] if args.write else [])])


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


def compared(run: Path, order: str, prompts: int, rates: Rates) -> Compared:
    """A run beside its simulation."""
    rows = steady_rows(run)
    busy = {part: average(rows, f"pipeline/{part}_busy_fraction") for part in PARTS}
    seconds = [float(row["seconds/step"]) for row in rows]
    return beside("runs", order, prompts, rates, seconds, busy)


def of_overlap_page(rates: Rates, rows: Sequence[Result]) -> Iterator[Compared]:
    """The orders of `docs/benchmarks/overlap.json`, by its own synchronous times.

    Args:
        rates: of a run of the same work, for lengths and everything but times.
        rows: that run's steps.
    """
    page = json.loads(OVERLAP.with_suffix(".json").read_text(encoding="utf-8"))
    sampling, update = page["sampling_s"], page["update_s"]
    token_s = rates.learner.token_s * update / average(rows, "seconds/update")
    own = rates.model_copy(
        update={
            "engine": scaled(rates.engine, sampling / average(rows, "seconds/rollout")),
            "learner": rates.learner.model_copy(update={"token_s": token_s}),
            "weights_s": page["seconds_per_step"]["synchronous"] - sampling - update,
        }
    )
    for order in ORDERS:
        yield beside(OVERLAP.name, order, min(STEPS), own, page["rounds"][order], {})


def beside(
    source: str,
    order: str,
    prompts: int,
    rates: Rates,
    seconds: Sequence[float],
    busy: dict[str, float],
) -> Compared:
    recipe = plan_recipe(load_recipe(RECIPE, overrides(order, prompts)))
    outcomes = [simulated(recipe, rates, num_steps=8, seed=seed) for seed in SEEDS]
    return Compared(
        source=source,
        order=order,
        prompts=prompts,
        measured_s=mean(seconds),
        measured_range_s=(min(seconds), max(seconds)),
        simulated_s=mean(one.seconds_per_step for one in outcomes),
        measured_busy=busy,
        simulated_busy={part: mean(one.busy_shares[part] for one in outcomes) for part in PARTS},
    )


def summary(rows: Sequence[Compared]) -> Result:
    predicted = [abs(row.error) for row in rows if not row.is_fitted]
    return {
        "benchmark": "simulation",
        "rows": [asdict(row) | {"error": row.error} for row in rows],
        "num_predictions": len(predicted),
        "mean_abs_error": mean(predicted),
        "max_abs_error": max(predicted),
        "date": time.strftime("%Y-%m-%d"),
        **machine(),
    }


def write(rows: Sequence[Compared], result: Result) -> None:
    PAGE.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    PAGE.write_text("\n".join(page_lines(rows, result)) + "\n", encoding="utf-8")


def page_lines(rows: Sequence[Compared], result: Result) -> Iterator[str]:
    yield "# Simulated steps\n"
    yield "`mgrpo simulate` against measured steps of the quickstart's policy, with engine and"
    yield "learner on a core each. The synchronous rows of 16 problems gave the rates; the others"
    yield "are predicted by them. Busy shares are measured / simulated.\n"
    yield (
        "| Measured in | Order | Problems a step | Measured, s (range) | Simulated, s | Error | "
        "Engine busy | Learner busy |"
    )
    yield "| --- | --- | --- | --- | --- | --- | --- | --- |"
    for row in rows:
        low, high = row.measured_range_s
        fitted = " (fitted)" if row.is_fitted else ""
        yield (
            f"| {row.source} | {row.order} | {row.prompts} | {row.measured_s:.2f} ({low:.2f} to "
            f"{high:.2f}) | {row.simulated_s:.2f} | {100 * row.error:+.1f} %{fitted} | "
            f"{' | '.join(busy_text(row, part) for part in PARTS)} |"
        )
    yield (
        f"\nThe {result['num_predictions']} predictions are off by "
        f"{100 * result['mean_abs_error']:.1f} % on average and by "
        f"{100 * result['max_abs_error']:.1f} % at most. Times on GPUs have not been compared with"
    )
    yield "measured ones.\n"
    yield from origin_lines(result)


def busy_text(row: Compared, part: str) -> str:
    simulated_share = f"{100 * row.simulated_busy[part]:.0f} %"
    if part not in row.measured_busy:
        return f"not recorded / {simulated_share}"
    return f"{100 * row.measured_busy[part]:.0f} / {simulated_share}"


if __name__ == "__main__":
    try:
        sys.exit(main())
    except CommandFailed as failure:
        sys.exit(str(failure))
