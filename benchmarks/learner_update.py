"""How long the learner's update takes alone, and what it costs as a step grows.

    python -m benchmarks.learner_update                      # the table and the scaling tables
    python -m benchmarks.learner_update --quick              # two rounds of the three workloads
    python -m benchmarks.learner_update --against v0.1.0     # and beside another revision
    python -m benchmarks.learner_update --write              # docs/benchmarks/learner_update.md

Completions are random tokens in prompts of the real layouts, rewards are random, and the policy is
a Llama with random weights; the learner is the real one, alone, on every core. Two revisions are
two processes that take turns, update by update, so that a drift of the machine's speed meets both,
and are compared by CPU seconds, in which other processes of the machine do not count. The first
update of each is left out. The last line of the output is one JSON object.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from actors.templates import PromptBuilder
from benchmarks.commands import end, stop_on_sigterm
from benchmarks.machine import REPOSITORY, Result, machine
from benchmarks.measured_page import publish
from benchmarks.memory import peak_resident_bytes, resident_bytes, restart_peak
from benchmarks.revisions import check_out
from benchmarks.workload import byte_tokenizer, questions
from mgrpo.config import RunConfig
from mgrpo.config.guidance import GUIDANCE_PHRASES
from mgrpo.records.turns import Prompt
from mgrpo.types import Completion, CompletionId, Reward

PAGE = REPOSITORY / "docs" / "benchmarks" / "learner_update.md"
SEED = 0
Layout = Literal["review_chat", "self_continue"]


@dataclass(frozen=True, kw_only=True)
class Work:
    """One step's completions and the policy that trains on them."""

    prompts: int
    groups: tuple[int, ...]  # completions of a problem, corrections of each of them, ...
    tokens: int  # of each completion
    layout: Layout = "review_chat"  # of corrections
    hidden_size: int = 256
    num_layers: int = 4
    vocab_size: int = 259


WORKLOADS = {
    "plain 32x8x48": Work(prompts=32, groups=(8,), tokens=48),
    "review_chat 8x8x4x48": Work(prompts=8, groups=(8, 4), tokens=48),
    "self_continue 8x8x4x48": Work(prompts=8, groups=(8, 4), tokens=48, layout="self_continue"),
}
CHAIN = Work(prompts=2, groups=(8,), tokens=48)
SCALING = {
    "completions of a problem (4 problems, 48 tokens)": {
        str(size): Work(prompts=4, groups=(size,), tokens=48) for size in (4, 16, 64)
    },
    "tokens of a completion (4 problems, 8 completions)": {
        str(tokens): Work(prompts=4, groups=(8,), tokens=tokens) for tokens in (32, 128, 512)
    },
    "problems (4 completions, 48 tokens)": {
        str(count): Work(prompts=count, groups=(4,), tokens=48) for count in (8, 32, 128)
    },
    "layers of review_chat (2 problems, 8 x 4 x 2 completions)": {
        str(count): replace(CHAIN, groups=(8, 4, 2)[:count]) for count in (1, 2, 3)
    },
    "layers of self_continue (2 problems, 8 x 4 x 2 completions)": {
        str(count): replace(CHAIN, groups=(8, 4, 2)[:count], layout="self_continue")
        for count in (1, 2, 3)
    },
    "vocabulary (hidden size 64, 32 problems, 4 completions)": {
        f"{size:,}": Work(prompts=32, groups=(4,), tokens=48, hidden_size=64, vocab_size=size)
        for size in (259, 8_192, 49_152)
    },
}
SCALING_ROUNDS = 3


@dataclass(frozen=True, kw_only=True)
class Update:
    """What one update took."""

    seconds: float
    cpu_s: float
    distinct_tokens: int  # that the network computed
    row_tokens: int  # of all rows, shared prefixes counted in each
    peak_mib: float  # of resident memory, above what was held before


def main() -> int:
    args = parse()
    if args.measure:
        return measure()
    stop_on_sigterm()
    with contextlib.ExitStack() as stack:
        folders = {"here": REPOSITORY}
        for revision in args.against:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mgrpo-update-")))
            check_out(revision, folder)
            folders[revision] = folder
        learners = {name: stack.enter_context(learner_of(path)) for name, path in folders.items()}
        found = {
            name: rounds_of(work, learners, rounds=2 if args.quick else args.rounds)
            for name, work in WORKLOADS.items()
            if args.only in name
        }
        growth = {}
        if not (args.quick or args.only):
            growth = {
                axis: {
                    point: rounds_of(work, {"here": learners["here"]}, rounds=SCALING_ROUNDS)
                    for point, work in works.items()
                }
                for axis, works in SCALING.items()
            }
    result = summary(found, growth, args.against)
    page = PAGE if args.write else None
    publish(result, "\n".join(page_lines(result)), page, title="The learner's update")
    return 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Time the learner's update alone.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="two rounds, no scaling tables")
    parser.add_argument(
        "--only", default="", metavar="WORD", help="workloads with it in their name"
    )
    parser.add_argument(
        "--against", nargs="+", default=[], metavar="REVISION", help="of git, to compare with"
    )
    parser.add_argument("--write", action="store_true", help=f"update {PAGE.name} and its .json")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.rounds < 1:
        parser.error("needs a round or more")
    return args


