"""What vLLM is told, by device."""

from __future__ import annotations

from typing import Any

import pytest

from actors.engine import EngineSettings, engine_arguments
from mgrpo.errors import ModelError


def settings(**changes: Any) -> EngineSettings:
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
    return EngineSettings(**{**given, **changes})


def arguments(**changes: Any) -> dict[str, Any]:
    return engine_arguments(settings(**changes))


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


def test_every_setting_of_an_engine_reaches_vllm() -> None:
    given = {
        "dtype": "float16",
        "max_model_len": 777,
        "max_num_seqs": 33,
        "tensor_parallel_size": 4,
        "gpu_memory_utilization": 0.37,
        "enforce_eager": True,
        "seed": 41,
    }
    found = arguments(**given, model_dir="/models/other")
    assert {name: found[name] for name in given} == given
    assert found["model"] == "/models/other"
    assert found["weight_transfer_config"].backend == "mgrpo_nccl"
    assert found["worker_extension_cls"] == "cluster.weight_sync.weight_transfer.WeightInspector"
    assert "enable_sleep_mode" not in found


@pytest.mark.parametrize(
    ("extra_args", "message"),
    [
        ({"enable_chunked_prefill": True}, "sets enable_chunked_prefill"),
        ({"worker_extension_cls": "no.such:Thing"}, "worker_extension_cls"),
        ({"worker_extension_cls": "collections.OrderedDict"}, "is not a subclass of cluster."),
    ],
)
def test_extra_args_that_an_engine_cannot_start_with(
    extra_args: dict[str, Any], message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        arguments(device="cpu", weight_backend="gloo", extra_args=extra_args)


def test_an_engine_that_drafts_has_our_drafter_and_worker() -> None:
    found = arguments(max_draft_tokens=5)
    assert found["speculative_config"] == {
        "method": "custom_class",
        "model": "actors.draft_worker.Drafter",
        "num_speculative_tokens": 5,
    }
    assert found["worker_extension_cls"] == "actors.draft_worker.DraftWorker"
    assert "speculative_config" not in arguments()


def test_an_engine_that_drafts_takes_no_worker_that_cannot() -> None:
    own = {"worker_extension_cls": "cluster.weight_sync.weight_transfer.WeightInspector"}
    assert arguments(extra_args=own)["worker_extension_cls"] == own["worker_extension_cls"]
    with pytest.raises(ModelError, match=r"not a subclass of actors\.draft_worker\.DraftWorker"):
        arguments(extra_args=own, max_draft_tokens=5)
