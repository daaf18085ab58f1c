"""How much of layer 2 carries gradient, by the choice of parents and with early stops.

    python -m benchmarks.layer2_waste                        # trains the quickstart; some 4 minutes
    python -m benchmarks.layer2_waste --quick                # 6 steps of it
    python -m benchmarks.layer2_waste --run runs/quickstart  # of a run that is there, in seconds
    python -m benchmarks.layer2_waste --write                # the page in docs/benchmarks, too

A real run samples and checks every correction of every attempt, and records them. Every way of
sampling then chooses from the same records, by the code that would have sampled: the program of the
chain asks for attempts and parts of groups, and gets what was recorded for them. What carries
gradient is what the learner's `build_batch` gives an advantage and a weight. Parents that are drawn
by chance are drawn several times. The last line of the output is one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from actors.layers import PromptRequest
from actors.programs import Task, correction_chain
from actors.shortest import shortest
from actors.templates import PromptBuilder
from benchmarks.commands import CommandFailed, run_command, stop_on_sigterm
from benchmarks.machine import REPOSITORY, Result, machine, origin_lines
from learner.batch import build_batch
from mgrpo.config import LayerConfig, RunConfig
from mgrpo.config.load import load_recipe
from mgrpo.metrics.log import read_rollouts, rollout_paths
from mgrpo.models.catalog import resolve_model
from mgrpo.models.policy_tokenizer import load_builder
from mgrpo.types import Completion, CompletionId, Problem

PAGE = REPOSITORY / "docs" / "benchmarks" / "layer2_waste.md"
TRAIN_DEADLINE_S = 1200
RECIPE = "quickstart"
WAYS = {
    "all": (),
    "all, early stop": ("layers.correct.early_stop={type: agreement, first: 2}",),
    "all, early stop, 1 in 4 goes on": (
        "layers.correct.early_stop={type: agreement, first: 2, go_on_chance: 0.25}",
    ),
    "wrong_only": ("layers.correct.parents=wrong_only",),
    "wrong_only, early stop": (
        "layers.correct.parents=wrong_only",
        "layers.correct.early_stop={type: agreement, first: 2}",
    ),
    "wrong_first, k 2": ("layers.correct.parents={type: wrong_first, k: 2}",),
    "wrong_first, k 1": ("layers.correct.parents={type: wrong_first, k: 1}",),
    "uniform_k, k 2": ("layers.correct.parents={type: uniform_k, k: 2}",),
    "uniform_k, k 1": ("layers.correct.parents={type: uniform_k, k: 1}",),
}
NUM_DRAWS = 5
NUM_KEPT = 6  # of the 8 attempts, as with group_size 6 and over_sample 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Waste:
    """One way of sampling, means over draws."""

    groups: float  # of layer 2
    carrying: float  # of which so many have a gradient of advantages
    carrying_share: float
    standard_error: float  # of the share, within one draw
    tokens: float  # that layer 2 samples
    tokens_per_carrying: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Shortest:
    """What `over_sample` would keep of the recorded attempts."""

    mean_tokens: float  # of all
    kept_tokens: float
    accuracy: float
    kept_accuracy: float


class Records:
    """A sampler that gives what a run has recorded."""

    def __init__(
        self,
        completions: Sequence[Completion],
        builder: PromptBuilder,
        layers: Sequence[LayerConfig],
        seed: int,
    ) -> None:
        self.builder, self.layers, self.seed = builder, layers, seed
        self.by_id = {one.id: one for one in completions}

    async def sample_all(
        self, number: int, problem: Problem, requests: Sequence[PromptRequest]
    ) -> list[Completion]:
        return [
            self.by_id[one.within.child(one.first_index + place)]
            for one in requests
            for place in range(one.num_samples)
        ]


def main() -> int:
    args = parse()
    stop_on_sigterm()
    with tempfile.TemporaryDirectory(prefix="mgrpo-layer2-waste-") as folder:
        run_dir = args.run or trained(Path(folder), args.steps)
        found = {title: measured(steps) for title, steps in windows(read_steps(run_dir)).items()}
    result = {
        "benchmark": "layer2_waste",
        "windows": found,
        "command": " ".join(
            ["python -m benchmarks.layer2_waste", *["--quick"] * args.quick]
            + (["--run RUN"] if args.run else [])
        ),
        "date": time.strftime("%Y-%m-%d"),
        **machine(),
    }
    for title, values in found.items():
        print(title, *table(values["ways"]), sep="\n", file=sys.stderr, flush=True)
    if args.write:
        PAGE.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        PAGE.write_text("\n".join(page_lines(result)) + "\n", encoding="utf-8")
    print(json.dumps(result))
    return 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure which of layer 2 carries gradient.")
    parser.add_argument("--quick", action="store_true", help="train 6 steps in place of 40")
    parser.add_argument("--run", type=Path, help="a quickstart run's folder, instead of training")
    parser.add_argument("--write", action="store_true", help=f"update {PAGE.name} and its .json")
    args = parser.parse_args()
    args.steps = 6 if args.quick else 40
    return args


def trained(folder: Path, num_steps: int) -> Path:
    """A run of the quickstart that records all it samples."""
    keys = (
        *(f"steps={num_steps}", f"output.runs_dir={folder}", "output.rollouts_per_step=16"),
        *("data.heldout=null", "evaluation.every_steps=0", "checkpoints.every_steps=0"),
    )
    command = [sys.executable, "-m", "mgrpo", "train", RECIPE, "--run", "waste", "--overwrite"]
    run_command([*command, *keys], log=folder / "run.log", deadline_s=TRAIN_DEADLINE_S)
    return folder / "waste"


def read_steps(run_dir: Path) -> list[list[Completion]]:
    """Each step's recorded completions."""
    return [read_rollouts(path) for path in rollout_paths(run_dir).values()]


