"""A step of plain GRPO: ours against TRL's, on the same work, side by side.

    python -m benchmarks.step_time --rounds 3 --steps 8 --write

Alternates the two (ours, TRL, ours, TRL, ...) so that a drift of the machine's speed meets both,
drops each run's first two steps as warm-up, and reports medians and the ratio of each round.
Ours is `mgrpo train` as it is: Ray actors, a vLLM engine, reward processes, the DeepSpeed
learner, and the verified broadcast after each update; nothing is switched off. TRL samples with
transformers, because its vLLM mode needs a GPU. TRL has a virtual environment of its own,
.venv-trl, which this command makes on first use.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.workload import PROFILES, Profile, write_workload

REPOSITORY = Path(__file__).resolve().parent.parent
TRL_ENVIRONMENT = REPOSITORY / ".venv-trl"
PAGE = REPOSITORY / "docs" / "benchmarks" / "step_time.md"
NUM_WARM_UP = 2  # steps left out of each run
DEADLINE_S = 1800


@dataclass(frozen=True)
class Round:
    """Both systems once: seconds of each steady step."""

    ours: list[float]
    trl: list[float]
    phases: dict[str, float]  # median seconds of ours, by phase

    @property
    def ratio(self) -> float:
        """Our median step over TRL's: below 1, ours is faster."""
        return statistics.median(self.ours) / statistics.median(self.trl)


def main() -> int:
    args = parse()
    profile = PROFILES[args.profile]
    make_trl_environment()
    with tempfile.TemporaryDirectory(prefix="mgrpo-bench-") as folder:
        write_workload(profile, args.steps, Path(folder))
        rounds = []
        for number in range(args.rounds):
            ours, phases = run_ours(Path(folder), profile)
            trl, versions = run_trl(Path(folder), profile, args.steps)
            rounds.append(Round(ours, trl, phases))
            print(f"round {number}: ratio {rounds[-1].ratio:.2f}", file=sys.stderr)
    page = describe(profile, rounds, versions, args)
    print(page)
    if args.write:
        PAGE.parent.mkdir(parents=True, exist_ok=True)
        PAGE.write_text(page, encoding="utf-8")
    return 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Time a GRPO step against TRL's.")
    parser.add_argument("--profile", choices=PROFILES, default="default3m")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--write", action="store_true", help="update docs/benchmarks/step_time.md")
    return parser.parse_args()


def make_trl_environment() -> None:
    """Install TRL's exact versions once."""
    done = TRL_ENVIRONMENT / "complete"
    requirements = REPOSITORY / "benchmarks" / "requirements-trl.txt"
    if done.is_file() and done.read_text(encoding="utf-8") == requirements.read_text("utf-8"):
        return
    print("installing TRL into .venv-trl, some minutes", file=sys.stderr)
    run([sys.executable, "-m", "venv", str(TRL_ENVIRONMENT)])
    pip = str(TRL_ENVIRONMENT / "bin" / "pip")
    run([pip, "install", "--quiet", "--requirement", str(requirements)])
    done.write_text(requirements.read_text(encoding="utf-8"), encoding="utf-8")


def run_ours(folder: Path, profile: Profile) -> tuple[list[float], dict[str, float]]:
    """`mgrpo train` on the workload; a step's seconds are the loop's own."""
    command = ["train", str(folder / "recipe.yaml"), "--run", "ours", "--overwrite"]
    run([sys.executable, "-m", "mgrpo", *command])
    text = (folder / "runs" / "ours" / "metrics.jsonl").read_text(encoding="utf-8")
    steps = [json.loads(line) for line in text.splitlines()][NUM_WARM_UP:]
    check_tokens([step["tokens/generated"] for step in steps], profile)
    phases = {
        phase: statistics.median(step[f"seconds/{phase}"] for step in steps)
        for phase in ("rollout", "update", "weights")
    }
    return [step["seconds/step"] for step in steps], phases


