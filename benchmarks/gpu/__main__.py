"""What one GPU makes of an update, of TRL's on the same rows, and of a step of MGRPO.

    python -m benchmarks.gpu               # everything, in less than eight minutes
    python -m benchmarks.gpu --quick       # the two smallest policies, in less than three
    python -m benchmarks.gpu --device cpu  # a tiny policy, as where there is no GPU: a test
    python -m benchmarks.gpu --write       # docs/benchmarks/gpu.md; on a GPU alone

Every part is a process of its own with a share of the time. What does not fit the device's memory,
by the formulas of `mgrpo plan`, or has no time left, is left out, and the output says so. Policies
have random weights, made from their shapes; nothing is downloaded. The step is MGRPO's: attempts
and corrections of random tokens in prompts of the real layout, on which every row trains. TRL is
measured where it is installed: in this environment, or in .venv-trl. The last line of the output is
one JSON object.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.commands import CommandFailed, run_command, stop_on_sigterm
from benchmarks.gpu.device import Device, described
from benchmarks.gpu.learner_part import CONTEXT, FORMS, Asked, step_of
from benchmarks.gpu.mgrpo_step import run_steps
from benchmarks.gpu.sizes import SIZES, WORKLOADS, Dtype, Fit, fit, gib, shape_by_name
from benchmarks.learner_update import Work
from benchmarks.machine import REPOSITORY, Result, machine, origin_lines
from benchmarks.measured_page import publish
from benchmarks.workload import byte_tokenizer
from learner.packing import plan_microbatches

PAGE = REPOSITORY / "docs" / "benchmarks" / "gpu.md"
TOTAL_S, QUICK_S = 465.0, 170.0
END_S = 8.0
"""To end a part that did not end by itself, and to write what was found."""
GRACE_S = 15.0
"""That a part may take beyond its budget, in the middle of a round."""
TRL_PYTHON = REPOSITORY / ".venv-trl" / "bin" / "python"


@dataclass(frozen=True, slots=True)
class Part:
    """One process of the benchmark."""

    name: str
    budget_s: float  # at most
    least_s: float  # with less than this left it is not begun
    run: Callable[[float], Any]  # with its deadline in seconds; returns what it found


@dataclass(slots=True)
class Bench:
    """What is measured, on what, and what was found so far."""

    device: Device
    facts: dict[str, Any]
    rounds: int
    folder: Path
    ends_at: float  # by the monotonic clock
    stretch: float = 1.0  # of the parts' budgets, where there is more time than by default
    found: dict[str, Any] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)  # part -> why

    def work(self, size: str) -> Work:
        vocabulary = shape_by_name(size).vocabulary
        return dataclasses.replace(WORKLOADS[self.device].work, vocab_size=vocabulary)

    def fit(self, size: str, dtype: Dtype) -> Fit:
        return fit(
            size,
            dtype,
            microbatch_tokens=WORKLOADS[self.device].microbatch_tokens,
            free_bytes=self.facts["free_bytes"],
        )


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    stop_on_sigterm()
    began = time.monotonic()
    device: Device = args.device
    with tempfile.TemporaryDirectory(prefix="mgrpo-gpu-") as folder:
        bench = Bench(
            device=device,
            facts=described(device),
            rounds=2 if args.quick else args.rounds,
            folder=Path(folder),
            ends_at=began + args.budget,
            stretch=max(1.0, args.budget / TOTAL_S),
        )
        for part in parts_of(bench, is_quick=args.quick):
            if args.only in part.name:
                run_part(bench, part)
    result = summary(bench, args, seconds=time.monotonic() - began)
    page = PAGE if args.write else None
    publish(result, "\n".join(page_lines(result)), page, title="On a GPU")
    return 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    import torch

    has_gpu = torch.cuda.is_available()
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description="Measure updates and steps on one GPU."
    )
    parser.add_argument("--device", choices=WORKLOADS, default="cuda" if has_gpu else "cpu")
    parser.add_argument("--rounds", type=int, default=5, help="at most, of each part")
    parser.add_argument("--quick", action="store_true", help="two sizes, two rounds")
    parser.add_argument("--budget", type=float, metavar="SECONDS", help="for everything")
    parser.add_argument("--only", default="", metavar="WORD", help="parts with it in their name")
    parser.add_argument("--write", action="store_true", help=f"update {PAGE.name} and its .json")
    args = parser.parse_args(argv)
    if args.budget is None:
        args.budget = QUICK_S if args.quick else TOTAL_S
    if args.rounds < 1:
        parser.error("needs a round or more")
    if args.device == "cuda" and not has_gpu:
        parser.error("torch finds no CUDA device here. Use --device cpu to test the command.")
    if args.write and args.device != "cuda":
        parser.error("--write is for measurements on a GPU")
    return args


def parts_of(bench: Bench, *, is_quick: bool) -> Iterator[Part]:
    """Parts in the order of what they are worth, since the last may find no time."""
    sizes = WORKLOADS[bench.device].sizes
    smallest = sizes[0]
    yield learner_part(bench, smallest, "bfloat16", budget_s=60)
    yield trl_part(bench, smallest, "bfloat16", budget_s=45)
    if not is_quick:
        yield step_part(bench, budget_s=130)
    for size in largest_that_fits(bench, sizes[1:]):
        if is_quick and size != sizes[1]:
            continue
        yield learner_part(bench, size, "bfloat16", budget_s=75)
    yield learner_part(bench, smallest, "float32", budget_s=45)
    if not is_quick:
        for size in sizes[1:]:
            yield trl_part(bench, size, "bfloat16", budget_s=45)


def largest_that_fits(bench: Bench, sizes: Sequence[str]) -> list[str]:
    """The largest that fits first, then the others from small to large."""
    fitting = [size for size in sizes if not bench.fit(size, "bfloat16").fault]
    return fitting[-1:] + [size for size in sizes if size not in fitting[-1:]]


def run_part(bench: Bench, part: Part) -> None:
    """Run it within what is left of the time, and say what became of it."""
    left = bench.ends_at - time.monotonic() - END_S
    if left < part.least_s:
        bench.left_out[part.name] = f"needs {part.least_s:.0f} s, and {max(0, left):.0f} s are left"
    else:
        budget = min(part.budget_s * bench.stretch, left)
        tell(f"{part.name}: at most {budget:.0f} s")
        began = time.monotonic()
        try:
            bench.found[part.name] = part.run(budget)
            tell(f"{part.name}: done in {time.monotonic() - began:.0f} s")
        except LeftOut as reason:
            bench.left_out[part.name] = str(reason)
        except CommandFailed as failure:
            bench.left_out[part.name] = last_line(failure)
            tell(str(failure))
    if part.name in bench.left_out:
        tell(f"{part.name}: left out: {bench.left_out[part.name]}")


class LeftOut(Exception):
    """A part that cannot be measured here, and why."""


def last_line(failure: CommandFailed) -> str:
    """What was wrong, and the last words of the part."""
    first, *rest = [line for line in str(failure).splitlines() if line.strip()]
    reason = first.partition(" failed, ")[2].partition(". The end of")[0]
    return f"failed, {reason}: {rest[-1].strip()[:300]}" if rest else f"failed, {reason}"


def learner_part(bench: Bench, size: str, dtype: Dtype, *, budget_s: float) -> Part:
    name = f"learner {size} {dtype}"

    def run(deadline_s: float) -> Any:
        found = fitting(bench, size, dtype)
        asked = Asked(
            size=size,
            dtype=dtype,
            device=bench.device,
            work=bench.work(size),
            learner=found.learner,
            rounds=bench.rounds,
            budget_s=deadline_s - GRACE_S,
            data_sheet_tflops=bench.facts["data_sheet_tflops"],
        )
        command = [sys.executable, "-m", "benchmarks.gpu.learner_part"]
        measured = run_child(bench, name, command, dataclasses.asdict(asked), deadline_s)
        planned = {"planned_bytes": found.memory.total, "learner": found.learner}
        return {**measured, **planned}

    return Part(name, budget_s, least_s=30, run=run)


def trl_part(bench: Bench, size: str, dtype: Dtype, *, budget_s: float) -> Part:
    name = f"TRL {size} {dtype}"

    def run(deadline_s: float) -> Any:
        python = trl_python()
        found = fitting(bench, size, dtype)
        tokenizer = byte_tokenizer()
        tokenizer.save_pretrained(bench.folder / "tokenizer")
        asked = {
            "device": bench.device,
            "dtype": dtype,
            "config": {**SIZES[size], "max_position_embeddings": CONTEXT},
            "gradient_checkpointing": found.learner["gradient_checkpointing"],
            "microbatches": padded_rows(bench.work(size), found),
            "padding_id": tokenizer.pad_token_id,
            "rounds": bench.rounds,
            "budget_s": deadline_s - GRACE_S,
        }
        command = [python, str(Path(__file__).with_name("trl_part.py"))]
        return run_child(bench, name, command, asked, deadline_s)

    return Part(name, budget_s, least_s=30, run=run)


def step_part(bench: Bench, *, budget_s: float) -> Part:
    def run(deadline_s: float) -> Any:
        import torch

        if not importlib.util.find_spec("vllm"):
            raise LeftOut("vLLM is not installed here")
        return run_steps(
            bench.device,
            num_gpus=torch.cuda.device_count(),
            steps=3,
            folder=bench.folder / "step",
            deadline_s=deadline_s,
        )

    return Part("MGRPO step", budget_s, least_s=60, run=run)


def fitting(bench: Bench, size: str, dtype: Dtype) -> Fit:
    """How it trains here.

    Raises:
        LeftOut: by arithmetic the memory is too small.
    """
    found = bench.fit(size, dtype)
    if found.fault:
        raise LeftOut(found.fault)
    return found


def trl_python() -> str:
    """An interpreter that has TRL.

    Raises:
        LeftOut: there is none.
    """
    if importlib.util.find_spec("trl"):
        return sys.executable
    if TRL_PYTHON.exists():
        return str(TRL_PYTHON)
    raise LeftOut("TRL is not installed, neither here nor in .venv-trl")


def padded_rows(work: Work, found: Fit) -> list[list[dict[str, Any]]]:
    """The step in the micro-batches of the learner's padded form."""
    completions = step_of(work)
    lengths = [len(one.prompt_token_ids) + len(one.token_ids) - 1 for one in completions]
    budget: Any = found.learner["microbatch_tokens"]
    rows = [
        {
            "prompt": one.prompt_token_ids.tolist(),
            "completion": one.token_ids.tolist(),
            "advantage": 1.0 if one.reward and one.reward.correct else -1.0,
        }
        for one in completions
    ]
    plan = plan_microbatches(lengths, budget)
    return [[rows[place] for place in places] for places in plan]


