"""The learner's side of the transfer: payloads, checksums, NCCL's set-up and its end."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from vllm.distributed.weight_transfer import nccl_engine

from cluster.weight_sync.checksum import tensor_checksum
from cluster.weight_sync.weight_sending import AbortingClient, LearnerSource, open_sender
from cluster.weight_sync.weight_transfer import CheckedNcclReceiver
from mgrpo.errors import ActorDiedError
from tests.contracts.sources import ROOT


class TwoWeights:
    """A learner with two tensors that counts how often it is read."""

    def __init__(self) -> None:
        self.tensors = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(4)}
        self.num_passes = 0

    def weight_metadata(self) -> list[tuple[str, str, tuple[int, ...]]]:
        return [(name, "float32", tuple(t.shape)) for name, t in self.tensors.items()]

    def iter_weights(self) -> Iterator[tuple[str, Tensor]]:
        self.num_passes += 1
        yield from self.tensors.items()


class RecordingClient:
    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []

    def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        self.calls.append(("init", init_info))

    def start_weight_update(self) -> None:
        self.calls.append(("start", None))

    def update_weights(self, update_info: Any) -> None:
        self.calls.append(("update", update_info))

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        self.calls.append(("finish", weight_version))


def nccl_sender(rank: int, client: RecordingClient, learner: TwoWeights) -> Any:
    return open_sender(
        learner,
        client,
        backend="nccl",
        rank=rank,
        master_address="10.0.0.1",
        master_port=29600,
        num_receivers=4,
        timeout_s=5,
        with_checksums=True,
        packed_buffer_bytes=1 << 20,
    )


def test_a_rank_that_does_not_send_still_reads_the_weights_and_calls_nobody() -> None:
    client, learner = RecordingClient(), TwoWeights()
    nccl_sender(1, client, learner).send_weights()
    assert learner.num_passes == 1 and client.calls == []


def test_the_gpu_senders_init_info_is_what_our_receiver_accepts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(nccl_engine, "open_trainer_endpoint", lambda info: object())
    client = RecordingClient()
    nccl_sender(0, client, TwoWeights())
    [(call, payload)] = client.calls
    assert call == "init"
    info = CheckedNcclReceiver.init_info_cls(**payload)
    assert (info.master_address, info.master_port) == ("10.0.0.1", 29600)
    assert (info.rank_offset, info.world_size) == (1, 5)
    assert info.packed and info.packed_buffer_size_bytes == 1 << 20


def test_the_source_notes_a_checksum_of_each_tensor_it_sends() -> None:
    learner = TwoWeights()
    source = LearnerSource(learner, with_checksums=True)
    assert [name for name, _ in source] == ["a", "b"] == [m.name for m in source.metadata()]
    assert source.sent == {name: tensor_checksum(t) for name, t in learner.tensors.items()}
    assert source.num_bytes == sum(tensor.nbytes for tensor in learner.tensors.values())


def test_what_a_failed_broadcast_left_over_is_iterated_so_that_no_rank_waits() -> None:
    learner = TwoWeights()
    source = LearnerSource(learner, with_checksums=True)
    pairs = iter(source)
    next(pairs)  # the broadcast failed after the first tensor
    source.finish_iteration()
    assert next(pairs, None) is None and learner.num_passes == 1
    assert sorted(source.sent) == ["a", "b"]

    source.iterating = None  # it failed before the first tensor, and the others iterate already
    source.finish_iteration()
    assert learner.num_passes == 2


class FailingClient(RecordingClient):
    def update_weights(self, update_info: Any) -> None:
        raise ActorDiedError("layer1-engine-1 died during the call to update_weights")


def test_nccl_s_broadcast_is_aborted_when_an_engine_fails() -> None:
    aborted: list[bool] = []
    client = AbortingClient(FailingClient(), lambda: aborted.append(True))
    client.start_weight_update()
    assert not aborted
    with pytest.raises(ActorDiedError):
        client.update_weights({})
    assert aborted == [True]


def test_the_nccl_sender_aborts_its_own_communicator(monkeypatch: pytest.MonkeyPatch) -> None:
    destroyed: list[bool] = []

    class Communicator:
        def destroy(self) -> None:
            destroyed.append(True)

    monkeypatch.setattr(nccl_engine, "open_trainer_endpoint", lambda info: Communicator())
    sender = nccl_sender(0, FailingClient(), TwoWeights())
    with pytest.raises(ActorDiedError):
        sender.client.update_weights({})
    assert destroyed == [True] and sender.model_update_group is None
    sender.shutdown()  # a second time does nothing
    assert destroyed == [True]


def test_a_rank_that_sends_imports_none_of_vllm_s_models() -> None:
    code = (
        "import sys, cluster.weight_sync.weight_sending\n"
        "print(*(name for name in sys.modules if name.startswith('vllm.model_executor.model')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=200,
        check=True,
    )
    assert done.stdout.split() == []
