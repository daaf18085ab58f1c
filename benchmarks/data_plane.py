"""How long a step takes from the driver's completions to the learner's rows, and what it holds.

    python -m benchmarks.data_plane                      # 128 x (16 + 64) x 2,000 tokens: 20 M
    python -m benchmarks.data_plane --quick              # a tenth of the problems, one round
    python -m benchmarks.data_plane --receivers 1 4 16
    python -m benchmarks.data_plane --write              # docs/benchmarks/data_plane.md and .json

Completions are synthetic and there is no model. The driver hands a step to 1, 4 and 16 processes by
the calls that the training loop makes, and each does what a learner rank does up to its first
forward pass: it takes the step, decides what trains, and lays out its own rows. Numbers are read at
three points, in order:

    handed over   every receiver holds the step (seconds since the driver began, and the driver's
                  own CPU seconds, which must not grow with the number of receivers)
    laid out      every receiver has its rows and micro-batches (seconds since handed over)
    peaks         GiB that each receiver, and the driver, held above what it held before

Memory is the resident set's peak, shared pages that a process has touched included. The last line
of the output is one JSON object.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray

from benchmarks.machine import REPOSITORY, machine, origin_lines
from benchmarks.machine import Result as Figures
from benchmarks.measured_page import publish
from benchmarks.memory import peak_resident_bytes, resident_bytes, restart_peak
from cluster.remote import RemoteActor, Result, share, wait_for
from cluster.runtime import ray_runtime
from learner.step_data import StepData
from mgrpo.config import RunConfig
from mgrpo.config.load import load_recipe
from mgrpo.records.token_columns import TokenIds
from mgrpo.records.turns import Prompt
from mgrpo.types import Completion, CompletionId, Reward

PAGE = REPOSITORY / "docs" / "benchmarks" / "data_plane.md"
TITLE = "The data plane: a step's way from the driver to the learner's ranks"
RECIPE = "methods/mgrpo"
COLUMNS = {
    "handed_over_s": "handed over, s",
    "driver_cpu_s": "driver, CPU s",
    "laid_out_s": "laid out, s",
    "rank_peak_gib": "rank, GiB",
    "driver_peak_gib": "driver, GiB",
    "most_over_mean_tokens": "largest share of the tokens over the mean",
}
DEADLINE_S = 600.0
GIB = 2**30
PROMPT_TOKENS, GUIDANCE_TOKENS = 200, 12
CHARACTERS_PER_TOKEN = 4
MICROBATCH_TOKENS = 16_384


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much one step holds."""

    problems: int
    attempts: int  # per problem
    corrections: int  # per problem
    tokens: int  # per completion

    @property
    def num_tokens(self) -> int:
        return self.problems * (self.attempts + self.corrections) * self.tokens


