"""How long is a training step of ours, and of TRL's GRPOTrainer, on the same work?

    make bench                    print the comparison
    make bench ARGS=--write       also write docs/benchmarks/step_time.md and .json

The two systems take turns (ours, TRL, ours, TRL, ...), each time in a fresh process, so that a
machine that gets slower does so for both. benchmarks/README.md says what is compared and how.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # when run as a file

from benchmarks.machine import machine
from benchmarks.measurement import WARM_UP_STEPS, Measurement
from benchmarks.processes import ROOT, ProcessFailed, check_work, measure_ours, measure_trl
from benchmarks.step_time_report import as_json, as_markdown
from benchmarks.workload import PROFILES, Profile, write_workload

WORKLOAD = ROOT / "runs" / "step-time-benchmark"
RESULTS = ROOT / "docs" / "benchmarks"
INSTALL_DEADLINE_S = 3600


def main() -> int:
    args = parse()
    profile = PROFILES[args.profile]
    try:
        subprocess.run(
            [str(ROOT / "benchmarks" / "setup_trl.sh")], check=True, timeout=INSTALL_DEADLINE_S
        )
        shutil.rmtree(WORKLOAD, ignore_errors=True)
        (WORKLOAD / "model").mkdir(parents=True)
        write_workload(profile, args.steps, WORKLOAD)
        facts: dict[str, Any] = {
            "profile": args.profile,
            "workload": asdict(profile),
            "command": "make bench " + f'ARGS="{" ".join(sys.argv[1:])}"' * bool(sys.argv[1:]),
            "date": time.strftime("%Y-%m-%d %H:%M %Z"),
            **machine(),
        }
        measurements, facts["trl"] = measure(profile, args)
    except (ProcessFailed, subprocess.SubprocessError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    markdown = as_markdown(measurements, facts)
    print(markdown)
    if args.write:
        RESULTS.mkdir(parents=True, exist_ok=True)
        (RESULTS / "step_time.md").write_text(markdown, encoding="utf-8")
        (RESULTS / "step_time.json").write_text(as_json(measurements, facts), encoding="utf-8")
        print(f"written to {RESULTS}", file=sys.stderr)
    return 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Compare a training step with TRL's.")
    parser.add_argument("--profile", choices=sorted(PROFILES), default="default3m")
    parser.add_argument("--rounds", type=int, default=3, help="processes of each system")
    parser.add_argument("--steps", type=int, default=8, help="steps of each process")
    parser.add_argument("--deadline-s", type=float, default=1800, help="for one process")
    parser.add_argument("--write", action="store_true", help=f"write to {RESULTS.name}/")
    args = parser.parse_args()
    if args.rounds < 1 or args.steps <= WARM_UP_STEPS:
        parser.error(f"needs 1 round or more, and more than {WARM_UP_STEPS} steps (warm-up)")
    return args


def measure(profile: Profile, args: argparse.Namespace) -> tuple[list[Measurement], dict[str, Any]]:
    """All rounds of both systems, and TRL's versions and settings."""
    measurements: list[Measurement] = []
    trl_facts: dict[str, Any] = {}
    for number in range(1, args.rounds + 1):
        ours = measure_ours(WORKLOAD, round_number=number, deadline_s=args.deadline_s)
        tell(ours)
        trl, trl_facts = measure_trl(
            WORKLOAD, steps=args.steps, round_number=number, deadline_s=args.deadline_s
        )
        tell(trl)
        for run in (ours, trl):
            check_work(run, steps=args.steps, tokens_per_step=profile.tokens_per_step)
        measurements += [ours, trl]
    return measurements, trl_facts


def tell(run: Measurement) -> None:
    steps = " ".join(f"{seconds:.2f}" for seconds in run.step_seconds)
    print(
        f"round {run.round} {run.system:<4} {steps} s (load before: {run.load_before:.1f})",
        file=sys.stderr,
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
