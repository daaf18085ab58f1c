"""The cost of a method's update, compared with plain GRPO's on the same recorded completions.

    python -m benchmarks.method_overhead           # print the table
    python -m benchmarks.method_overhead --write   # also into docs/benchmarks/method_overhead.md

One process holds a learner for each recipe, all of the embedded policy, on one thread. In each
round every learner makes one update of the same step, in random order; a method's cost in
that round is its CPU seconds over GRPO's. CPU seconds, not wall-clock ones: other processes of the
machine then do not count. The learning rate is so small that the policy stays what it was.
"""

from __future__ import annotations

import argparse
import dataclasses
import random
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import distributed as dist

from benchmarks.commands import run_command, stop_on_sigterm
from benchmarks.machine import REPOSITORY, machine
from benchmarks.measured_page import write_measured
from learner.deepspeed_learner import DeepSpeedLearner
from learner.recipe import learner_recipe
from mgrpo.config import RunConfig
from mgrpo.config.load import load_recipe
from mgrpo.errors import MgrpoError
from mgrpo.methods.catalog import method_files
from mgrpo.methods.ws_grpo.prefix_scorer import PrefixScorer
from mgrpo.metrics.log import read_rollouts, rollout_paths
from mgrpo.models.catalog import resolve_model
from mgrpo.types import Completion

PAGE = REPOSITORY / "docs" / "benchmarks" / "method_overhead.md"
RUN = REPOSITORY / "runs" / "overhead"
RECORD = (  # the step that all methods are measured on
    "methods/mgrpo",
    *("steps=1", "prompts_per_step=16", "layers.solve.group_size=8", "layers.correct.group_size=2"),
    *("seed=0", "data.heldout=null", "output.rollouts_per_step=16", "output.report=false"),
    *("learner.warmup_steps=0", "checkpoints.every_steps=0"),
)
SETTINGS = ("learner.learning_rate=1e-12", "learner.warmup_steps=0", "learner.num_threads=1")
PLAIN = "grpo"
REPEATS = ("minibatches", "updates_per_rollout")
WARM_UP_ROUNDS = 1
RECORD_DEADLINE_S = 900


class OneOfMany(DeepSpeedLearner):
    """Learners of one process share the group of ranks, which DeepSpeed remembers."""

    def join_ranks(self, address: str, port: int, *, backend: str) -> None:
        if not dist.is_initialized():
            super().join_ranks(address, port, backend=backend)

    def leave_ranks(self) -> None:
        pass


@dataclasses.dataclass
class Row:
    """One method on one step."""

    name: str
    learner: DeepSpeedLearner
    completions: list[Completion]
    plain: str  # the row that it is compared with
    seconds: list[float] = dataclasses.field(default_factory=list)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.method_overhead",
        description="Measure the cost of each method's update against plain GRPO's.",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="methods; none: all")
    parser.add_argument("--rounds", type=int, default=7, metavar="N")
    parser.add_argument("--write", action="store_true", help="update the page")
    args = parser.parse_args(argv)
    stop_on_sigterm()
    torch.set_num_threads(1)
    completions = recorded_step()
    with tempfile.TemporaryDirectory() as folder:
        rows, skipped = make_rows(args.names or list(method_files()), completions, Path(folder))
        for number in range(WARM_UP_ROUNDS + args.rounds):
            print(f"round {number} of {WARM_UP_ROUNDS + args.rounds - 1}", file=sys.stderr)
            run_round(rows, number, is_kept=number >= WARM_UP_ROUNDS)
    page = describe(rows, skipped, completions, rounds=args.rounds)
    print(page)
    if args.write:
        write_measured(PAGE, page, title="Cost of a method's update")
    return 0


def recorded_step() -> list[Completion]:
    """A step of attempts and corrections of the embedded policy, sampled once and kept."""
    if not rollout_paths(RUN):
        run_command(
            [
                *(sys.executable, "-m", "mgrpo", "train", *RECORD),
                *(f"output.runs_dir={RUN.parent}", "--run", RUN.name, "--overwrite"),
            ],
            log=RUN.with_suffix(".log"),
            deadline_s=RECORD_DEADLINE_S,
        )
    return [described(one) for one in read_rollouts(rollout_paths(RUN)[0])]


