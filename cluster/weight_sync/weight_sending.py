"""vLLM's weight-transfer lifecycle, the learner's side; see `weight_transfer` for the engines'.

It imports none of vLLM's models, whose import costs a rank another 2.5 CPU seconds. Importing this
module registers our senders in vLLM's factory.
"""

from __future__ import annotations

import math
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Protocol, Self

import torch
from torch import Tensor
from vllm.distributed.weight_transfer.base import (
    ParamMeta,
    TrainerInitInfo,
    VLLMWeightSyncClient,
    WeightSource,
    WeightTransferInitInfo,
)
from vllm.distributed.weight_transfer.factory import WeightTransferTrainerFactory
from vllm.distributed.weight_transfer.nccl_engine import (
    NCCLTrainerInitInfo,
    NCCLTrainerWeightTransferEngine,
)

from cluster.weight_sync.checksum import tensor_checksum
from cluster.weight_sync.gloo_group import GlooGroup, listening_socket
from cluster.weight_sync.ipc_transfer import CheckedIpcSender, CheckedIpcTrainerInitInfo


class NamedWeights(Protocol):
    """The learner's weights: names and shapes without gathering, then the tensors in order."""

    def weight_metadata(self) -> list[tuple[str, str, tuple[int, ...]]]: ...

    def iter_weights(self) -> Iterator[tuple[str, Tensor]]: ...


class LearnerSource(WeightSource):
    """The learner's weights in vLLM's form, with a checksum of each sent tensor.

    Every learner rank must iterate (under ZeRO-3 each tensor is gathered by all of them);
    only rank 0 sends, so only rank 0 pays for checksums.
    """

    def __init__(self, learner: NamedWeights, *, with_checksums: bool) -> None:
        self.learner = learner
        self.with_checksums = with_checksums
        self.sent: dict[str, int] = {}
        self.num_bytes = 0  # of the newest iteration
        self.iterating: Iterator[tuple[str, Tensor]] | None = None

    def metadata(self) -> list[ParamMeta]:
        return [
            ParamMeta(name, getattr(torch, dtype), shape)
            for name, dtype, shape in self.learner.weight_metadata()
        ]

    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        self.iterating = self.checked_weights()
        return self.iterating

    def finish_iteration(self) -> None:
        """Iterate the rest after a failed broadcast: the other ranks wait in their gathers."""
        left = self.iterating if self.iterating is not None else iter(self)
        for _ in left:
            pass

    def checked_weights(self) -> Iterator[tuple[str, Tensor]]:
        self.sent, self.num_bytes = {}, 0
        for name, tensor in self.learner.iter_weights():
            self.num_bytes += tensor.nbytes
            if self.with_checksums:
                self.sent[name] = tensor_checksum(tensor)
            yield name, tensor


@dataclass(kw_only=True)
class GlooInitInfo(WeightTransferInitInfo):
    """Where the sender's store is, and which ranks this engine's workers take."""

    master_address: str
    master_port: int
    rank_offset: int
    world_size: int
    timeout_s: float


@dataclass
class GlooTrainerInitInfo(TrainerInitInfo):
    """The sender's side of a gloo group; it opens its own store on `master_address`."""

    backend: ClassVar[str] = "mgrpo_gloo"

    master_address: str
    world_size: int
    timeout_s: float


@dataclass
class CheckedNcclTrainerInitInfo(NCCLTrainerInitInfo):
    """vLLM's NCCL sender, under the name that our receivers are registered with."""

    backend: ClassVar[str] = "mgrpo_nccl"


class GlooSender(NCCLTrainerWeightTransferEngine):
    """vLLM's send round trip (start, update while broadcasting, finish) with gloo as the wire."""

    init_info_cls = GlooTrainerInitInfo  # type: ignore[assignment]
    group: GlooGroup | None = None

    @classmethod
    def trainer_init(  # type: ignore[override]
        cls,
        init_info: GlooTrainerInitInfo,
        *,
        client: VLLMWeightSyncClient,
        source: WeightSource | None = None,
    ) -> Self:
        if source is None:
            raise ValueError("the gloo sender needs a WeightSource")
        engine = cls(client=client, source=source, is_sender=init_info.is_sender, packed=False)
        if engine.is_sender:
            server: socket.socket = listening_socket(init_info.master_address)
            port = server.getsockname()[1]
            worker_info = GlooInitInfo(
                master_address=init_info.master_address,
                master_port=port,
                rank_offset=1,  # the client shifts this per engine
                world_size=init_info.world_size,
                timeout_s=init_info.timeout_s,
            )
            with ThreadPoolExecutor(max_workers=1) as executor:
                joined = executor.submit(client.init_weight_transfer_engine, asdict(worker_info))
                engine.group = GlooGroup(
                    address=init_info.master_address,
                    port=port,
                    rank=0,
                    world_size=init_info.world_size,
                    timeout_s=init_info.timeout_s,
                    server=server,
                    check=lambda: raise_if_failed(joined),
                )
                joined.result(timeout=init_info.timeout_s)
        return engine

    def _broadcast(self, source: WeightSource, meta: list[ParamMeta]) -> None:
        if not self.is_sender:
            for _ in source:
                pass
            return
        assert self.group is not None, "trainer_init() opens the group"
        for _, tensor in self._checked_iter(source, meta):
            self.group.broadcast(tensor.detach().cpu().contiguous())

    def shutdown(self) -> None:
        if self.group is not None:
            self.group.close()
            self.group = None


