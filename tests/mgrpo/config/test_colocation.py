"""Recipes whose engines and learner share their GPUs."""

from __future__ import annotations

import pytest

from cluster.allocations import groups_of, placement_recipe, plan_allocations
from mgrpo.config.load import load_recipe
from mgrpo.errors import ConfigError
from mgrpo.plan.arithmetic import gpu_line
from mgrpo.plan.recipe import plan_recipe
from mgrpo.training.launcher import weight_backend

TWO_GPUS = ("engines.num_shared_engines=2", "learner.num_ranks=2")


def refusal(*overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_recipe("one_gpu", overrides)
    return str(caught.value)


def test_the_shipped_recipe_wants_one_gpu_for_everything() -> None:
    config = load_recipe("one_gpu")
    line = gpu_line(plan_recipe(config), gpus=1)
    assert line.status == "ok"
    assert line.detail == "1 GPU: an engine and a learner rank on each, in turn"
    assert weight_backend(config.weights, config.cluster, "cuda") == "ipc"
    assert weight_backend(config.weights, config.cluster, "cpu") == "gloo"


def test_engine_and_rank_of_a_gpu_sit_in_one_bundle() -> None:
    allocations = plan_allocations(placement_recipe(load_recipe("one_gpu", TWO_GPUS)), "cuda")
    assert [
        (allocation.name, allocation.group, allocation.first_bundle) for allocation in allocations
    ] == [
        ("engine-0", "colocated", 0),
        ("engine-1", "colocated", 1),
        ("learner", "colocated", 0),
    ]
    (group,) = groups_of(allocations)
    assert group.bundles == ({"CPU": 2.0, "GPU": 1.0},) * 2
    assert group.strategy == "PACK" and group.has_learner
    assert str(group) == "2 x (2 CPU, 1 GPU)"


@pytest.mark.parametrize(
    ("overrides", "path", "hint"),
    [
        (["engines.shared=false"], "engines.shared = false", "Use engines.shared: true."),
        (
            ["learner.num_ranks=2"],
            "engines.num_shared_engines = 1",
            "Nearest valid value: 2.",
        ),
        (
            ["engines.num_shared_engines={min: 1, max: 2}"],
            "engines.num_shared_engines = {min: 1, max: 2}",
            "Nearest valid value: 1.",
        ),
        (
            ["engines.tensor_parallel_size=2"],
            "engines.tensor_parallel_size = 2",
            "Nearest valid value: 1.",
        ),
        (["learner.zero_stage=3"], "learner.zero_stage = 3", "Use zero_stage: 2."),
        (["learner.zero_stage=1"], "learner.zero_stage = 1", "Use zero_stage: 2."),
        (["weights.backend=nccl"], "weights.backend = nccl", "Use auto."),
        (
            ["cluster.engine_nodes.labels.role=rollout"],
            "cluster.engine_nodes = (given)",
            "Use cluster.learner_nodes.",
        ),
        (
            ["learner.deepspeed.zero_optimization.offload_param.device=cpu"],
            "learner.deepspeed.zero_optimization.offload_param = (given)",
            "Remove the key; offload_optimizer",
        ),
        (
            ["cluster.colocate=false", "weights.backend=ipc"],
            "weights.backend = ipc",
            "Use auto, or cluster.colocate.",
        ),
    ],
)
def test_what_cannot_take_turns_is_refused_with_what_to_do(
    overrides: list[str], path: str, hint: str
) -> None:
    message = refusal(*overrides)
    assert path in message
    assert hint in message
