"""A step of ours against TRL's, on the same work, side by side: plain GRPO.

    python -m benchmarks.step_time --rounds 3 --steps 8 --write
    python -m benchmarks.step_time --quick

Alternates the two (ours, TRL, ours, TRL, ...) so that a drift of the machine's speed meets both,
drops each run's first two steps as warm-up, and reports medians and the ratio of each round. A
step's seconds run from the end of one step to the end of the next, for both.
Ours is `mgrpo train` as it is: Ray actors, a vLLM engine, reward processes, the DeepSpeed
learner, and the verified broadcast after each update; nothing is switched off. TRL samples with
transformers, because its vLLM mode needs a GPU. TRL has a virtual environment of its own,
.venv-trl, which this command makes on first use. The last line of the output is one JSON object.

benchmarks/mgrpo_step_time.py has the work of two layers: TRL, which has one, does attempts and
corrections by two trainers, whose steps count together.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # when run as a file

from benchmarks.commands import CommandFailed, run_command, stop_on_sigterm
from benchmarks.machine import REPOSITORY, Result, machine
from benchmarks.measured_page import publish
from benchmarks.step_time_page import Round, Steps, Work, describe, result_of
from benchmarks.workload import PROFILES, Profile, write_corrections, write_workload
from mgrpo.metrics.log import read_metrics

TRL_ENVIRONMENT = REPOSITORY / ".venv-trl"
TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
NUM_WARM_UP = 2  # steps left out of each run
DEADLINE_S = 1800
ALL_CORES = {"OMP_NUM_THREADS": str(os.cpu_count() or 1)}
PHASES = ("rollout", "update", "weights")
LENGTHS_AGREE = 0.15
"""Where lengths vary, the two systems' mean lengths may differ by this share."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One of the commands that compare with TRL."""

    name: str
    title: str
    profiles: tuple[str, ...]

    @property
    def page(self) -> Path:
        return REPOSITORY / "docs" / "benchmarks" / f"{self.name}.md"


PLAIN = Comparison(
    name="step_time",
    title="Step time: plain GRPO against TRL",
    profiles=("default3m", "varying3m"),
)


def main(comparison: Comparison = PLAIN) -> int:
    args = parse(comparison)
    stop_on_sigterm()  # so that no run is left behind
    make_trl_environment()
    facts = {
        "command": " ".join([f"python -m benchmarks.{comparison.name}", *sys.argv[1:]]),
        "date": time.strftime("%Y-%m-%d"),
        **machine(),
    }
    works = []
    for name in args.profile:
        profile = replace(PROFILES[name], dtype=args.dtype)
        rounds, facts["trl"] = compare(profile, rounds=args.rounds, steps=args.steps)
        works.append(Work(name, profile, rounds))
    result = result_of(comparison.name, works, facts)
    text = describe(works, facts, num_warm_up=NUM_WARM_UP)
    page = comparison.page if args.write else None
    part = "" if args.dtype == "float32" else args.dtype
    publish(result, text, page, title=comparison.title, part=part)
    return 0


def parse(comparison: Comparison) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Time a step against TRL's.")
    parser.add_argument(
        "--profile", nargs="+", choices=PROFILES, default=list(comparison.profiles), metavar="NAME"
    )
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16"),
        default="float32",
        help="that both train in; the weights stay in float32",
    )
    return parse_rounds(parser, comparison.page)


def parse_rounds(parser: argparse.ArgumentParser, page: Path) -> argparse.Namespace:
    """The arguments, with those that say how much is measured and whether it is written."""
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--quick", action="store_true", help="one round of 5 steps")
    parser.add_argument("--write", action="store_true", help=f"update {page.name} and its .json")
    args = parser.parse_args()
    if args.quick:
        args.rounds, args.steps = 1, 5
    if args.rounds < 1 or args.steps <= NUM_WARM_UP:
        parser.error(f"needs a round or more, and more than {NUM_WARM_UP} steps (warm-up)")
    return args


def compare(profile: Profile, *, rounds: int, steps: int) -> tuple[list[Round], Result]:
    """Both systems in turn on one work; also TRL's versions and settings."""
    found: list[Round] = []
    trl_facts: Result = {}
    with tempfile.TemporaryDirectory(prefix="mgrpo-bench-") as folder:
        write_workload(profile, steps, Path(folder))
        for number in range(rounds):
            ours = run_ours(Path(folder), profile)
            tell(number, "ours", ours.steps)
            trl, trl_facts = run_trl(Path(folder), steps)
            if profile.num_corrections:
                length = round(ours.prompt_tokens[-1])
                trl += run_trl(write_corrections(profile, length, Path(folder)), steps)[0]
            tell(number, "TRL", trl)
            check_tokens(ours.steps, trl, profile)
            found.append(Round(ours.steps, trl))
    return found, trl_facts