def synthetic_step(size: Size) -> list[Completion]:
    """Attempts and corrections of random tokens, as a rollout returns them.

    A group shares its prompt, a correction's prompt holds its attempt, and lengths lie between half
    of `size.tokens` and one and a half times that.
    """
    draw = np.random.default_rng(0)
    text = "x" * (CHARACTERS_PER_TOKEN * size.tokens * 2)

    def completion(slot: int, path: Sequence[int], prompt: Prompt) -> Completion:
        length = int(draw.integers(size.tokens // 2, size.tokens + size.tokens // 2 + 1))
        reward = float(draw.integers(0, 2))
        own = CompletionId(0, slot, tuple(path))
        return Completion(
            id=own,
            problem_id=f"problem/{slot}",
            domain="default",
            layer=len(path),
            parent_id=str(own.parent) if len(path) > 1 else None,
            group_key=str(own.parent),
            prompt=prompt,
            token_ids=tokens(length),
            rollout_logprobs=-draw.random(length, dtype=np.float32),
            finish_reason="stop",
            version_spans=((0, 0),),
            text=text[: CHARACTERS_PER_TOKEN * length],
            prompt_text="",
            reward=Reward(value=reward, correct=reward > 0, parts={"answer": reward}),
        )

    def tokens(count: int) -> TokenIds:
        return draw.integers(0, 150_000, count, dtype=np.int32)

    step = []
    for slot in range(size.problems):
        question = Prompt.of(tokens(PROMPT_TOKENS))
        for number in range(size.attempts):
            attempt = completion(slot, [number], question)
            step.append(attempt)
            parts = [question.token_ids, attempt.token_ids, tokens(GUIDANCE_TOKENS)]
            review = Prompt.of(np.concatenate(parts))
            step += [
                completion(slot, [number, index], review)
                for index in range(size.corrections // size.attempts)
            ]
    return step


class Receiver:
    """A learner rank without its model."""

    def __init__(self, config: RunConfig, *, rank: int, num_ranks: int) -> None:
        self.config, self.rank, self.num_ranks = config, rank, num_ranks

    def prepare(self) -> None:
        """Import what a rank has imported before its first step."""
        import torch

        from learner import batch, packing  # noqa: F401

        torch.set_num_threads(1)

    def forget(self) -> None:
        """Let the last step go, and count memory from here."""
        self.completions: list[Completion] = []
        gc.collect()
        self.before = resident_bytes()
        restart_peak()

    def receive(self, given: StepData) -> None:
        self.completions, _, _ = given.unpacked(with_texts=False)

    def lay_out(self) -> int:
        """Returns how many tokens this rank trains on."""
        from learner.batch import build_batch
        from learner.packing import collate, plan_rows

        batch = build_batch(
            self.completions,
            self.config.layers,
            self.config.objective,
            rank=self.rank,
            num_ranks=self.num_ranks,
            add_over_ranks=lambda values: values,  # the recipe has no plug-in that asks
        )
        rows = batch.rows
        plan = plan_rows(rows, budget_tokens=MICROBATCH_TOKENS, merge_prefixes=True)
        collate([rows[place] for place in plan[0]], merge_prefixes=True)
        return sum(len(row.token_ids) for row in rows)

    def peak_bytes(self) -> int:
        return peak_resident_bytes() - self.before


def hand_over(receivers: Sequence[RemoteActor[Receiver]], completions: list[Completion]) -> None:
    """What the loop does with a step."""
    step_data = share(StepData.of(0, completions))
    calls = [receiver.submit(Receiver.receive, step_data) for receiver in receivers]
    wait_for(calls, doing="take a step", deadline_s=DEADLINE_S, setting="DEADLINE_S")


def on_all(
    receivers: Sequence[RemoteActor[Receiver]], method: Callable[[Receiver], Result]
) -> list[Result]:
    calls = [receiver.submit(method) for receiver in receivers]
    return wait_for(calls, deadline_s=DEADLINE_S, setting="DEADLINE_S")


def measure(
    config: RunConfig, completions: list[Completion], *, num_receivers: int, rounds: int
) -> dict[str, Any]:
    """One number of receivers, several times; the first round only warms up."""
    receivers: list[RemoteActor[Receiver]] = [
        RemoteActor(
            ray.remote(Receiver)
            .options(num_cpus=0)
            .remote(config, rank=rank, num_ranks=num_receivers),
            f"receiver-{rank}",
        )
        for rank in range(num_receivers)
    ]
    on_all(receivers, Receiver.prepare)
    found: dict[str, list[float]] = {}
    for number in range(rounds + 1):
        on_all(receivers, Receiver.forget)
        gc.collect()
        before = resident_bytes()
        restart_peak()
        began, driver_began = time.perf_counter(), time.process_time()
        hand_over(receivers, completions)
        held, driver_held = time.perf_counter(), time.process_time()
        tokens = on_all(receivers, Receiver.lay_out)
        values = {
            "handed_over_s": held - began,
            "driver_cpu_s": driver_held - driver_began,
            "laid_out_s": time.perf_counter() - held,
            "rank_peak_gib": max(on_all(receivers, Receiver.peak_bytes)) / GIB,
            "driver_peak_gib": (peak_resident_bytes() - before) / GIB,
            "trained_tokens": float(sum(tokens)),
            "most_over_mean_tokens": max(tokens) * len(tokens) / max(1, sum(tokens)),
        }
        if number > 0:
            for name, value in values.items():
                found.setdefault(name, []).append(value)
    for receiver in receivers:
        receiver.kill()
    return {"receivers": num_receivers, "values": found} | {
        name: round(statistics.median(values), 3) for name, values in found.items()
    }


def spread(row: Figures, name: str) -> str:
    """The median, and lowest to highest where these differ."""
    lowest, highest = (f"{end(row['values'][name]):.2f}" for end in (min, max))
    around = f" ({lowest} to {highest})" if lowest != highest else ""
    return f"{row[name]:.2f}{around}"


def page_lines(result: Figures) -> Iterator[str]:
    yield f"{result['completions']:,} completions, {result['tokens']:,} tokens."
    yield ""
    yield f"| Receivers | {' | '.join(COLUMNS.values())} |"
    yield "| ---: | " + " | ".join("---:" for _ in COLUMNS) + " |"
    for row in result["rows"]:
        cells = " | ".join(spread(row, name) for name in COLUMNS)
        yield f"| {row['receivers']} | {cells} |"
    yield ""
    rounds = "one round" if result["rounds"] == 1 else f"{result['rounds']} rounds"
    yield f"Medians of {rounds} (lowest to highest) after one that only warms up."
    yield ""
    yield from origin_lines(result)


def ratios(rows: Sequence[Figures]) -> Figures:
    """What grows with the number of receivers, most of them over fewest."""
    fewest, most = rows[0], rows[-1]
    return {
        f"{name}_most_over_fewest": round(most[name] / fewest[name], 3)
        for name in ("driver_cpu_s", "handed_over_s", "driver_peak_gib")
        if fewest[name] > 0
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--problems", type=int, default=128)
    parser.add_argument("--attempts", type=int, default=16, help="per problem")
    parser.add_argument("--corrections", type=int, default=64, help="per problem")
    parser.add_argument("--tokens", type=int, default=2000, help="per completion, on average")
    parser.add_argument("--scale", type=float, default=1.0, help="of the number of problems")
    parser.add_argument("--receivers", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--rounds", type=int, default=3, help="that count")
    parser.add_argument("--quick", action="store_true", help="a tenth of the problems, one round")
    parser.add_argument("--write", action="store_true", help=f"update {PAGE.name} and its .json")
    given = parser.parse_args(arguments)
    if given.quick:
        given.scale, given.rounds = 0.1, 1
    size = Size(
        problems=max(1, round(given.problems * given.scale)),
        attempts=given.attempts,
        corrections=given.corrections,
        tokens=given.tokens,
    )
    config = load_recipe(
        RECIPE,
        [
            f"layers.solve.group_size={size.attempts}",
            f"layers.correct.group_size={size.corrections // size.attempts}",
        ],
    )
    completions = synthetic_step(size)
    num_tokens = sum(len(completion.token_ids) for completion in completions)
    print(f"{len(completions):,} completions, {num_tokens:,} tokens", file=sys.stderr)
    rows = []
    with ray_runtime(config.cluster, num_cpus=max(given.receivers), logs_to=None):
        for num_receivers in given.receivers:
            rows.append(
                measure(config, completions, num_receivers=num_receivers, rounds=given.rounds)
            )
            print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    result = {
        "benchmark": "data_plane",
        **ratios(rows),
        "completions": len(completions),
        "tokens": num_tokens,
        "rounds": given.rounds,
        "rows": rows,
        "command": " ".join(["python -m benchmarks.data_plane", *sys.argv[1:]]),
        "date": time.strftime("%Y-%m-%d"),
        **machine(),
    }
    publish(result, "\n".join(page_lines(result)), PAGE if given.write else None, title=TITLE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
