"""A short curve of every method: the same few steps, three seeds each.

    python -m benchmarks.method_curves              # what is left; --list shows it
    python -m benchmarks.method_curves disco gspo   # these
    make methods-pages                              # then write the pages again

Each recipe trains the embedded policy with SETTINGS, which leave the method alone. The results are
written to docs/methods/curves.json, from which the methods' pages are made. Every recipe's first
seed comes before any's second. A run whose recipe's method keys have changed since counts as left.
The curves show that a recipe trains and roughly how; with few steps they do not rank methods:
`make study` does.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.commands import CommandFailed, run_command, stop_on_sigterm
from benchmarks.machine import REPOSITORY, machine
from mgrpo.config.load import load_recipe
from mgrpo.errors import ConfigError
from mgrpo.methods.catalog import method_files
from mgrpo.metrics.log import read_evaluations, read_metrics
from scripts.method_pages.curves import (
    Curve,
    method_digest,
    read_curves,
    with_run,
    write_curves,
)

SETTINGS = (
    "steps=12",
    "prompts_per_step=16",
    "learner.learning_rate=5e-4",
    "learner.warmup_steps=1",
    "evaluation.every_steps=0",
    "checkpoints.every_steps=0",
    "output.rollouts_per_step=16",
    "output.trackers=[]",
    "output.report=false",
)
OWN_SETTINGS = {
    # Without these a run of twelve steps would never reach the method's second kind of step.
    "score": ("phases.0.from_step=6",),
    "veripo": ("phases.0.from_step=4", "phases.0.num_steps=2", "phases.0.every_steps=5"),
    "agro": ("plugins.0.settings.warmup_steps=2",),
}
TRAIN_DEADLINE_S = 900
SILENT = ("output.", "checkpoints.", "plugins.1.settings.scorer")  # change no number of a run
SCORED_BY = "ws_grpo"  # needs a scorer, made from the rollouts of plain GRPO
DIGITS = 4


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0, or 1 when a recipe failed."""
    args = parse(sys.argv[1:] if argv is None else argv)
    stop_on_sigterm()
    known = list(method_files())
    unknown = [name for name in args.names if name not in known]
    if unknown:
        tell(f"no such method: {', '.join(unknown)}. Methods: {', '.join(known)}")
        return 2
    left = [
        (name, seed)
        for seed in range(args.seeds)
        for name in args.names or known
        if args.again or is_left(name, seed, args.out)
    ]
    if args.list:
        print("\n".join(f"{name}, seed {seed}" for name, seed in left) or "nothing is left")
        return 0
    failures = [name for name, seed in left if not recorded(name, seed, args.runs, args.out)]
    if failures:
        tell(f"{len(failures)} failed: {', '.join(failures)}; their logs are in {args.runs}")
    return 1 if failures else 0


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.method_curves",
        description="Train every method's recipe a few steps and keep its curve.",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="methods; none: all")
    parser.add_argument("--runs", type=Path, default=REPOSITORY / "runs" / "curves", metavar="DIR")
    parser.add_argument(
        "--out",
        type=Path,
        default=REPOSITORY / "docs" / "methods" / "curves.json",
        metavar="FILE",
        help="where the curves are kept",
    )
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="of each; default: 3")
    parser.add_argument("--again", action="store_true", help="also what is there already")
    parser.add_argument("--list", action="store_true", help="show what is left")
    return parser.parse_args(arguments)


def is_left(name: str, seed: int, file: Path) -> bool:
    """True where the recipe has no such run, or one of an earlier form of it."""
    digest = method_digest(load_recipe(f"methods/{name}"))
    known = read_curves(file).get(name, [])
    return not any(one.seed == seed and one.digest == digest for one in known)


def recorded(name: str, seed: int, runs: Path, out: Path) -> bool:
    """Train a recipe and keep its curve; False where that failed."""
    tell(f"{name}, seed {seed} ...")
    began = time.monotonic()
    try:
        settings = [*SETTINGS, *OWN_SETTINGS.get(name, ()), *scorer_settings(name, runs)]
        train(name, [*settings, f"seed={seed}"], runs)
        curve = curve_of(name, seed, settings, runs / name, time.monotonic() - began)
    except (CommandFailed, ConfigError) as error:
        tell(str(error))
        return False
    write_curves(out, with_run(read_curves(out), name, curve))
    tell(f"{name}: {curve.seconds:.0f} s, {curve.accuracy[0]:.1%} -> {curve.accuracy[-1]:.1%}")
    return True


def train(name: str, settings: Sequence[str], runs: Path) -> None:
    """Raises CommandFailed."""
    run_command(
        [
            *(sys.executable, "-m", "mgrpo", "train", f"methods/{name}", *settings),
            *(f"output.runs_dir={runs}", "--run", name, "--overwrite"),
        ],
        log=runs / f"{name}.log",
        deadline_s=TRAIN_DEADLINE_S,
    )


def scorer_settings(name: str, runs: Path) -> list[str]:
    """A preference model for the method that needs one, made by its command."""
    if name != SCORED_BY:
        return []
    if not (runs / "grpo" / "rollouts").is_dir():
        train("grpo", SETTINGS, runs)
    scorer = runs / "scorer"
    if not (scorer / "config.json").is_file():
        run_command(
            [
                *(sys.executable, "-m", "mgrpo", "scorer", "train"),
                *("--rollouts", str(runs / "grpo"), "--model", "default"),
                *("--output", str(scorer), "--epochs", "2"),
            ],
            log=runs / "scorer.log",
            deadline_s=TRAIN_DEADLINE_S,
        )
    return [f"plugins.1.settings.scorer={scorer}"]


def curve_of(name: str, seed: int, settings: Sequence[str], run_dir: Path, seconds: float) -> Curve:
    """What a finished run measured."""
    rows = read_metrics(run_dir)
    accuracies = [row["acc"] for row in read_evaluations(run_dir)]
    facts = machine()
    return Curve(
        seed=seed,
        settings=[one for one in settings if not one.startswith(SILENT)],
        digest=method_digest(load_recipe(f"methods/{name}")),
        reward=[rounded(row.get("layer1/reward_mean")) for row in rows],
        grad_norm=[rounded(row.get("learner/grad_norm")) for row in rows],
        accuracy=[float(accuracy[0]) for accuracy in accuracies],
        final_accuracy=[float(accuracy[-1]) for accuracy in accuracies],
        step_s=rounded(sum(row["seconds/step"] for row in rows) / len(rows)) or 0.0,
        seconds=round(seconds, 1),
        commit=facts["commit"],
        cpu=f"{facts['cpu']}, {facts['cores']} cores",
    )


def rounded(value: float | None) -> float | None:
    """A number of few digits; a step that did not train that layer has none."""
    return None if value is None else round(float(value), DIGITS)


def tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
