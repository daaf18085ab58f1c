"""The same loop on CUDA devices: `make test-gpu`. Each test skips where there are too few.

The policy is the tests' small random one, in bfloat16, so that what is tested is the way of the
weights and of the memory, and not speed.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from mgrpo.config import RunConfig
from mgrpo.config.load import load_recipe
from mgrpo.metrics.log import read_metrics
from mgrpo.plan.arithmetic import local_gpus
from mgrpo.plan.layout import laid_out_here
from mgrpo.training.run import run_training
from tests.end_to_end.conftest import recipe
from tests.end_to_end.test_colocate import engine_moves

STEPS = 4
LARGEST_GAP = 0.1  # nats between engine and learner, both in bfloat16
HELD = re.compile(r"weights away · ([\d.]+) GiB still held")
pytestmark = [pytest.mark.gpu, pytest.mark.timeout(1800)]


def needs(count: int) -> pytest.MarkDecorator:
    here = local_gpus()
    return pytest.mark.skipif(here < count, reason=f"needs {count} GPUs, and {here} are here")


def on_gpu(tree: dict[str, Any], *, cluster: dict[str, Any], **changes: Any) -> RunConfig:
    engines = {"gpu_memory_utilization": 0.4, **changes.pop("engines", {})}
    learner = {**tree["learner"], **changes.pop("learner", {})}
    return recipe(
        tree,
        steps=STEPS,
        model={**tree["model"], "dtype": "bfloat16"},
        engines=engines,
        learner=learner,
        cluster={"address": "local", "device": "cuda", **cluster},
        **changes,
    )


def check_whole(run_dir: Path) -> list[dict[str, Any]]:
    """Every step was made, verified, and sampled and trained from one policy."""
    rows = read_metrics(run_dir)
    assert [row["policy_version"] for row in rows] == list(range(1, STEPS + 1))
    assert all(row["weights/probe_gap_max"] < LARGEST_GAP for row in rows)
    assert all(row["mismatch/logprob_gap_mean"] < LARGEST_GAP for row in rows)
    assert all(row["memory/learner_peak_gib"] > 0 for row in rows)
    assert all(row["memory/fullest_gpu_gib"] > 0 for row in rows)
    assert (run_dir / "policy" / "model.safetensors").is_file()
    return rows


@needs(1)
def test_engine_and_learner_take_turns_on_one_gpu(
    tree: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_LOGGING_LEVEL", "INFO")  # it then says how much memory sleep frees
    config = on_gpu(
        tree,
        cluster={"colocate": True},
        engines={"shared": True},
        learner={"zero_stage": 2},
        checkpoints={"every_steps": 2},
        objective={"kl": {"weight": 0.01}},  # a frozen reference, which has to leave, too
    )
    run_training(config, tmp_path)
    check_whole(tmp_path)
    turn = ["asleep", "awake: weights", "awake: kv_cache and all"]
    assert engine_moves(tmp_path) == turn * (STEPS + 1)
    freed = [line for line in log_lines(tmp_path) if "Sleep mode freed" in line]
    assert len(freed) == STEPS + 1
    held = [float(gib) for line in log_lines(tmp_path) for gib in HELD.findall(line)]
    assert len(held) == STEPS + 1 and max(held) < 0.1, "the learner keeps memory of the GPU"


@needs(2)
def test_weights_go_by_nccl_to_an_engine_on_another_gpu(
    tree: dict[str, Any], tmp_path: Path
) -> None:
    config = on_gpu(tree, cluster={}, engines={"shared": True})
    run_training(config, tmp_path)
    check_whole(tmp_path)


@needs(3)
def test_weights_reach_an_engine_of_two_gpus(tree: dict[str, Any], tmp_path: Path) -> None:
    config = on_gpu(tree, cluster={}, engines={"shared": True, "tensor_parallel_size": 2})
    run_training(config, tmp_path)
    check_whole(tmp_path)


@needs(4)
def test_two_layers_and_two_sharded_ranks_have_gpus_of_their_own(
    tree: dict[str, Any], tmp_path: Path
) -> None:
    config = on_gpu(tree, cluster={}, learner={"num_ranks": 2, "zero_stage": 3})
    run_training(config, tmp_path)
    check_whole(tmp_path)


@needs(1)
def test_the_quickstart_makes_do_with_the_gpus_that_are_here(tmp_path: Path) -> None:
    few = ["steps=2", "evaluation.every_steps=0", "evaluation.max_problems=8"]
    config, said = laid_out_here(load_recipe("quickstart", [*few, "cluster.address=local"]))
    here = local_gpus()
    assert said and config.cluster.takes_turns == (here == 1)
    assert bool(config.engines.shared) == (here < 3)
    run_training(config, tmp_path)
    assert [row["policy_version"] for row in read_metrics(tmp_path)] == [1, 2]


def log_lines(run_dir: Path) -> list[str]:
    files = [path for path in (run_dir / "logs").rglob("*") if path.is_file()]
    return [line for path in files for line in path.read_text(errors="replace").splitlines()]
