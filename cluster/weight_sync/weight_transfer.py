"""vLLM's weight-transfer lifecycle: our transports on both ends, with checksums.

All use of vLLM's transfer API is here and in `ipc_transfer`, because that API changes between
releases. Three backends, one lifecycle (init, start, update, finish):

    mgrpo_nccl   vLLM's own NCCL broadcast between GPUs, plus a checksum of what arrived
    mgrpo_gloo   the same messages over gloo between CPU processes
    mgrpo_ipc    between two processes of one GPU (see `ipc_transfer`)

Importing this module registers them in vLLM's factories. Engines import it through
`WORKER_EXTENSION`, which vLLM loads in every worker process.
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
from vllm.config.weight_transfer import WeightTransferConfig
from vllm.distributed.weight_transfer.base import (
    ParamMeta,
    TrainerInitInfo,
    VLLMWeightSyncClient,
    WeightSource,
    WeightTransferInitInfo,
)
from vllm.distributed.weight_transfer.factory import (
    WeightTransferEngineFactory,
    WeightTransferTrainerFactory,
)
from vllm.distributed.weight_transfer.nccl_engine import (
    NCCLTrainerInitInfo,
    NCCLTrainerWeightTransferEngine,
    NCCLWeightTransferEngine,
    NCCLWeightTransferUpdateInfo,
)
from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead
from vllm.model_executor.model_loader.reload.layerwise import (
    LOADING_LAYERS,
    _place_kernel_tensors,
    get_layerwise_info,
)

from cluster.weight_sync.checked_loading import ChecksArrivals
from cluster.weight_sync.checksum import tensor_checksum
from cluster.weight_sync.gloo_group import GlooGroup, listening_socket
from cluster.weight_sync.ipc_transfer import (
    CheckedIpcReceiver,
    CheckedIpcSender,
    CheckedIpcTrainerInitInfo,
)
from mgrpo.rooms import write_stacks_on_signal

write_stacks_on_signal()  # vLLM's own processes import this module too
WORKER_EXTENSION = "cluster.weight_sync.weight_transfer.WeightInspector"
BACKENDS = {"gloo": "mgrpo_gloo", "nccl": "mgrpo_nccl", "ipc": "mgrpo_ipc"}


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


# --- receiving: runs inside each vLLM worker -------------------------------------------------


class CheckedNcclReceiver(ChecksArrivals, NCCLWeightTransferEngine):
    """vLLM's NCCL receiver that records a checksum of every received tensor."""

    def init_transfer_engine(self, init_info: Any) -> None:
        self.shutdown()  # a new group, or a learner that came back: never reuse an old one
        super().init_transfer_engine(init_info)


@dataclass(kw_only=True)
class GlooInitInfo(WeightTransferInitInfo):
    """Where the sender's store is, and which ranks this engine's workers take."""

    master_address: str
    master_port: int
    rank_offset: int
    world_size: int
    timeout_s: float


class GlooReceiver(CheckedNcclReceiver):
    """The same lifecycle with gloo as the wire, for engines on CPUs."""

    init_info_cls = GlooInitInfo  # type: ignore[assignment]

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        self.group: GlooGroup | None = None

    def init_transfer_engine(self, init_info: GlooInitInfo) -> None:  # type: ignore[override]
        self.shutdown()
        self.group = GlooGroup(
            address=init_info.master_address,
            port=init_info.master_port,
            rank=init_info.rank_offset + self.parallel_config.rank,
            world_size=init_info.world_size,
            timeout_s=init_info.timeout_s,
        )

    def update_weights(self, update_info: dict[str, object]) -> None:
        # Not the base class's: that one synchronises an accelerator, which a CPU has not.
        self.receive_weights(self.parse_update_info(update_info))

    def receive(self, update_info: NCCLWeightTransferUpdateInfo) -> None:
        if self.group is None:
            raise RuntimeError("the weight group is not joined yet")
        loader: Any = self.model
        try:
            for name, dtype, shape in zip(
                update_info.names, update_info.dtype_names, update_info.shapes, strict=True
            ):
                weight = torch.empty(shape, dtype=getattr(torch, dtype))
                self.group.broadcast(weight)
                loader.load_weights([(name, weight)])
        except BaseException:
            # Gloo forwards tensors from rank to rank: ranks that wait for this one must be told.
            self.shutdown()
            raise

    def finish_weight_update(self) -> None:
        super().finish_weight_update()
        repack_output_heads(self.model)
        repack_experts(self.model)

    def shutdown(self) -> None:
        if self.group is not None:
            self.group.close()
            self.group = None


