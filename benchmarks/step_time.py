"""A step of plain GRPO: ours against TRL's, on the same work, side by side.

    python -m benchmarks.step_time --rounds 3 --steps 8 --write

Alternates the two (ours, TRL, ours, TRL, ...) so that a drift of the machine's speed meets both,
drops each run's first two steps as warm-up, and reports medians and the ratio of each round. A
step's seconds run from the end of one step to the end of the next, for both.
Ours is `mgrpo train` as it is: Ray actors, a vLLM engine, reward processes, the DeepSpeed
learner, and the verified broadcast after each update; nothing is switched off. TRL samples with
transformers, because its vLLM mode needs a GPU. TRL has a virtual environment of its own,
.venv-trl, which this command makes on first use.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # when run as a file

from benchmarks.commands import CommandFailed, run_command, stop_on_sigterm
from benchmarks.machine import REPOSITORY, machine
from benchmarks.step_time_page import Round, Steps, as_json, describe
from benchmarks.workload import PROFILES, Profile, write_workload
from mgrpo.metrics.log import read_metrics

TRL_ENVIRONMENT = REPOSITORY / ".venv-trl"
TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
PAGE = REPOSITORY / "docs" / "benchmarks" / "step_time.md"
NUM_WARM_UP = 2  # steps left out of each run
DEADLINE_S = 1800
ALL_CORES = {"OMP_NUM_THREADS": str(os.cpu_count() or 1)}
PHASES = ("rollout", "update", "weights")


def main() -> int:
    args = parse()
    stop_on_sigterm()  # so that no run is left behind
    profile = PROFILES[args.profile]
    make_trl_environment()
    facts = {
        "profile": args.profile,
        "command": " ".join(["python -m benchmarks.step_time", *sys.argv[1:]]),
        "date": time.strftime("%Y-%m-%d"),
        **machine(),
    }
    rounds = []
    with tempfile.TemporaryDirectory(prefix="mgrpo-bench-") as folder:
        write_workload(profile, args.steps, Path(folder))
        for number in range(args.rounds):
            ours = run_ours(Path(folder), profile)
            tell(number, "ours", ours)
            trl, facts["trl"] = run_trl(Path(folder), profile, args.steps)
            tell(number, "TRL", trl)
            rounds.append(Round(ours, trl))
    page = describe(profile, rounds, facts, num_warm_up=NUM_WARM_UP)
    print(page)
    if args.write:
        PAGE.parent.mkdir(parents=True, exist_ok=True)
        PAGE.write_text(page, encoding="utf-8")
        PAGE.with_suffix(".json").write_text(as_json(profile, rounds, facts), encoding="utf-8")
    return 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Time a GRPO step against TRL's.")
    parser.add_argument("--profile", choices=PROFILES, default="default3m")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument(
        "--write", action="store_true", help="update docs/benchmarks/step_time.md and .json"
    )
    args = parser.parse_args()
    if args.rounds < 1 or args.steps <= NUM_WARM_UP:
        parser.error(f"needs a round or more, and more than {NUM_WARM_UP} steps (warm-up)")
    return args


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


def run_ours(folder: Path, profile: Profile) -> Steps:
    """`mgrpo train` on the workload, read from its metrics.

    `wall_s` is noted once a step, so its differences also hold what comes after the loop's own
    "seconds/step": writing metrics and rollouts.
    """
    load = os.getloadavg()[0]
    command = ["train", str(folder / "recipe.yaml"), "--run", "ours", "--overwrite"]
    run([sys.executable, "-m", "mgrpo", *command], folder / "ours.log")
    rows = read_metrics(folder / "runs" / "ours")
    steady = rows[NUM_WARM_UP:]
    before = rows[NUM_WARM_UP - 1 : -1]
    check_tokens([row["tokens/generated"] for row in steady], profile)
    return Steps(
        seconds=[row["wall_s"] - last["wall_s"] for row, last in zip(steady, before, strict=True)],
        phases={phase: [row[f"seconds/{phase}"] for row in steady] for phase in PHASES},
        load_before=load,
    )


def run_trl(folder: Path, profile: Profile, steps: int) -> tuple[Steps, dict[str, Any]]:
    """TRL's trainer on the workload, in its own environment; also its versions and settings."""
    load = os.getloadavg()[0]
    output = folder / "trl.jsonl"
    script = str(REPOSITORY / "benchmarks" / "trl_baseline.py")
    python = str(TRL_ENVIRONMENT / "bin" / "python")
    command = [python, script, str(folder), "--steps", str(steps), "--output", str(output)]
    run(command, folder / "trl.log")
    settings, *rows = [json.loads(line) for line in output.read_text("utf-8").splitlines()]
    steady = [row for row in rows if row["step"] >= NUM_WARM_UP]
    check_tokens([row["completion_tokens"] for row in steady], profile)
    measured = Steps(
        seconds=[row["seconds"] for row in steady],
        phases={"sampling": [row["sampling_seconds"] for row in steady]},
        load_before=load,
    )
    return measured, settings


def check_tokens(tokens: list[float], profile: Profile) -> None:
    """Both must have done the work that they are timed for."""
    if any(count != profile.tokens_per_step for count in tokens):
        raise SystemExit(f"expected {profile.tokens_per_step} tokens in each step, got {tokens}")


def tell(number: int, system: str, steps: Steps) -> None:
    seconds = " ".join(f"{value:.2f}" for value in steps.seconds)
    print(f"round {number} {system}: {seconds} s a step", file=sys.stderr, flush=True)


def run(command: list[str], log: Path) -> None:
    """Run a command with every core to itself. Raises CommandFailed."""
    run_command(command, log=log, deadline_s=DEADLINE_S, environment=ALL_CORES)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except CommandFailed as failure:
        sys.exit(str(failure))