def windows(steps: Sequence[list[Completion]]) -> dict[str, Sequence[list[Completion]]]:
    """The first and the last quarter, as training changes what there is to learn."""
    length = max(1, len(steps) // 4)
    last = len(steps) - length
    return {
        f"Steps 0 to {length - 1}": steps[:length],
        f"Steps {last} to {len(steps) - 1}": steps[last:],
    }


def measured(steps: Sequence[list[Completion]]) -> Result:
    """Every way of sampling on the same steps."""
    config = load_recipe(RECIPE)
    builder = load_builder(resolve_model(config.model.path), config.model)
    ways = {
        way: asdict(waste(steps, builder, load_recipe(RECIPE, keys))) for way, keys in WAYS.items()
    }
    attempts = [one for step in steps for one in step if one.layer == 1]
    return {"ways": ways, "shortest": asdict(kept_attempts(attempts)), "attempts": len(attempts)}


def waste(steps: Sequence[list[Completion]], builder: PromptBuilder, config: RunConfig) -> Waste:
    """What one way of sampling has of recorded steps."""
    carries: list[bool] = []
    num_tokens = 0
    for seed in range(NUM_DRAWS):
        for number, step in enumerate(steps):
            sampler = Records(step, builder, config.layers, seed)
            done = asyncio.run(corrected(number, step, sampler))
            attempts = [one for one in step if one.layer == 1]
            carries += carrying_groups([*attempts, *done], config)
            num_tokens += sum(len(one.token_ids) for one in done)
    share = sum(carries) / len(carries)
    return Waste(
        groups=len(carries) / NUM_DRAWS,
        carrying=sum(carries) / NUM_DRAWS,
        carrying_share=share,
        standard_error=math.sqrt(share * (1 - share) / (len(carries) / NUM_DRAWS)),
        tokens=num_tokens / NUM_DRAWS,
        tokens_per_carrying=num_tokens / max(1, sum(carries)),
    )


async def corrected(number: int, step: Sequence[Completion], sampler: Records) -> list[Completion]:
    """The corrections of a step that the chain asks for."""
    trees: Mapping[CompletionId, list[Completion]] = defaultdict(list)
    for one in step:
        if one.layer == 1:
            trees[one.id.tree].append(one)
    done: list[Completion] = []
    for tree, attempts in trees.items():
        first = attempts[0]
        problem = Problem(problem_id=first.problem_id, question=first.prompt_text, answer="")
        task = Task(
            problem=problem,
            step=number,
            tree=tree,
            first_layer=2,
            last_layer=2,
            attempts=attempts,
        )
        done += await correction_chain(task, sampler)
    return done


def carrying_groups(completions: Sequence[Completion], config: RunConfig) -> list[bool]:
    """Of each group of layer 2: has any completion an advantage and a weight?"""
    batch = build_batch(completions, config.layers, config.objective)
    groups: dict[str, bool] = defaultdict(bool)
    for row, one in zip(batch.all_rows, completions, strict=True):
        if one.layer == 2:
            groups[one.group_key] |= bool((row.advantages * row.token_weights).any())
    return list(groups.values())


def kept_attempts(attempts: Sequence[Completion]) -> Shortest:
    """The shortest of each problem's attempts."""
    groups: dict[CompletionId, list[Completion]] = defaultdict(list)
    for one in attempts:
        groups[one.id.tree].append(one)
    kept = [
        group[number]
        for group in groups.values()
        for number in shortest({n: len(one.token_ids) for n, one in enumerate(group)}, NUM_KEPT)
    ]
    return Shortest(
        mean_tokens=sum(len(one.token_ids) for one in attempts) / len(attempts),
        kept_tokens=sum(len(one.token_ids) for one in kept) / len(kept),
        accuracy=sum(one.is_correct for one in attempts) / len(attempts),
        kept_accuracy=sum(one.is_correct for one in kept) / len(kept),
    )


def table(ways: Mapping[str, Mapping[str, float]]) -> Iterator[str]:
    yield "| Layer 2 | Groups | With gradient | Share | Tokens | Tokens per group with gradient |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: |"
    for way, one in ways.items():
        share = f"{one['carrying_share']:.1%} ± {one['standard_error']:.1%}"
        yield (
            f"| {way} | {one['groups']:.0f} | {one['carrying']:.0f} | {share} | "
            f"{one['tokens']:,.0f} | {one['tokens_per_carrying']:.0f} |"
        )


def page_lines(result: Result) -> Iterator[str]:
    yield "# How much of layer 2 carries gradient\n"
    yield "Layer 2 of a [quickstart](../../mgrpo/recipes/quickstart.yaml) run (8 attempts of each"
    yield "problem, 4 corrections of each), by the choice of parents (`layers.correct.parents`) and"
    yield "with `early_stop: {type: agreement, first: 2}`. Every row chooses from the same recorded"
    yield "completions, by the code that samples; ± is a standard error.\n"
    for title, values in result["windows"].items():
        yield f"## {title}\n"
        yield from table(values["ways"])
        own = values["shortest"]
        yield f"\nWith a `group_size` of {NUM_KEPT}, `over_sample: 2` keeps the {NUM_KEPT} shortest"
        yield f"of 8 attempts: these have {own['kept_tokens']:.1f} tokens on average, and all"
        yield f"{own['mean_tokens']:.1f}; {own['kept_accuracy']:.1%} of them are right, and"
        yield f"{own['accuracy']:.1%} of all {values['attempts']}.\n"
    yield "## What the rows train\n"
    yield "- `uniform_k` has the objective of `all` in expectation, with fewer groups a step."
    yield "- `wrong_first` and `wrong_only` have another: less protects right attempts, or nothing."
    yield "- `early_stop` keeps the direction of each parent's expected gradient and, with two of"
    yield "  four corrections first, 0.50 to 0.58 of its size (without division by the spread), by"
    yield "  how often the parent's corrections are right. `go_on_chance` keeps all of it, and adds"
    yield "  variance. `StopOnAgreement` in [mgrpo/config/layers.py](../../mgrpo/config/layers.py)"
    yield "  has the formula."
    yield "- `over_sample` is biased towards short completions.\n"
    yield from origin_lines(result)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except CommandFailed as failure:
        sys.exit(str(failure))