def run_trl(folder: Path, profile: Profile, steps: int) -> tuple[list[float], dict[str, Any]]:
    """TRL's trainer on the workload, in its own environment."""
    output = folder / "trl.jsonl"
    script = str(REPOSITORY / "benchmarks" / "trl_baseline.py")
    python = str(TRL_ENVIRONMENT / "bin" / "python")
    run([python, script, str(folder), "--steps", str(steps), "--output", str(output)])
    first, *rows = [json.loads(line) for line in output.read_text("utf-8").splitlines()]
    steady = [row for row in rows if row["step"] >= NUM_WARM_UP]
    check_tokens([row["completion_tokens"] for row in steady], profile)
    return [row["seconds"] for row in steady], first


def check_tokens(tokens: list[float], profile: Profile) -> None:
    """Both must have done the work that they are timed for."""
    if any(count != profile.tokens_per_step for count in tokens):
        raise SystemExit(f"expected {profile.tokens_per_step} tokens in each step, got {tokens}")


def run(command: list[str]) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": str(os.cpu_count() or 1)}
    done = subprocess.run(
        command,
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")


def describe(
    profile: Profile, rounds: list[Round], versions: dict[str, Any], args: argparse.Namespace
) -> str:
    """The page: a row per round, then what was run on what."""
    ours = [seconds for one in rounds for seconds in one.ours]
    trl = [seconds for one in rounds for seconds in one.trl]
    phases = {name: statistics.median(r.phases[name] for r in rounds) for name in rounds[0].phases}
    rows = [
        f"| {number} | {spread(one.ours)} | {spread(one.trl)} | {one.ratio:.2f} |"
        for number, one in enumerate(rounds)
    ]
    overall = statistics.median(ours) / statistics.median(trl)
    revision = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=10,
        check=False,
    ).stdout.strip()
    packages = ", ".join(f"{name} {version}" for name, version in versions["versions"].items())
    phase_text = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in phases.items())
    tokens = profile.tokens_per_step
    return "\n".join(
        [
            "# Step time: plain GRPO against TRL",
            "",
            f"One update on {profile.num_prompts} prompts x {profile.group_size} completions x "
            f"{profile.completion_tokens} tokens ({tokens:,} sampled tokens), float32, a Llama of "
            f"{profile.num_layers} layers and hidden size {profile.hidden_size} with random "
            "weights, no KL. Seconds per step: median (lowest to highest) of the steps after "
            f"the first {NUM_WARM_UP}.",
            "",
            "| Round | ours | TRL | ours / TRL |",
            "| --- | ---: | ---: | ---: |",
            *rows,
            f"| all | {spread(ours)} | {spread(trl)} | {overall:.2f} |",
            "",
            f"Ours by phase, medians: {phase_text}. Sampled tokens per second of step: ours "
            f"{tokens / statistics.median(ours):,.0f}, TRL {tokens / statistics.median(trl):,.0f}.",
            "",
            "Ours is `mgrpo train` with everything on: Ray actors, a vLLM engine, reward "
            "processes, DeepSpeed, checksums and a probe after each broadcast. TRL samples with "
            "transformers; its vLLM mode needs a GPU. Both have all cores; TRL has the batch size "
            f"that was fastest ({versions['batch_size']} completions per forward and backward).",
            "",
            f"Command: `python -m benchmarks.step_time --profile {args.profile} --rounds "
            f"{args.rounds} --steps {args.steps} --write`. Measured {time.strftime('%Y-%m-%d')} at "
            f"{revision} on {os.cpu_count()} shared CPU cores ({platform.machine()}), without a "
            f"GPU; {packages}.",
            "",
        ]
    )


def spread(seconds: list[float]) -> str:
    return f"{statistics.median(seconds):.2f} ({min(seconds):.2f} to {max(seconds):.2f})"


if __name__ == "__main__":
    sys.exit(main())