def described(one: Completion) -> Completion:
    """With what plug-ins of the rollout would have written: steps, an analysis, entities, and the
    likelihood of a greedy answer."""
    size = len(one.token_ids)
    half = max(1, size // 2)
    return dataclasses.replace(
        one,
        spans={
            "steps": [(0, half), (half, size)] if size > 1 else [(0, 1)],
            "analysis": [(0, half)],
        },
        metadata={**one.metadata, "entities": ["1", "2"], "greedy_logprob_mean": -0.1},
    )


def make_rows(
    names: Sequence[str], completions: list[Completion], folder: Path
) -> tuple[list[Row], dict[str, str]]:
    """A learner per method and per form of GRPO that one is compared with; why others have none."""
    model_dir = resolve_model("default")
    PrefixScorer.create(model_dir, hidden_units=32).save(str(folder / "scorer"))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    attempts = [completion for completion in completions if completion.layer == 1]
    alike = [dataclasses.replace(completion, layer=1, parent_id=None) for completion in completions]

    def learner(config: RunConfig) -> OneOfMany:
        return OneOfMany(
            recipe=learner_recipe(config),
            model_dir=model_dir,
            rank=0,
            num_ranks=1,
            master_address="127.0.0.1",
            master_port=port,
            device="cpu",
        )

    rows: dict[str, Row] = {}
    skipped = {}
    for name in names:
        own = [f"plugins.1.settings.scorer={folder / 'scorer'}"] if name == "ws_grpo" else []
        config = load_recipe(f"methods/{name}", [*SETTINGS, *own])
        is_chain = len(config.layers) > 1
        plain = plain_name(config)
        if plain not in rows:
            same = [f"objective.{key}={getattr(config.objective, key)}" for key in REPEATS]
            recipe = load_recipe(f"methods/{PLAIN}", [*SETTINGS, *same])
            rows[plain] = Row(plain, learner(recipe), alike if is_chain else attempts, plain)
        if name == PLAIN:
            continue
        try:
            row = Row(name, learner(config), completions if is_chain else attempts, plain)
            row.learner.update(row.completions, step=0)
        except MgrpoError as error:
            skipped[name] = str(error).splitlines()[0]
        else:
            rows[name] = row
    return list(rows.values()), skipped


def plain_name(config: RunConfig) -> str:
    """The GRPO that a method is compared with: as many optimizer steps, on the same completions."""
    layers = "attempts and corrections" if len(config.layers) > 1 else "attempts"
    parts, updates = config.objective.minibatches, config.objective.updates_per_rollout
    of_parts = f" of {parts} minibatches" if parts > 1 else ""
    return f"GRPO, {layers}, {updates} update{'s' if updates > 1 else ''}{of_parts}"


def run_round(rows: list[Row], number: int, *, is_kept: bool) -> None:
    """One update of every learner, in an order of this round's own."""
    for row in random.Random(number).sample(rows, len(rows)):
        began = time.process_time()
        row.learner.update(row.completions, step=0)
        if is_kept:
            row.seconds.append(time.process_time() - began)


def describe(
    rows: Sequence[Row], skipped: dict[str, str], completions: Sequence[Completion], *, rounds: int
) -> str:
    """The table, and what it was measured on."""
    by_name = {row.name: row for row in rows}
    lines = [
        "| Method | compared with | CPU s an update | times as much: median (lowest to highest) | "
        "measurements for it |",
        "| --- | --- | ---: | ---: | --- |",
    ]
    for row in sorted(rows, key=lambda one: (one.plain, median_ratio(one, by_name))):
        found = ratios(row, by_name)
        spread = f"{statistics.median(found):.2f} ({min(found):.2f} to {max(found):.2f})"
        is_plain = row.name == row.plain
        lines.append(
            f"| {f'**{row.name}**' if is_plain else row.name} | {'' if is_plain else row.plain} | "
            f"{statistics.median(row.seconds):.2f} | {'1' if is_plain else spread} | "
            f"{measurements_of(row.learner)} |"
        )
    attempts = sum(completion.layer == 1 for completion in completions)
    tokens = sum(len(completion.token_ids) for completion in completions)
    problems = len({completion.problem_id for completion in completions})
    facts = machine()
    notes = [f"Not measured: {name}: {reason}" for name, reason in skipped.items()]
    return "\n".join(
        [
            *lines,
            "",
            *notes,
            f"{attempts} attempts at {problems} problems and {len(completions) - attempts} "
            f"corrections, {tokens:,} tokens in all; {rounds} rounds after {WARM_UP_ROUNDS} that "
            "is dropped.",
            "",
            f"Measured at commit {facts['commit']} on {facts['cpu']}, one thread, with torch "
            f"{facts['packages']['torch']} by `python -m benchmarks.method_overhead --write`.",
        ]
    )


def ratios(row: Row, by_name: dict[str, Row]) -> list[float]:
    """Cost over plain GRPO's, round by round."""
    plain = by_name[row.plain].seconds
    return [own / other for own, other in zip(row.seconds, plain, strict=True)]


def median_ratio(row: Row, by_name: dict[str, Row]) -> float:
    return statistics.median(ratios(row, by_name))


def measurements_of(learner: DeepSpeedLearner) -> str:
    wanted = set().union(*(plugin.wanted_measurements() for plugin in learner.plugins))
    return ", ".join(sorted(wanted)) or "none"


if __name__ == "__main__":
    sys.exit(main())
