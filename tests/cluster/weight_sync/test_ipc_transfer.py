"""Weights within a GPU: vLLM's packing and our checksums, with the CPU's memory for the GPU's.

What a GPU would do and these tests do not: open another process's memory by its handle.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.multiprocessing import reductions
from vllm.distributed.weight_transfer import ipc_engine, packed_tensor

from cluster.weight_sync.checksum import tensor_checksum
from cluster.weight_sync.engine_client import EngineClient
from cluster.weight_sync.ipc_transfer import CheckedIpcReceiver
from cluster.weight_sync.weight_sending import open_sender
from mgrpo.errors import ActorDiedError
from tests.cluster.asked import AskedActor

UUID = "GPU-0"
NO_DEVICE_ARGS = 6  # rebuild_cuda_tensor's arguments before the device's index


class ThreeWeights:
    """A learner with 24, 16 and 40 bytes of weights."""

    def __init__(self) -> None:
        self.tensors = {
            "a": torch.arange(6.0).reshape(2, 3),
            "b": torch.ones(4),
            "c": torch.arange(10.0) * 0.1,
        }

    def weight_metadata(self) -> list[tuple[str, str, tuple[int, ...]]]:
        return [(name, "float32", tuple(t.shape)) for name, t in self.tensors.items()]

    def iter_weights(self) -> Iterator[tuple[str, Tensor]]:
        yield from self.tensors.items()


class Model:
    """Keeps what it is given, as vLLM's layerwise reload does until a layer is whole."""

    def __init__(self) -> None:
        self.loaded: dict[str, Tensor] = {}

    def load_weights(self, weights: Any) -> None:
        self.loaded.update(weights)


@pytest.fixture
def cpu_as_gpu(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """Memory "on the GPU" is the CPU's, and a handle is a number that stands for a tensor."""
    exported: list[Tensor] = []
    empty = torch.empty

    def empty_here(*sizes: Any, device: Any = None, **keys: Any) -> Tensor:
        return empty(*sizes, **keys)

    stream = SimpleNamespace(synchronize=lambda: None)
    properties = SimpleNamespace(uuid=UUID)
    monkeypatch.setattr(packed_tensor.torch, "empty", empty_here)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: stream)
    monkeypatch.setattr(torch.cuda, "ipc_collect", lambda: None)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: properties)
    monkeypatch.setattr(torch.accelerator, "current_device_index", lambda: 0)

    def handle(tensor: Tensor) -> tuple[None, tuple[Any, ...]]:
        exported.append(tensor)
        return None, (len(exported) - 1, *range(1, NO_DEVICE_ARGS), 0)

    monkeypatch.setattr(packed_tensor, "reduce_tensor", handle)
    monkeypatch.setattr(ipc_engine, "reduce_tensor", handle)
    monkeypatch.setattr(reductions, "rebuild_cuda_tensor", lambda number, *_: exported[number])
    return exported


class ClientOfOne:
    """Drives one receiver in this process, as an engine's worker would be."""

    def __init__(self, receiver: CheckedIpcReceiver) -> None:
        self.receiver = receiver
        self.chunks: list[list[str]] = []

    def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        self.receiver.init_transfer_engine(CheckedIpcReceiver.init_info_cls(**init_info))

    def start_weight_update(self) -> None:
        self.receiver.received = {}

    def update_weights(self, update_info: dict[str, Any]) -> None:
        self.chunks.append(update_info["names"])
        self.receiver.receive_weights(CheckedIpcReceiver.update_info_cls(**update_info))

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        self.receiver._packed_importer.close()


def receiver_of(model: Model) -> CheckedIpcReceiver:
    parts: Any = SimpleNamespace(parallel_config=None, model_config=None)
    return CheckedIpcReceiver(None, parts, torch.device("cpu", 0), model)


def sender_to(client: Any, learner: ThreeWeights, *, buffer_bytes: int) -> Any:
    return open_sender(
        learner,
        client,
        backend="ipc",
        rank=0,
        master_address="127.0.0.1",
        master_port=0,
        num_receivers=1,
        timeout_s=5,
        with_checksums=True,
        packed_buffer_bytes=buffer_bytes,
    )


@pytest.mark.usefixtures("cpu_as_gpu")
def test_every_tensor_arrives_as_sent_although_the_buffer_is_used_again() -> None:
    model, learner = Model(), ThreeWeights()
    receiver = receiver_of(model)
    client = ClientOfOne(receiver)
    sender = sender_to(client, learner, buffer_bytes=40)
    sender.send_weights()

    assert client.chunks == [["a", "b"], ["c"]]  # 24 + 16 bytes fill the buffer
    for name, tensor in learner.tensors.items():
        assert torch.equal(model.loaded[name], tensor)
    assert receiver.received == sender.source.sent
    assert sender.source.sent["c"] == tensor_checksum(learner.tensors["c"])
    assert receiver.model is model


@pytest.mark.usefixtures("cpu_as_gpu")
def test_the_buffer_holds_the_largest_tensor_whatever_the_recipe_says() -> None:
    learner = ThreeWeights()
    client = ClientOfOne(receiver_of(Model()))
    sender = sender_to(client, learner, buffer_bytes=8)
    assert sender.packed_buffer_size_bytes == 4 * math.prod(learner.tensors["c"].shape)
    sender.send_weights()
    assert client.chunks == [["a", "b"], ["c"]]


def test_a_tensor_that_changes_on_the_way_is_seen(cpu_as_gpu: list[Tensor]) -> None:
    learner = ThreeWeights()
    receiver = receiver_of(Model())

    class Corrupting(ClientOfOne):
        def update_weights(self, update_info: dict[str, Any]) -> None:
            cpu_as_gpu[update_info["ipc_handles"][UUID][0]][0] ^= 1
            super().update_weights(update_info)

    sender = sender_to(Corrupting(receiver), learner, buffer_bytes=1 << 10)
    sender.send_weights()
    differing = [n for n in learner.tensors if receiver.received[n] != sender.source.sent[n]]
    assert differing == ["a"]


@pytest.mark.usefixtures("cpu_as_gpu")
@pytest.mark.parametrize("where", ["start_weight_update", "update_weights"])
def test_a_sender_whose_engine_died_meets_the_other_ranks_to_the_end(
    monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    learner = ThreeWeights()
    client = ClientOfOne(receiver_of(Model()))

    def dies(*_: Any) -> None:
        raise ActorDiedError("engine-1 is gone")

    monkeypatch.setattr(client, where, dies)
    finished: list[str | None] = []
    monkeypatch.setattr(client, "finish_weight_update", finished.append)
    sender = sender_to(client, learner, buffer_bytes=40)
    meetings: list[str] = []
    monkeypatch.setattr(sender, "_post_send_sync", lambda: meetings.append("met"))
    with pytest.raises(ActorDiedError, match="engine-1 is gone"):
        sender.send_weights()
    assert len(meetings) == 3  # after each of two chunks, and at the end
    assert sender.source.sent.keys() == learner.tensors.keys()
    assert finished == [] and client.chunks == []
    assert sender.client is client


def test_a_transport_without_ranks_gets_none() -> None:
    seen: list[dict[str, Any]] = []

    class Client(EngineClient):
        def wait(self, calls: Any, doing: str | None = None) -> list[Any]:
            seen.extend(call.args[0] for call in calls)
            return []

    engines: Any = [AskedActor("e")] * 2
    Client(engines, workers_per_engine=1, deadline_s=1).init_weight_transfer_engine(
        {"packed": True}
    )
    assert seen == [{"packed": True}] * 2