def run_child(
    bench: Bench, name: str, command: Sequence[str], asked: dict[str, Any], deadline_s: float
) -> Any:
    """What a part wrote, also where it was ended.

    Raises:
        CommandFailed: it failed, and had measured nothing.
    """
    files = [bench.folder / f"{name.replace(' ', '-')}.{kind}.json" for kind in ("asked", "found")]
    files[0].write_text(json.dumps(asked), encoding="utf-8")
    try:
        run_command(
            [*command, *map(str, files)],
            log=bench.folder / f"{name.replace(' ', '-')}.log",
            deadline_s=deadline_s,
        )
    except CommandFailed as failure:
        if not files[1].exists():
            raise
        return {**json.loads(files[1].read_text(encoding="utf-8")), "ended": last_line(failure)}
    return json.loads(files[1].read_text(encoding="utf-8"))


def summary(bench: Bench, args: argparse.Namespace, *, seconds: float) -> Result:
    return {
        "benchmark": "gpu",
        "is_meaningful": bench.device == "cuda",
        "device": bench.facts,
        "ratios": ratios(bench.found),
        "parts": bench.found,
        "left_out": bench.left_out,
        "seconds": seconds,
        "command": " ".join(["python -m benchmarks.gpu", *sys.argv[1:]]),
        "date": time.strftime("%Y-%m-%d"),
        **machine(),
    }


