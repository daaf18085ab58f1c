"""How much faster corrections are where they are drafted from the attempt in their prompt.

    python -m benchmarks.speculation                 # trains the quickstart, then 12 steps
    python -m benchmarks.speculation --policy DIR    # corrections of a policy that is there
    python -m benchmarks.speculation --quick         # 8 steps of training, 4 steps
    python -m benchmarks.speculation --write         # docs/benchmarks/speculation.md and .json

The quickstart's layer 2, sampled without and with `layers.correct.speculation` by two pools of
engines, in turn: the same corrections of the same attempts, which is checked. Engines have one
thread each, and a pool has as many as there are cores. An engine's batch decides what a drafted
token costs, so this is done for several `engines.max_num_seqs`. The last line of the output is one
JSON object.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import operator
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, astuple, dataclass
from pathlib import Path

import psutil

from benchmarks.commands import CommandFailed, run_command, stop_on_sigterm
from benchmarks.machine import Result, machine
from benchmarks.measured_page import write_measured
from mgrpo.config import RunConfig
from mgrpo.config.load import load_recipe
from mgrpo.training.system import System, start_system

PAGE = Path(__file__).resolve().parent.parent / "docs" / "benchmarks" / "speculation.md"
RECIPE = "quickstart"
NUM_ENGINES = os.cpu_count() or 1
"""Of each pool."""
WORK = (
    "layers.correct.guidance.draw=schedule",  # the same phrases for both pools
    "engines.num_threads=1",
    "cluster.address=local",
    "cluster.device=cpu",
)
PLAIN, DRAFTING = 2, 3
"""The layers that correct the attempts of the first."""
TRAINING = ("evaluation.every_steps=0", "data.heldout=null", "output.report=false")
DEADLINE_S = 1800


@dataclass(frozen=True, slots=True)
class Sampled:
    """The corrections of a step."""

    seconds: float
    cpu_seconds: float  # of the engines
    tokens: int
    drafted: int
    accepted: int

    def __add__(self, other: Sampled) -> Sampled:
        return Sampled(*(one + two for one, two in zip(astuple(self), astuple(other), strict=True)))

    @property
    def decode_steps(self) -> int:
        """Summed over completions."""
        return self.tokens - self.accepted


def main() -> int:
    args = parse()
    stop_on_sigterm()
    with tempfile.TemporaryDirectory(prefix="mgrpo-speculation-") as folder:
        policy = args.policy or trained_policy(Path(folder), args.train_steps)
        result = measured(args, policy, Path(folder))
    if args.write:
        PAGE.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        write_measured(PAGE, "\n".join(page_lines(result)), title="Drafted corrections")
    print(json.dumps(result))
    return 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Time corrections with and without drafts.")
    parser.add_argument("--policy", type=Path, help="a trained policy; default: train one")
    parser.add_argument("--steps", type=int, default=12, help="timed, after one of warm-up")
    parser.add_argument("--batches", type=int, nargs="+", default=[256, 64, 16, 4])
    parser.add_argument("--max-draft-tokens", type=int, default=8)
    parser.add_argument("--match-tokens", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="few steps, two batches")
    parser.add_argument("--write", action="store_true", help=f"update {PAGE.name} and its .json")
    args = parser.parse_args()
    args.train_steps = 40
    if args.quick:
        args.steps, args.batches, args.train_steps = 4, [256, 16], 8
    if args.steps < 1 or min(args.batches) < 1:
        parser.error("needs at least one step, and batches of at least one sequence")
    return args


def trained_policy(folder: Path, steps: int) -> Path:
    """The policy of a quickstart that is trained here."""
    command = [sys.executable, "-m", "mgrpo", "train", RECIPE, "--run", "trained"]
    overrides = [*TRAINING, f"steps={steps}", f"output.runs_dir={folder}"]
    run_command([*command, *overrides], log=folder / "train.log", deadline_s=DEADLINE_S)
    return folder / "trained" / "policy"


def measured(args: argparse.Namespace, policy: Path, logs: Path) -> Result:
    """Every batch size, with and without drafts in each step."""
    drafts = {"max_draft_tokens": args.max_draft_tokens, "match_tokens": args.match_tokens}
    batches = {}
    for batch in args.batches:
        config = recipe([f"model.path={policy}", f"engines.max_num_seqs={batch}"], drafts)
        with start_system(config, logs_to=logs, with_learner=False, note=silent) as system:
            steps = [in_turn(system, step) for step in range(args.steps + 1)]
        batches[str(batch)] = summary(steps[1:])
    return {
        "benchmark": "speculation",
        "speculation": drafts,
        "batches": batches,
        "command": " ".join(["python -m benchmarks.speculation", *sys.argv[1:]]),
        "date": time.strftime("%Y-%m-%d"),
        **machine(),
    }


def recipe(overrides: Sequence[str], drafts: dict[str, int]) -> RunConfig:
    """The quickstart with its layer that corrects twice: without drafts and with."""
    tree = load_recipe(RECIPE, [*WORK, *overrides]).model_dump(mode="json")
    solve, correct = tree["layers"]
    plain = {**correct, "num_engines": NUM_ENGINES}
    drafting = {**plain, "name": "draft", "speculation": drafts}
    return RunConfig.model_validate({**tree, "layers": [solve, plain, drafting]})


def in_turn(system: System, step: int) -> dict[int, Sampled]:
    """A step's corrections by both pools, the other one first in every other step.

    Raises:
        SystemExit: they are not the same.
    """
    size = system.config.prompts_per_step
    problems = system.problems[step * size : (step + 1) * size]
    attempts = system.fleet.run(system.rollout.run(step, problems, last_layer=1))
    found, tokens = {}, {}
    for layer in (PLAIN, DRAFTING) if step % 2 else (DRAFTING, PLAIN):
        cpu_s = engine_cpu_s()
        corrections = system.fleet.run(
            system.rollout.run(
                step, problems, first_layer=layer, last_layer=layer, attempts=attempts
            )
        )
        clock = system.rollout.clocks[layer]
        counts = clock.kept_tokens, clock.num_drafted, clock.num_accepted
        found[layer] = Sampled(clock.seconds, engine_cpu_s() - cpu_s, *counts)
        tokens[layer] = [one.token_ids.tolist() for one in corrections]
    print(f"step {step}: {found[PLAIN]}, {found[DRAFTING]}", file=sys.stderr, flush=True)
    if tokens[PLAIN] != tokens[DRAFTING]:
        raise SystemExit(f"Step {step}: other corrections with drafts than without.")
    return found


def engine_cpu_s() -> float:
    """Processor seconds that the engines' processes have taken so far."""
    total = 0.0
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if "EngineCore" in " ".join([process.name(), *process.cmdline()]):
                total += sum(process.cpu_times()[:2])
    return total