# --- the process of one revision -----------------------------------------------------------------


def measure() -> int:
    """Make the updates that standard input asks for, a line each, and answer with a line each."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever else is printed is no answer
    kept: tuple[Work, Any, list[Completion]] | None = None
    for line in sys.stdin:
        asked = json.loads(line)
        work = Work(**{**asked, "groups": tuple(asked["groups"])})
        if kept is None or kept[0] != work:
            if kept is not None:
                kept[1].close()
            kept = (work, make_learner(work), make_step(work))
        _, learner, completions = kept
        before = resident_bytes()
        restart_peak()
        began, cpu_began = time.perf_counter(), time.process_time()
        metrics = learner.update(completions).metrics
        answer = {
            "seconds": time.perf_counter() - began,
            "cpu_s": time.process_time() - cpu_began,
            "distinct_tokens": int(metrics["learner/input_tokens"][0]),
            "row_tokens": int(metrics["learner/row_tokens"][0]),
            "peak_mib": (peak_resident_bytes() - before) / 2**20,
        }
        print(json.dumps(answer), file=answers, flush=True)
    return 0


def make_learner(work: Work) -> Any:
    """The learner of one rank, of a policy with random weights."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from benchmarks.method_overhead import OneOfMany
    from learner.recipe import learner_recipe

    torch.manual_seed(SEED)
    heads = work.hidden_size // 64
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=work.vocab_size,
            hidden_size=work.hidden_size,
            intermediate_size=work.hidden_size * 5 // 2,
            num_hidden_layers=work.num_layers,
            num_attention_heads=heads,
            num_key_value_heads=heads,
            head_dim=64,
            max_position_embeddings=2048,
            tie_word_embeddings=False,
            dtype="float32",
        )
    )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        return OneOfMany(
            recipe=learner_recipe(recipe_of(work)),
            model_dir=folder,
            rank=0,
            num_ranks=1,
            master_address="127.0.0.1",
            master_port=port,
            device="cpu",
        )


def recipe_of(work: Work, *, model_dtype: str = "float32", **learner: object) -> RunConfig:
    """The work as a recipe.

    Args:
        learner: keys of the section of that name.
    """
    layers: list[Result] = [{"name": "solve", "group_size": work.groups[0]}]
    for number, size in enumerate(work.groups[1:], start=1):
        opened = {"system_prompt": ""} if work.layout == "review_chat" else {}
        layers.append(
            {
                "name": f"correct{number}",
                "kind": "correct",
                "group_size": size,
                "layout": work.layout,
                "select": "none",
                "skip_truncated_parents": False,
                **opened,
            }
        )
    return RunConfig.model_validate(
        {
            "name": "learner-update",
            "steps": 1000,
            "prompts_per_step": work.prompts,
            "model": {"path": "policy", "dtype": model_dtype},
            "data": {"train": {"source": "jsonl", "path": "none"}},
            "layers": [
                {**one, "max_completion_tokens": work.tokens, "system_prompt": ""}
                if one["name"] == "solve"
                else {**one, "max_completion_tokens": work.tokens}
                for one in layers
            ],
            # So small that the policy stays what it was.
            "learner": {"learning_rate": 1e-12, "num_threads": os.cpu_count(), **learner},
        }
    )


def make_step(work: Work) -> list[Completion]:
    """Every completion of a step, as a rollout returns them."""
    draw = np.random.default_rng(SEED)
    builder = PromptBuilder(byte_tokenizer())
    _, *later = recipe_of(work).layers
    texts = questions(work.prompts)

    def completions(own: CompletionId, prompt: Prompt) -> Iterator[Completion]:
        """All of one prompt, each with its corrections behind it."""
        for number in range(work.groups[len(own.path)]):
            reward = float(draw.integers(0, 2))
            child = own.child(number)
            one = Completion(
                id=child,
                problem_id=str(own.slot),
                domain="default",
                layer=len(child.path),
                parent_id=str(own) if own.path else None,
                group_key=str(own),
                prompt=prompt,
                token_ids=draw.integers(3, work.vocab_size, work.tokens, dtype=np.int32),
                rollout_logprobs=np.full(work.tokens, -np.log(work.vocab_size), dtype=np.float32),
                finish_reason="length",
                version_spans=((0, 0),),
                text="",
                prompt_text="",
                reward=Reward(value=reward, correct=reward > 0),
            )
            yield one
            if len(child.path) < len(work.groups):
                layer: Any = later[len(child.path) - 1]
                review = builder.correction_prompt(
                    layer,
                    texts[own.slot],
                    parent_prompt_ids=prompt.token_ids,
                    parent_ids=one.token_ids,
                    guidance=str(draw.choice(GUIDANCE_PHRASES)),
                )
                yield from completions(child, Prompt.of(review))

    solve = recipe_of(work).layers[0]
    return [
        one
        for slot, question in enumerate(texts)
        for one in completions(
            CompletionId(0, slot), Prompt.of(builder.solve_prompt(solve, question))
        )
    ]