def ratios(found: dict[str, Any]) -> dict[str, dict[str, float]]:
    """By name and policy; of times, how many times as long as the learner's tree."""
    result: dict[str, dict[str, float]] = {}

    def add(name: str, of: str, value: float) -> None:
        result.setdefault(name, {})[of] = value

    for name, part in found.items():
        kind, _, of = name.partition(" ")
        if kind != "learner" or "tree" not in part["forms"]:
            continue
        forms = part["forms"]
        tree = forms["tree"]["seconds"]
        for form in forms:
            if form != "tree":
                add(f"{form} over tree", of, forms[form]["seconds"] / tree)
            if forms[form]["mfu"] is not None:
                add(f"MFU, {form}", of, forms[form]["mfu"])
        if f"TRL {of}" in found:
            add("TRL over tree", of, found[f"TRL {of}"]["seconds"] / tree)
        other = found.get(f"learner {of.split()[0]} float32")
        if of.endswith("bfloat16") and other and "tree" in other["forms"]:
            add("float32 over bfloat16", of.split()[0], other["forms"]["tree"]["seconds"] / tree)
    return result


def page_lines(result: Result) -> Iterator[str]:
    facts = result["device"]
    rate = facts["data_sheet_tflops"]
    sheet = f"{rate} TFLOP/s by its data sheet" if rate else "no data sheet"
    yield f"{facts['name']}, {gib(facts['free_bytes'])} free, {sheet}.\n"
    if not result["is_meaningful"]:
        yield "A test of the command: these times mean nothing.\n"
    yield "| Policy | form | seconds (range) | trained tokens/s | TFLOP/s | MFU | memory |"
    yield "| --- | --- | ---: | ---: | ---: | ---: | ---: |"
    for name, part in result["parts"].items():
        kind, _, of = name.partition(" ")
        for form, one in part.get("forms", {}).items():
            mfu = "" if one["mfu"] is None else f"{one['mfu']:.1%}"
            rates = f"{one['tflops']:.3g} | {mfu}"
            yield f"| {of} | {form} | {measured(one)} | {rates} | {memory(one)} |"
        if kind == "TRL":
            yield f"| {of} | TRL {part['trl']} | {measured(part)} | | | {memory(part)} |"
    for form, what in FORMS.items():
        yield f"\n{form}: {what}." if form == "tree" else f"{form}: {what}."
    if step := result["parts"].get("MGRPO step"):
        yield (
            f"\nA step of MGRPO with vLLM, {step['order']}: {step['step_s']:.2f} s (sampling "
            f"{step['rollout_s']:.2f}, update {step['update_s']:.2f}, weights "
            f"{step['weights_s']:.2f}), {step['tokens_per_s']:,.0f} sampled tokens/s."
        )
    for name, reason in result["left_out"].items():
        yield f"\nLeft out: {name}: {reason}."
    yield ""
    yield from origin_lines(result)


def measured(one: dict[str, Any]) -> str:
    return (
        f"{one['seconds']:.3g} ({one['lowest_s']:.3g} to {one['highest_s']:.3g}) | "
        f"{one['trained_tokens_per_s']:,.0f}"
    )


def memory(one: dict[str, Any]) -> str:
    return "" if one["peak_bytes"] is None else gib(one["peak_bytes"])


def tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