def silent(_: str) -> None:
    """No notes."""


def summary(steps: Sequence[dict[int, Sampled]]) -> Result:
    """Of one batch size: seconds of a step, their ratio, and what a decode step yields."""
    plain, drafting = (
        functools.reduce(operator.add, (found[layer] for found in steps))
        for layer in (PLAIN, DRAFTING)
    )
    result: Result = {
        "tokens_per_decode_step": drafting.tokens / drafting.decode_steps,
        "drafted_per_decode_step": drafting.drafted / drafting.decode_steps,
        "draft_acceptance": drafting.accepted / max(1, drafting.drafted),
        "decode_step_cost": (drafting.cpu_seconds / drafting.decode_steps)
        / (plain.cpu_seconds / plain.decode_steps),
        "steps": [
            {"without": asdict(found[PLAIN]), "with": asdict(found[DRAFTING])} for found in steps
        ],
    }
    for unit in ("seconds", "cpu_seconds"):
        pairs = [(getattr(one[PLAIN], unit), getattr(one[DRAFTING], unit)) for one in steps]
        ratios = sorted(without / with_drafts for without, with_drafts in pairs)
        result[unit] = {
            "without": statistics.median(without for without, _ in pairs),
            "with": statistics.median(with_drafts for _, with_drafts in pairs),
            "speedup": statistics.median(ratios),
            "speedup_range": [ratios[0], ratios[-1]],
        }
    return result


def page_lines(result: Result) -> Iterator[str]:
    columns = (
        "Sequences an engine samples at a time",
        "Tokens a decode step",
        "Drafted a step, accepted",
        "A step costs",
        "Layer 2 without, with",
        "Times as fast (steps from, to)",
        "By processor seconds",
    )
    yield f"| {' | '.join(columns)} |"
    yield "|" + " ---: |" * len(columns)
    for batch, found in result["batches"].items():
        wall, cpu = found["seconds"], found["cpu_seconds"]
        yield (
            f"| {batch} | {found['tokens_per_decode_step']:.2f} | "
            f"{found['drafted_per_decode_step']:.2f}, {found['draft_acceptance']:.0%} | "
            f"{found['decode_step_cost']:.2f} | "
            f"{wall['without']:.2f} s, {wall['with']:.2f} s | {speedup_text(wall)} | "
            f"{speedup_text(cpu)} |"
        )
    yield ""
    yield (
        f"`{result['command']}`, {result['date']}, commit {result['commit']}, {result['cpu']}, "
        f"{result['cores']} cores, Python {result['python']}, "
        + ", ".join(f"{name} {version}" for name, version in result["packages"].items())
        + "."
    )


def speedup_text(found: Result) -> str:
    least, most = found["speedup_range"]
    return f"{found['speedup']:.2f} ({least:.2f}, {most:.2f})"


if __name__ == "__main__":
    try:
        sys.exit(main())
    except CommandFailed as failure:
        sys.exit(str(failure))
