"""Steps of MGRPO by `mgrpo train`: vLLM's engine, the learner and the weights between them."""

from __future__ import annotations

import statistics
import sys
from pathlib import Path
from typing import Any

from benchmarks.commands import run_command
from benchmarks.gpu.device import Device
from benchmarks.workload import Profile, recipe, write_workload
from mgrpo.config import RunConfig
from mgrpo.config.load import save_recipe
from mgrpo.metrics.log import read_metrics

WARM_UP_STEPS = 1
PROFILES: dict[Device, Profile] = {
    "cuda": Profile(  # the layers of the 0.5B policy; a vocabulary of bytes
        hidden_size=896,
        num_layers=24,
        head_dim=64,
        intermediate_size=4864,
        num_prompts=16,
        group_size=8,
        completion_tokens=256,
        trl_batch_size=8,
        context=2048,
    ),
    "cpu": Profile(
        hidden_size=64,
        num_layers=2,
        head_dim=32,
        intermediate_size=128,
        num_prompts=2,
        group_size=2,
        completion_tokens=12,
        trl_batch_size=4,
    ),
}
CORRECTIONS = 4
MEASURED = ("step", "rollout", "update", "weights")


def mgrpo_recipe(device: Device, *, num_gpus: int, steps: int, folder: Path) -> RunConfig:
    """The workload of the step-time benchmark, with a layer of corrections.

    Problems are trained on as they are sampled where engine and learner have devices of their own,
    or cores. On one GPU they take turns.
    """
    profile = PROFILES[device]
    plain = recipe(profile, steps, folder)
    correct = {
        "name": "correct",
        "kind": "correct",
        "group_size": CORRECTIONS,
        "max_completion_tokens": profile.completion_tokens,
        "system_prompt": "",
        "skip_truncated_parents": False,
    }
    own: dict[str, Any] = {
        "name": "mgrpo-step",
        "method": "MGRPO",
        "layers": [*plain["layers"], correct],
    }
    if device == "cuda":
        own["model"] = {**plain["model"], "dtype": "bfloat16"}
        own["engines"] = {"enforce_eager": True, "shared": True}
        own["cluster"] = {"address": "local", "device": "cuda", "colocate": "auto"}
    if device == "cpu" or num_gpus > 1:
        own["pipeline"] = {"max_staleness_steps": 0}
    return RunConfig.model_validate({**plain, **own})


def run_steps(
    device: Device, *, num_gpus: int, steps: int, folder: Path, deadline_s: float
) -> dict[str, Any]:
    """Median seconds and tokens of the steps after the first.

    Raises:
        CommandFailed: the run failed, or did not end in time.
    """
    write_workload(PROFILES[device], steps, folder)
    config = mgrpo_recipe(device, num_gpus=num_gpus, steps=steps, folder=folder)
    save_recipe(config, folder / "mgrpo.yaml")
    command = [sys.executable, "-m", "mgrpo", "train", str(folder / "mgrpo.yaml"), "--run", "step"]
    run_command(command, log=folder / "mgrpo.log", deadline_s=deadline_s)
    rows = read_metrics(folder / "runs" / "step")[WARM_UP_STEPS:]
    medians = {name: statistics.median(row[f"seconds/{name}"] for row in rows) for name in MEASURED}
    tokens = statistics.median(row["tokens/generated"] for row in rows)
    return {
        "order": "streamed" if config.pipeline.max_staleness_steps == 0 else "in turns",
        "steps": len(rows),
        "tokens_per_step": tokens,
        "tokens_per_s": tokens / medians["step"],
        **{f"{name}_s": value for name, value in medians.items()},
    }