# --- the process that compares -------------------------------------------------------------------


@contextlib.contextmanager
def learner_of(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that makes updates with the sources in a folder."""
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).resolve()), "--measure"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder), "OMP_WAIT_POLICY": "passive"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        end(process)  # type: ignore[arg-type]


def ask(process: subprocess.Popen[str], work: Work) -> Update:
    """One update in another process."""
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(json.dumps(work.__dict__) + "\n")
    process.stdin.flush()
    line = process.stdout.readline()
    if not line:
        raise SystemExit(f"the learner of {process.args!r} ended; its error is above.")
    return Update(**json.loads(line))


def rounds_of(
    work: Work, learners: dict[str, subprocess.Popen[str]], *, rounds: int
) -> dict[str, list[Update]]:
    """Updates by revision, in turns, the first of each left out."""
    found: dict[str, list[Update]] = {name: [] for name in learners}
    for number in range(rounds + 1):
        for name, process in learners.items():
            update = ask(process, work)
            if number > 0:
                found[name].append(update)
    for name, updates in found.items():
        seconds = " ".join(f"{one.cpu_s:.2f}" for one in updates)
        print(f"{work}: {name}: {seconds} CPU s", file=sys.stderr, flush=True)
    return found


def summary(
    found: dict[str, dict[str, list[Update]]],
    growth: dict[str, dict[str, dict[str, list[Update]]]],
    against: Sequence[str],
) -> Result:
    """What is reported; ratios are of one round each, above 1 where this revision takes less."""

    def described(updates: Sequence[Update]) -> Result:
        cpu_s = [one.cpu_s for one in updates]
        last = updates[-1]
        return {
            "seconds": statistics.median(one.seconds for one in updates),
            "cpu_s": statistics.median(cpu_s),
            "lowest_cpu_s": min(cpu_s),
            "highest_cpu_s": max(cpu_s),
            "distinct_tokens": last.distinct_tokens,
            "row_tokens": last.row_tokens,
            "peak_mib": max(one.peak_mib for one in updates),
            "cpu_us_per_distinct_token": 1e6 * statistics.median(cpu_s) / last.distinct_tokens,
        }

    ratios = {
        name: {
            revision: [
                other.cpu_s / own.cpu_s
                for own, other in zip(rounds["here"], rounds[revision], strict=True)
            ]
            for revision in against
        }
        for name, rounds in found.items()
    }
    return {
        "benchmark": "learner_update",
        "against": list(against),
        "workloads": {
            name: {revision: described(updates) for revision, updates in rounds.items()}
            for name, rounds in found.items()
        },
        "ratios": {
            name: {revision: statistics.median(values) for revision, values in of.items()}
            for name, of in ratios.items()
        },
        "ratio_rounds": ratios,
        "scaling": {
            axis: {point: described(rounds["here"]) for point, rounds in points.items()}
            for axis, points in growth.items()
        },
        "command": " ".join(["python -m benchmarks.learner_update", *sys.argv[1:]]),
        "date": time.strftime("%Y-%m-%d"),
        **machine(),
    }


def page_lines(result: Result) -> Iterator[str]:
    against = result["against"]
    titles = "".join(f" CPU s of {one} | times as much (each round) |" for one in against)
    head = "distinct tokens | row tokens | peak, MiB | seconds | CPU s | CPU µs a distinct token |"
    rule = " --- | ---: | ---: | ---: | ---: | ---: | ---: |"
    yield f"| Work | {head}{titles}"
    yield f"|{rule}{' ---: | ---: |' * len(against)}"
    for name, revisions in result["workloads"].items():
        more = ""
        for revision in against:
            rounds = ", ".join(f"{value:.2f}" for value in result["ratio_rounds"][name][revision])
            ratio = result["ratios"][name][revision]
            more += f" {spread(revisions[revision])} | {ratio:.2f} ({rounds}) |"
        yield f"| {name} | {columns(revisions['here'])} |{more}"
    for axis, points in result["scaling"].items():
        yield f"\n| {axis} | {head}"
        yield f"|{rule}"
        for point, one in points.items():
            yield f"| {point} | {columns(one)} |"
    versions = [
        f"{name} {result['packages'][name]}" for name in ("torch", "transformers", "deepspeed")
    ]
    yield (
        f"\nMedians (lowest to highest). `{result['command']}`, {result['date']}, "
        f"commit {result['commit']}, {result['cpu']}, {result['cores']} cores, "
        f"Python {result['python']}, {', '.join(versions)}."
    )


def columns(one: Result) -> str:
    return (
        f"{one['distinct_tokens']:,} | {one['row_tokens']:,} | {one['peak_mib']:,.0f} | "
        f"{one['seconds']:.2f} | "
        f"{spread(one)} | {one['cpu_us_per_distinct_token']:.0f}"
    )


def spread(one: Result) -> str:
    return f"{one['cpu_s']:.2f} ({one['lowest_cpu_s']:.2f} to {one['highest_cpu_s']:.2f})"


if __name__ == "__main__":
    sys.exit(main())