def make_trl_environment() -> None:
    """Install TRL's exact versions once."""
    done = TRL_ENVIRONMENT / "complete"
    requirements = REPOSITORY / "benchmarks" / "requirements-trl.txt"
    if done.is_file() and done.read_text(encoding="utf-8") == requirements.read_text("utf-8"):
        return
    print("installing TRL into .venv-trl, some minutes", file=sys.stderr)
    log = Path(tempfile.gettempdir()) / "mgrpo-install-trl.log"
    run([sys.executable, "-m", "venv", "--clear", str(TRL_ENVIRONMENT)], log)
    install = [str(TRL_ENVIRONMENT / "bin" / "pip"), "install", "--quiet", "-r", str(requirements)]
    try:  # where pip is configured with an index that has torch's CPU builds, that one is right
        run(install, log)
    except CommandFailed:
        run([*install, "--extra-index-url", TORCH_CPU_INDEX], log)
    done.write_text(requirements.read_text(encoding="utf-8"), encoding="utf-8")


@dataclass(frozen=True, slots=True, kw_only=True)
class OurRun:
    """What `mgrpo train` did, of its steady steps."""

    steps: Steps
    prompt_tokens: list[float]  # mean length of a prompt, by layer
    input_tokens: float  # that the learner computed: a prefix that completions share once


def run_ours(folder: Path, profile: Profile) -> OurRun:
    """`mgrpo train` on the workload, read from its metrics.

    `wall_s` is noted once a step, so its differences also hold what comes after the loop's own
    "seconds/step": writing metrics and rollouts.
    """
    load = os.getloadavg()[0]
    command = ["train", str(folder / "recipe.yaml"), "--run", "ours", "--overwrite"]
    run([sys.executable, "-m", "mgrpo", *command], folder / "ours.log")
    rows = read_metrics(folder / "runs" / "ours")
    steady, before = rows[NUM_WARM_UP:], rows[NUM_WARM_UP - 1 : -1]
    ends = zip(steady, before, strict=True)
    steps = Steps(
        seconds=[row["wall_s"] - last["wall_s"] for row, last in ends],
        tokens=[row["tokens/generated"] for row in steady],
        phases={phase: [row[f"seconds/{phase}"] for row in steady] for phase in PHASES},
        load_before=load,
    )
    layers = range(1, 3 if profile.num_corrections else 2)
    return OurRun(
        steps=steps,
        prompt_tokens=[
            fmean(row[f"layer{layer}/prompt_tokens_mean"] for row in steady) for layer in layers
        ],
        input_tokens=fmean(row["learner/input_tokens"] for row in steady),
    )


def run_trl(folder: Path, steps: int) -> tuple[Steps, Result]:
    """TRL's trainer on the workload, in its own environment; also its versions and settings."""
    load = os.getloadavg()[0]
    output = folder / "trl.jsonl"
    script = str(REPOSITORY / "benchmarks" / "trl_baseline.py")
    python = str(TRL_ENVIRONMENT / "bin" / "python")
    command = [python, script, str(folder), "--steps", str(steps), "--output", str(output)]
    run(command, folder / "trl.log")
    settings, *rows = [json.loads(line) for line in output.read_text("utf-8").splitlines()]
    steady = [row for row in rows if row["step"] >= NUM_WARM_UP]
    measured = Steps(
        seconds=[row["seconds"] for row in steady],
        tokens=[row["completion_tokens"] for row in steady],
        phases={"sampling": [row["sampling_seconds"] for row in steady]},
        load_before=load,
    )
    return measured, settings


def check_tokens(ours: Steps, trl: Steps, profile: Profile) -> None:
    """Both must have done the work that they are timed for."""
    exact = profile.tokens_per_step
    if exact is None:
        ratio = fmean(ours.tokens) / fmean(trl.tokens)
        if abs(ratio - 1) > LENGTHS_AGREE:
            raise SystemExit(f"ours sampled {ratio:.2f} times as many tokens as TRL")
    elif any(count != exact for count in [*ours.tokens, *trl.tokens]):
        raise SystemExit(f"expected {exact} tokens in each step, got {ours.tokens}, {trl.tokens}")


def tell(number: int, system: str, steps: Steps) -> None:
    seconds = " ".join(f"{value:.2f}" for value in steps.seconds)
    print(f"round {number} {system}: {seconds} s a step", file=sys.stderr, flush=True)


def run(command: Sequence[str], log: Path) -> None:
    """Run a command with every core to itself. Raises CommandFailed."""
    run_command(command, log=log, deadline_s=DEADLINE_S, environment=ALL_CORES)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except CommandFailed as failure:
        sys.exit(str(failure))
