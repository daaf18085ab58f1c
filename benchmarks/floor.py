"""How far a whole step is from its floor: the arithmetic alone, at the machine's matrix rate.

    python -m benchmarks.floor                # 3 rounds, some five minutes
    python -m benchmarks.floor --quick        # one round
    python -m benchmarks.floor --write        # docs/benchmarks/floor.md and .json

The floor counts each distinct token of a step (a shared prefix once) through the model's matrices
and its attention: once to sample it, and three times to train on it (forward, and backward for
inputs and for weights), by the multiplications and additions that cannot be left out. Divided by
the rate of a float32 matrix product on all cores, measured before and after each run, it is the
time that no program goes below without fewer operations. The steps are those of
`benchmarks.step_time` and `benchmarks.mgrpo_step_time`, ours alone. The last line of the output is
one JSON object.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean, median

from benchmarks.commands import CommandFailed, run_command, stop_on_sigterm
from benchmarks.machine import REPOSITORY, Result, machine, origin_lines
from benchmarks.measured_page import publish
from benchmarks.step_time import parse_rounds, run_ours
from benchmarks.step_time_page import spread
from benchmarks.workload import PROFILES, Profile, byte_tokenizer, write_workload

PAGE = REPOSITORY / "docs" / "benchmarks" / "floor.md"
TITLE = "A step against its arithmetic"
WORKS = ("default3m", "mgrpo_review")
PASSES = 4
"""Sampled once, trained in a forward and two backward products."""
MATRIX_TOKENS = 2048
RATE_S = 2.0  # of each measurement of the machine's rate
RATE = """
import os, sys, time, torch
torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
tokens, hidden, wide = (int(argument) for argument in sys.argv[1:4])
seconds = float(sys.argv[4])
left, right = torch.randn(tokens, hidden), torch.randn(hidden, wide)
out = torch.empty(tokens, wide)
best, end = float("inf"), time.perf_counter() + seconds
while time.perf_counter() < end:
    began = time.perf_counter()
    torch.mm(left, right, out=out)
    best = min(best, time.perf_counter() - began)
print(2 * tokens * hidden * wide / best)
"""


def main() -> int:
    parser = argparse.ArgumentParser(description="Compare whole steps with their arithmetic.")
    args = parse_rounds(parser, PAGE)
    stop_on_sigterm()
    works = {name: measure(PROFILES[name], rounds=args.rounds, steps=args.steps) for name in WORKS}
    result = {
        "benchmark": "floor",
        "step_over_floor": {name: found["step_over_floor"] for name, found in works.items()},
        "works": works,
        "command": " ".join(["python -m benchmarks.floor", *sys.argv[1:]]),
        "date": time.strftime("%Y-%m-%d"),
        **machine(),
    }
    text = "\n".join(page_lines(result))
    publish(result, text, PAGE if args.write else None, title=TITLE)
    return 0


def measure(profile: Profile, *, rounds: int, steps: int) -> Result:
    """Rounds of one work: its steps, the machine's rate, and the ratio to the floor."""
    found: list[Result] = []
    with tempfile.TemporaryDirectory(prefix="mgrpo-floor-") as folder:
        write_workload(profile, steps, Path(folder))
        for number in range(rounds):
            before = matrix_rate(profile, Path(folder))
            run = run_ours(Path(folder), profile)
            rate = max(before, matrix_rate(profile, Path(folder)))
            context = mean_context(profile, run.prompt_tokens)
            flops = PASSES * forward_flops(profile, run.input_tokens, context)
            found.append(
                {
                    "seconds": run.steps.seconds,
                    "sampling_s": fmean(run.steps.phases["rollout"]),
                    "update_s": fmean(run.steps.phases["update"]),
                    "flops": flops,
                    "rate": rate,
                    "floor_s": flops / rate,
                    "input_tokens": run.input_tokens,
                    "step_over_floor": median(run.steps.seconds) * rate / flops,
                }
            )
            print(f"round {number} {profile.words}: {found[-1]}", file=sys.stderr, flush=True)
    return {
        "words": profile.words,
        "step_over_floor": median(one["step_over_floor"] for one in found),
        "rounds": found,
    }


def matrix_rate(profile: Profile, folder: Path) -> float:
    """Operations a second of the best float32 product of the model's own size, on all cores."""
    cores = str(os.cpu_count() or 1)
    sizes = [MATRIX_TOKENS, profile.hidden_size, profile.intermediate_size]
    command = [sys.executable, "-c", RATE, *map(str, sizes), str(RATE_S)]
    environment = {"OMP_NUM_THREADS": cores}
    said = run_command(command, log=folder / "rate.log", deadline_s=120, environment=environment)
    return float(said.split()[-1])


def forward_flops(profile: Profile, tokens: float, context: float) -> float:
    """Operations of one forward pass over `tokens` distinct tokens.

    Two for each weight of a matrix; in attention, two products with each token that is read.

    Args:
        tokens: distinct tokens of a step.
        context: tokens that each of them reads, itself included, on average.
    """
    hidden, layers = profile.hidden_size, profile.num_layers
    weights = layers * (4 * hidden**2 + 3 * hidden * profile.intermediate_size)
    weights += hidden * len(byte_tokenizer())
    return tokens * (2 * weights + layers * 4 * hidden * context)


def mean_context(profile: Profile, prompt_tokens: Sequence[float]) -> float:
    """Tokens that a sampled token reads, itself included, on average; by layer the same length."""
    completions = [1, profile.num_corrections][: len(prompt_tokens)]
    total = sum(count * length for count, length in zip(completions, prompt_tokens, strict=True))
    return total / sum(completions) + (profile.completion_tokens + 1) / 2


def page_lines(result: Result) -> Iterator[str]:
    yield "Steps of [step_time](step_time.md) and [mgrpo_step_time](mgrpo_step_time.md), ours, in"
    yield "float32: the time of the arithmetic on distinct tokens alone, at the rate of a matrix"
    yield "product on all cores, and the whole step."
    yield ""
    columns = ("Distinct tokens", "Matrix rate, GFLOP/s", "Floor, s", "Step, s", "Step / floor")
    yield f"| Work | {' | '.join(columns)} (each round) |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: |"
    for work in result["works"].values():
        rounds = work["rounds"]
        ratios = ", ".join(f"{one['step_over_floor']:.2f}" for one in rounds)
        seconds = [value for one in rounds for value in one["seconds"]]
        yield (
            f"| {work['words']} | {middle(rounds, 'input_tokens'):,.0f} "
            f"| {middle(rounds, 'rate') / 1e9:.0f} | {middle(rounds, 'floor_s'):.2f} "
            f"| {spread(seconds)} | {work['step_over_floor']:.2f} ({ratios}) |"
        )
    yield ""
    for work in result["works"].values():
        yield (
            f"{work['words']}: sampling {middle(work['rounds'], 'sampling_s'):.2f} s, a quarter of "
            f"the floor being {middle(work['rounds'], 'floor_s') / PASSES:.2f} s; update "
            f"{middle(work['rounds'], 'update_s'):.2f} s, three quarters "
            f"{middle(work['rounds'], 'floor_s') * (PASSES - 1) / PASSES:.2f} s."
        )
        yield ""
    yield from origin_lines(result)


def middle(rounds: Sequence[Result], name: str) -> float:
    return median(one[name] for one in rounds)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except CommandFailed as failure:
        sys.exit(str(failure))