def repack_output_heads(model: torch.nn.Module) -> None:
    """Bring the packed copy of a tied output head up to date.

    On CPUs vLLM packs the head's weight for its matrix product. A head that is tied to the
    embedding gets no weight of its own in a reload, so vLLM 0.32 leaves the old packed copy in
    place and samples with the old head. The probe found this.
    """
    for module in model.modules():
        if isinstance(module, ParallelLMHead):
            method: Any = module.quant_method
            method.process_weights_after_loading(module)


def repack_experts(model: torch.nn.Module) -> None:
    """Bring a mixture's experts into the form that their kernel reads.

    On CPUs vLLM packs them. In a reload vLLM 0.32 leaves that out, and the kernel takes plain
    weights for packed ones. The architectures table found this.
    """
    for module in model.modules():
        kernel = getattr(getattr(module, "quant_method", None), "moe_kernel", None)
        if kernel is not None:
            kernel.fused_experts.process_weights_after_loading(module)


def forget_partial_layers(model: torch.nn.Module) -> None:
    """Give layers that a reload has left half loaded the tensors that they had before it.

    vLLM 0.32 keeps the received tensors of such a layer, and the next reload counts them again: the
    layer would count as complete too early, with uninitialised memory.
    """
    for layer in model.modules():
        info = get_layerwise_info(layer)
        if info.can_load() and info.kernel_tensors is not None:
            _place_kernel_tensors(layer, info)
            info.reset()
    LOADING_LAYERS.clear()


class WeightInspector:
    """Methods that vLLM adds to each worker, for `collective_rpc`."""

    weight_transfer_engine: Any
    _weight_update_active: bool

    def abandon_weight_update(self) -> None:
        """Leave the weight group, and abort an update that was begun.

        vLLM has no call for that: it refuses to let the group go during an update, and to begin
        another one. Layers that were loaded whole stay as they are until the next update.
        """
        self._weight_update_active = False
        forget_partial_layers(self.weight_transfer_engine.model)
        self.weight_transfer_engine.reset_weight_update_target()
        self.weight_transfer_engine.shutdown()

    def received_checksums(self) -> dict[str, int]:
        """Checksums of the tensors of the newest update, as they arrived."""
        return dict(self.weight_transfer_engine.received)

    def nonfinite_weights(self) -> list[str]:
        """Names of loaded tensors that hold values that are not finite."""
        model: torch.nn.Module = self.weight_transfer_engine.model
        return [name for name, weight in model.named_parameters() if not is_finite(weight)]


def is_finite(weight: Tensor) -> bool:
    return not weight.is_floating_point() or bool(torch.isfinite(weight).all())


# --- sending: runs in the learner's ranks ------------------------------------------------------


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


def transfer_config(backend: str) -> WeightTransferConfig:
    """The engine's start-up settings that select our receiver."""
    return WeightTransferConfig(backend=BACKENDS[backend])


WeightTransferEngineFactory.register_engine("mgrpo_nccl", CheckedNcclReceiver)
WeightTransferEngineFactory.register_engine("mgrpo_gloo", GlooReceiver)
WeightTransferEngineFactory.register_engine("mgrpo_ipc", CheckedIpcReceiver)
WeightTransferTrainerFactory.register_engine("mgrpo_nccl", CheckedNcclSender)
WeightTransferTrainerFactory.register_engine("mgrpo_gloo", GlooSender)
WeightTransferTrainerFactory.register_engine("mgrpo_ipc", CheckedIpcSender)
