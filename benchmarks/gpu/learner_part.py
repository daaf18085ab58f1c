"""The real learner on one device, on batches laid out in several ways; a process of its own.

    python -m benchmarks.gpu.learner_part ASKED.json FOUND.json

FOUND is written anew after every round, so that a process that is ended has left what it measured.
"""

from __future__ import annotations

import dataclasses
import json
import socket
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.gpu.device import Device, begin_peak, matmul_tflops, peak_bytes, rest
from benchmarks.gpu.sizes import SIZES, Dtype, shape_by_name, update_flops
from benchmarks.learner_update import SEED, Work, make_step, recipe_of
from benchmarks.method_overhead import OneOfMany
from learner.columns import Metrics
from learner.logprobs import PolicyModel
from learner.policy_loading import checkpoint_in_evaluation
from learner.recipe import learner_recipe
from mgrpo.records.turns import Prompt
from mgrpo.types import Completion, Reward

CONTEXT = 8192
SMALLEST_TOKEN = 3
FORMS = {
    "tree": "prefixes that rows share are computed once",
    "streamed": "the same, one problem after the other, as they are sampled to the end",
    "packed": "rows end to end, nothing shared: each begins with a token of its own",
    "padded": "rows of similar length, padded to the longest",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Asked:
    """One policy and its step."""

    size: str
    dtype: Dtype
    device: Device
    work: Work
    learner: dict[str, object]  # keys of the recipe's section
    rounds: int
    budget_s: float  # no round begins that would probably end later
    data_sheet_tflops: float | None


def main() -> int:
    asked, output = asked_in(Path(sys.argv[1])), Path(sys.argv[2])

    def keep(found: dict[str, Any]) -> None:
        written = output.with_suffix(".new")
        written.write_text(json.dumps(found), encoding="utf-8")
        written.replace(output)

    measure(asked, keep)
    return 0


def asked_in(file: Path) -> Asked:
    given = json.loads(file.read_text(encoding="utf-8"))
    work = Work(**{**given["work"], "groups": tuple(given["work"]["groups"])})
    return Asked(**{**given, "work": work})


class RandomPolicy(OneOfMany):
    """The learner with random weights in place of a folder's."""

    size: str

    def _load(
        self, model_dir: str, *, gradient_checkpointing: bool = False, merge_prefixes: bool = False
    ) -> PolicyModel:
        policy = PolicyModel(random_model(self.size, self._dtype, str(self.device))).eval()
        if gradient_checkpointing:
            checkpoint_in_evaluation(policy.causal_lm)
        return policy


def random_model(size: str, dtype: torch.dtype, device: str) -> Any:
    """A policy of transformers, made on the device that trains it."""
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(SEED)
    settings = dict(SIZES[size])
    config = AutoConfig.for_model(
        settings.pop("model_type"), max_position_embeddings=CONTEXT, **settings
    )
    with torch.device(device):
        return AutoModelForCausalLM.from_config(config, dtype=dtype)


def make_learner(asked: Asked) -> RandomPolicy:
    torch.backends.cuda.matmul.allow_tf32 = False
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    kind = type("RandomPolicyOfSize", (RandomPolicy,), {"size": asked.size})
    learner: RandomPolicy = kind(
        recipe=learner_recipe(recipe_of(asked.work, **asked.learner, model_dtype=asked.dtype)),
        model_dir=asked.size,
        rank=0,
        num_ranks=1,
        master_address="127.0.0.1",
        master_port=port,
        device=asked.device,
    )
    return learner


def step_of(work: Work) -> list[Completion]:
    """A step in which rewards of each group differ, so that every row trains."""
    return [
        dataclasses.replace(one, reward=Reward(value=reward, correct=reward > 0))
        for one in make_step(work)
        for reward in [float(one.id.path[-1] % 2)]
    ]


def without_shared_prefixes(completions: Sequence[Completion]) -> list[Completion]:
    """The same rows, each with another first token."""
    changed = []
    for number, one in enumerate(completions):
        prompt = np.array(one.prompt_token_ids)
        prompt[0] = SMALLEST_TOKEN + number
        changed.append(dataclasses.replace(one, prompt=Prompt.of(prompt)))
    return changed


def updates_of(
    learner: RandomPolicy, completions: list[Completion]
) -> dict[str, Callable[[], Metrics]]:
    """One update in each form."""
    reader = learner._trainer.reader
    alone = without_shared_prefixes(completions)

    def whole(rows: list[Completion], *, is_merged: bool) -> Metrics:
        reader.merges_prefixes = is_merged
        found = learner.update(rows)
        assert found is not None
        return found.metrics

    def streamed() -> Metrics:
        reader.merges_prefixes = True
        learner.begin_update()
        for slot in sorted({one.id.slot for one in completions}):
            learner.add_trees([one for one in completions if one.id.slot == slot])
        found = learner.finish_update()
        assert found is not None
        return found.metrics

    return {
        "tree": lambda: whole(completions, is_merged=True),
        "streamed": streamed,
        "packed": lambda: whole(alone, is_merged=True),
        "padded": lambda: whole(completions, is_merged=False),
    }


def measure(asked: Asked, keep: Callable[[dict[str, Any]], None]) -> None:
    """Updates of all forms in turns, the first of each left out, until rounds or time end."""
    began = time.monotonic()
    learner = make_learner(asked)
    started_s = time.monotonic() - began
    rate = matmul_tflops(asked.device, getattr(torch, asked.dtype))
    completions = step_of(asked.work)
    shape = shape_by_name(asked.size)
    arithmetic = {
        form: update_flops(shape, completions, is_shared=form in ("tree", "streamed"))
        for form in FORMS
    }
    updates = updates_of(learner, completions)
    seconds: dict[str, list[float]] = {form: [] for form in updates}
    found: dict[str, Any] = {
        "start_s": started_s,
        "matmul_tflops": rate,
        "trained_tokens": sum(len(one.token_ids) for one in completions),
        "forms": {},
    }
    try:
        for number in range(asked.rounds + 1):
            round_began = time.monotonic()
            for form, update in updates.items():
                begin_peak(asked.device)
                rest(asked.device)
                update_began = time.perf_counter()
                metrics = update()
                rest(asked.device)
                if number == 0:
                    continue
                seconds[form].append(time.perf_counter() - update_began)
                found["forms"][form] = {
                    **figures(asked, seconds[form], arithmetic[form], rate),
                    "peak_bytes": peak_bytes(asked.device),
                    "grad_norm": metrics["learner/grad_norm"][0],
                    "computed_tokens": metrics["learner/input_tokens"][0],
                }
                found["forms"][form]["trained_tokens_per_s"] = found[
                    "trained_tokens"
                ] / statistics.median(seconds[form])
                keep(found)
            spent = time.monotonic() - began
            if spent + (time.monotonic() - round_began) > asked.budget_s:
                break
    finally:
        learner.close()


def figures(
    asked: Asked, seconds: Sequence[float], arithmetic: dict[str, float], matmul: float
) -> dict[str, Any]:
    """Of one form's updates. MFU counts the form's own tokens, without padding."""
    median = statistics.median(seconds)
    tflops = arithmetic["flops"] / median / 1e12
    peak = asked.data_sheet_tflops if asked.dtype == "bfloat16" else None
    return {
        "seconds": median,
        "lowest_s": min(seconds),
        "highest_s": max(seconds),
        "rounds": len(seconds),
        "tokens": arithmetic["tokens"],
        "tflops": tflops,
        "mfu": None if peak is None else tflops / peak,
        "share_of_matmul": tflops / matmul,
    }


if __name__ == "__main__":
    sys.exit(main())