class CheckedNcclSender(NCCLTrainerWeightTransferEngine):
    """vLLM's NCCL sender, which does not wait for a lost engine.

    NCCL's broadcast has no deadline: if a receiver is lost, it waits for ever, on the device. So
    the engines' own answers are watched, and when one of them fails, the communicator is aborted,
    which ends the broadcast.
    """

    init_info_cls = CheckedNcclTrainerInitInfo

    def __init__(self, *, client: VLLMWeightSyncClient, **keys: Any) -> None:
        super().__init__(client=AbortingClient(client, self.shutdown), **keys)


class AbortingClient:
    """Drives the engines; if they fail during a broadcast, ends the learner's side of it."""

    def __init__(self, client: VLLMWeightSyncClient, abort: Callable[[], None]) -> None:
        self.client, self.abort = client, abort

    def init_weight_transfer_engine(self, init_info: dict[str, object]) -> None:
        self.client.init_weight_transfer_engine(init_info)

    def start_weight_update(self) -> None:
        self.client.start_weight_update()

    def update_weights(self, update_info: Any) -> None:
        try:
            self.client.update_weights(update_info)
        except BaseException:
            self.abort()
            raise

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        self.client.finish_weight_update(weight_version)


def raise_if_failed(joined: Future[None]) -> None:
    """Raise the engines' failure while the learner's side waits for them."""
    if joined.done():
        joined.result(timeout=0)


def open_sender(
    learner: NamedWeights,
    client: VLLMWeightSyncClient,
    *,
    backend: str,
    rank: int,
    master_address: str,
    master_port: int,
    num_receivers: int,
    timeout_s: float,
    with_checksums: bool,
    packed_buffer_bytes: int,
) -> Any:
    """Join the weight group as the learner; called on every learner rank.

    Args:
        learner: whose weights are sent.
        client: drives the engines (cluster.weight_sync.engine_client.EngineClient).
        backend: "gloo", "nccl" or "ipc".
        rank: this learner rank; 0 sends.
        master_address, master_port: where the group meets; gloo chooses its own port.
        num_receivers: workers over all engines.

    Returns:
        vLLM's trainer-side engine: `send_weights()`, `source.sent`, `shutdown()`.
    """
    world_size = 1 + num_receivers
    info: TrainerInitInfo
    if backend == "gloo":
        info = GlooTrainerInitInfo(master_address, world_size, timeout_s, rank=rank)
    elif backend == "ipc":
        buffer_bytes = max(packed_buffer_bytes, largest_tensor_bytes(learner))
        info = CheckedIpcTrainerInitInfo(True, buffer_bytes, rank=rank)
    else:
        info = CheckedNcclTrainerInitInfo(
            master_address,
            master_port,
            world_size,
            packed_buffer_size_bytes=packed_buffer_bytes,
            rank=rank,
        )
    source = LearnerSource(learner, with_checksums=with_checksums and rank == 0)
    return WeightTransferTrainerFactory.trainer_init(info, client=client, source=source)


def largest_tensor_bytes(learner: NamedWeights) -> int:
    """IPC's one buffer must hold each tensor whole."""
    return max(
        math.prod(shape) * getattr(torch, dtype).itemsize
        for _, dtype, shape in learner.weight_metadata()
    )


WeightTransferTrainerFactory.register_engine("mgrpo_nccl", CheckedNcclSender)
WeightTransferTrainerFactory.register_engine("mgrpo_gloo", GlooSender)
WeightTransferTrainerFactory.register_engine("mgrpo_ipc", CheckedIpcSender)
