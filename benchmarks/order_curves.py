"""Do overlapped steps learn as synchronous ones do? Curves of three orders, over seeds.

    python -m benchmarks.order_curves             # nine runs, half an hour; goes on from those done
    python -m benchmarks.order_curves --write     # docs/benchmarks/order_curves.md, .json and .svg

The quickstart, whole, in each of the orders of `benchmarks.overlap`: a seed draws the same problems
in the same order for all of them. Compared with the synchronous order, paired by seed: the mean
accuracy of sampled first attempts over all steps (the area under the curve), and the held-out
accuracies after training.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from matplotlib import rc_context
from matplotlib.figure import Figure

from benchmarks.commands import CommandFailed, run_command, stop_on_sigterm
from benchmarks.machine import REPOSITORY, Result, machine, origin_lines
from benchmarks.measured_page import publish
from benchmarks.overlap import ORDERS
from mgrpo.evaluation.seeds import paired_t
from mgrpo.metrics.log import read_evaluations, read_metrics
from scripts.method_pages.figure import LOOK, line, share_axes, svg_of

PAGE = REPOSITORY / "docs" / "benchmarks" / "order_curves.md"
RUNS = REPOSITORY / "runs" / "order_curves"
SETTINGS = ("evaluation.every_steps=0", "output.report=false", "output.trackers=[]")
DEADLINE_S = 1800
SMOOTHED_OVER = 5  # steps of the drawn curve
FIGURES = ("area", "first", "last")


@dataclass(frozen=True, slots=True)
class Curve:
    """One run. Shares of 1."""

    accuracies: list[float]  # of sampled first attempts, by step
    first: float  # held-out accuracy of first attempts after training
    last: float  # of the chain's end

    @property
    def area(self) -> float:
        return fmean(self.accuracies)


def main() -> int:
    parser = argparse.ArgumentParser(description="Compare the learning of three orders of steps.")
    parser.add_argument("--seeds", type=int, default=3, metavar="N")
    parser.add_argument("--runs", type=Path, default=RUNS, metavar="DIR")
    parser.add_argument("--write", action="store_true", help=f"update {PAGE.name} and its files")
    args = parser.parse_args()
    stop_on_sigterm()
    found = {
        order: [curve_of(args.runs, order, seed) for seed in range(args.seeds)] for order in ORDERS
    }
    result = {
        "benchmark": "order_curves",
        **summary(found),
        "command": " ".join(["python -m benchmarks.order_curves", *sys.argv[1:]]),
        "date": time.strftime("%Y-%m-%d"),
        **machine(),
    }
    if args.write:
        PAGE.with_suffix(".svg").write_text(figure(found), encoding="utf-8")
    text = "\n".join(page_lines(result))
    publish(result, text, PAGE if args.write else None, title="Learning in three orders of steps")
    return 0


def curve_of(runs: Path, order: str, seed: int) -> Curve:
    """Train, or read the run that is there."""
    name = f"{order.replace(' ', '_')}-{seed}"
    if not (runs / name / "evaluation.jsonl").exists() or len(read_evaluations(runs / name)) < 2:
        print(f"{name} ...", file=sys.stderr, flush=True)
        run_command(
            [
                *(sys.executable, "-m", "mgrpo", "train", "quickstart", *SETTINGS),
                *(f"seed={seed}", f"pipeline.max_staleness_steps={ORDERS[order]}"),
                *(f"output.runs_dir={runs}", "--run", name, "--overwrite"),
            ],
            log=runs / f"{name}.log",
            deadline_s=DEADLINE_S,
        )
    after = read_evaluations(runs / name)[-1]["acc"]
    rows = read_metrics(runs / name)
    return Curve([float(row["layer1/accuracy"]) for row in rows], float(after[0]), float(after[-1]))


def summary(found: dict[str, list[Curve]]) -> Result:
    """Each figure by order and seed, and each order's difference to the first one."""
    values = {
        order: {name: [getattr(one, name) for one in curves] for name in FIGURES}
        for order, curves in found.items()
    }
    reference, *others = values
    differences: Result = {}
    for order in others:
        for name in FIGURES:
            one = paired_t(values[reference][name], values[order][name])
            pairs = zip(values[reference][name], values[order][name], strict=True)
            mean = fmean(after - before for before, after in pairs)
            width, p = (None, None) if one is None else (one.half_width, one.p)
            differences.setdefault(order, {})[name] = {"mean": mean, "half_width": width, "p": p}
    return {"values": values, "differences": differences}


def page_lines(result: Result) -> Iterator[str]:
    titles = "mean over steps, % | held out, first attempts, % | held out, corrected, %"
    yield f"| Order | {titles} |"
    yield "| --- | ---: | ---: | ---: |"
    for order, values in result["values"].items():
        cells = " | ".join(percentages(values[name]) for name in FIGURES)
        yield f"| {order} | {cells} |"
    for order, by_name in result["differences"].items():
        cells = " | ".join(points(by_name[name]) for name in FIGURES)
        yield f"| {order} minus synchronous, points | {cells} |"
    yield ""
    yield "Mean over seeds (each seed); differences are paired by seed, with 95 % intervals (t)."
    yield ""
    yield f"![Accuracy of sampled first attempts by step]({PAGE.stem}.svg)"
    yield ""
    yield from origin_lines(result)


def percentages(values: Sequence[float]) -> str:
    each = ", ".join(f"{100 * one:.1f}" for one in values)
    return f"{100 * fmean(values):.1f} ({each})"


def points(difference: Result) -> str:
    mean = f"{100 * difference['mean']:+.1f}"
    if difference["half_width"] is None:
        return mean
    return f"{mean} ± {100 * difference['half_width']:.1f} (p {difference['p']:.2f})"


@rc_context(LOOK)
def figure(found: dict[str, list[Curve]]) -> str:
    """Smoothed accuracies by step: a thin line a seed, a thick one for the mean."""
    drawing = Figure(figsize=(6.4, 2.9))
    axes = drawing.subplots()
    share_axes(axes, top=100)
    for number, (order, curves) in enumerate(found.items()):
        color, smooth = f"c{number}", [smoothed(one.accuracies) for one in curves]
        steps = range(1, len(smooth[0]) + 1)
        for one in smooth:
            line(axes, steps, one, color=color, width=0.6)
        means = [fmean(at_step) for at_step in zip(*smooth, strict=True)]
        line(axes, steps, means, color=color, width=2.0, label=order)
    drawing.legend(loc="outside upper left", ncols=len(found))
    return svg_of(drawing, "Accuracy of sampled first attempts by step, in three orders of steps")


def smoothed(values: Sequence[float]) -> list[float]:
    """Each the mean of the steps around it."""
    half = SMOOTHED_OVER // 2
    return [fmean(values[max(0, place - half) : place + half + 1]) for place in range(len(values))]


if __name__ == "__main__":
    try:
        sys.exit(main())
    except CommandFailed as failure:
        sys.exit(str(failure))
