"""Whether a vLLM engine has the learner's distribution after a real weight update."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import torch

from actors.engine import EngineSettings, VllmEngine
from mgrpo.config import RunConfig
from mgrpo.errors import MgrpoError
from mgrpo.records.token_columns import TokenIds
from mgrpo.records.turns import Prompt
from mgrpo.types import Completion, CompletionId, Reward

CONTEXT = 128
START_S, UPDATE_S = 240.0, 60.0
ENVIRONMENT = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "TORCHDYNAMO_DISABLE": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
}
"""As `mgrpo.training.launcher` starts an engine on a CPU."""
Found = TypeVar("Found")


class Wait(Protocol):
    """Runs an engine's call and returns what it returns."""

    def __call__(self, call: Coroutine[Any, Any, Found], deadline_s: float = ...) -> Found: ...


def measure_engine(model_dir: Path) -> dict[str, Any]:
    """Start an engine, train a step, broadcast, and compare log-probabilities of a fixed text.

    Returns:
        `status`: "compared", "not started" or "not updated", with `reason`; where they were
        compared, the mean gap in nats to the trained learner before and after the broadcast.
    """
    os.environ.update(ENVIRONMENT)
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()

    def wait(call: Coroutine[Any, Any, Found], deadline_s: float = UPDATE_S) -> Found:
        return asyncio.run_coroutine_threadsafe(call, loop).result(deadline_s)

    engine = VllmEngine(
        EngineSettings(
            name="engine",
            model_dir=str(model_dir),
            dtype="float32",
            max_model_len=CONTEXT,
            max_num_seqs=8,
            tensor_parallel_size=1,
            gpu_memory_utilization=0.9,
            enforce_eager=True,
            device="cpu",
            weight_backend="gloo",
            seed=0,
            extra_args={},
        )
    )
    try:
        try:
            wait(engine.start(), START_S)
        except (MgrpoError, TimeoutError) as error:
            return {"status": "not started", "reason": str(error)}
        try:
            return compared(engine, wait, model_dir)
        except Exception as error:  # whatever vLLM raises while it loads weights
            return {"status": "not updated", "reason": f"{type(error).__name__}: {error}"}
    finally:
        wait(engine.stop())


def compared(engine: VllmEngine, wait: Wait, model_dir: Path) -> dict[str, Any]:
    from cluster.address import free_port
    from cluster.weight_sync.weight_sending import open_sender
    from learner.deepspeed_learner import DeepSpeedLearner
    from learner.recipe import learner_recipe

    learner = DeepSpeedLearner(
        recipe=learner_recipe(recipe()),
        model_dir=str(model_dir),
        rank=0,
        num_ranks=1,
        master_address="127.0.0.1",
        master_port=free_port(),
        device="cpu",
        max_row_tokens=CONTEXT,
    )
    probe = torch.randint(20, 250, (48,), generator=torch.Generator().manual_seed(2)).tolist()
    untrained = learner.probe_logprobs(probe)
    at_start = mean_gap(untrained, wait(engine.probe_logprobs(probe)))
    learner.update(completions())
    trained = learner.probe_logprobs(probe)
    before = mean_gap(trained, wait(engine.probe_logprobs(probe)))
    sender = open_sender(
        learner,
        DirectClient(engine, wait),
        backend="gloo",
        rank=0,
        master_address="127.0.0.1",
        master_port=0,
        num_receivers=1,
        timeout_s=UPDATE_S,
        with_checksums=True,
        packed_buffer_bytes=1 << 20,
    )
    wait(engine.pause(in_flight=False))
    sender.send_weights()
    wait(engine.resume())
    received = wait(engine.received_checksums())[0]
    after = mean_gap(trained, wait(engine.probe_logprobs(probe)))
    return {
        "status": "compared",
        "reason": "" if received == sender.source.sent else "checksums differ",
        "tensors_sent": len(received),
        "gap_at_start": at_start,
        "gap_before": before,
        "gap_after": after,
    }


class DirectClient:
    """vLLM's four-method client protocol, on an engine of this process."""

    def __init__(self, engine: VllmEngine, wait: Wait) -> None:
        self.engine, self.wait = engine, wait

    def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        self.wait(self.engine.init_weight_transfer_engine(init_info))

    def start_weight_update(self) -> None:
        self.wait(self.engine.start_weight_update())

    def update_weights(self, update_info: Any) -> None:
        self.wait(self.engine.update_weights(update_info))

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        self.wait(self.engine.finish_weight_update(weight_version or "1"))


def mean_gap(expected: list[float], found: list[float]) -> float:
    """Nats; NaN where a number is not one."""
    gaps = torch.tensor(expected, dtype=torch.float64) - torch.tensor(found, dtype=torch.float64)
    return float(gaps.abs().mean())


def recipe() -> RunConfig:
    """A learning rate at which one step moves log-probabilities by nats."""
    return RunConfig.model_validate(
        {
            "name": "architectures",
            "steps": 1,
            "prompts_per_step": 1,
            "layers": [{"name": "solve", "group_size": 4, "max_completion_tokens": 24}],
            "learner": {"learning_rate": 1e-2, "num_threads": 1},
            "model": {"path": "tiny", "dtype": "float32"},
            "data": {"train": {"source": "jsonl", "path": "none"}},
        }
    )


def completions() -> list[Completion]:
    """One group of random tokens, half of it right."""
    generator = torch.Generator().manual_seed(3)

    def draw(count: int) -> TokenIds:
        return torch.randint(20, 250, (count,), generator=generator).numpy().astype(np.int32)

    prompt = Prompt.of(draw(12))
    return [
        Completion(
            id=CompletionId(0, 0, (number,)),
            problem_id="p",
            domain="default",
            layer=1,
            parent_id=None,
            group_key="p",
            prompt=prompt,
            token_ids=draw(20),
            rollout_logprobs=np.full(20, -5.0, np.float32),
            finish_reason="stop",
            version_spans=((0, 0),),
            text="",
            prompt_text="",
            reward=Reward(value=float(number % 2), correct=bool(number % 2)),
        )
        for number in range(1, 5)
    ]
