"""What vLLM is told, by device."""

from __future__ import annotations

from typing import Any

import pytest

from actors.engine import EngineSettings, engine_arguments


def arguments(**changes: Any) -> dict[str, Any]:
    given: dict[str, Any] = {
        "name": "engine-0",
        "model_dir": "/models/policy",
        "dtype": "bfloat16",
        "max_model_len": 4096,
        "max_num_seqs": 256,
        "tensor_parallel_size": 1,
        "gpu_memory_utilization": 0.9,
        "enforce_eager": False,
        "device": "cuda",
        "weight_backend": "nccl",
        "seed": 0,
        "extra_args": {},
    }
    return engine_arguments(EngineSettings(**{**given, **changes}))


def test_an_engine_of_several_gpus_keeps_its_workers_inside_its_actor() -> None:
    """Left alone, vLLM asks Ray's placement group for a bundle per GPU; ours has all in one."""
    assert arguments(tensor_parallel_size=2)["distributed_executor_backend"] == "mp"
    assert "distributed_executor_backend" not in arguments()
    assert "distributed_executor_backend" not in arguments(tensor_parallel_size=2, device="cpu")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, {"max_num_batched_tokens": 8192}),
        ({"max_model_len": 20_000}, {"max_num_batched_tokens": 8192}),  # prompts come in chunks
        (
            {"max_model_len": 20_000, "device": "cpu"},
            {"max_num_batched_tokens": 20_000, "enable_chunked_prefill": False},
        ),
        ({"shares_gpu": True, "weight_backend": "ipc"}, {"enable_sleep_mode": True}),
        ({"extra_args": {"max_num_batched_tokens": 512}}, {"max_num_batched_tokens": 512}),
    ],
)
def test_arguments_by_device(changes: dict[str, Any], expected: dict[str, Any]) -> None:
    found = arguments(**changes)
    assert {name: found[name] for name in expected} == expected
    assert found["logprobs_mode"] == "processed_logprobs"
