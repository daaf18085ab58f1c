"""vLLM's weight-transfer lifecycle, the engines' side: our transports, with checksums.

All use of vLLM's transfer API is here, in `weight_sending` and in `ipc_transfer`, because that API
changes between releases. Three backends, one lifecycle (init, start, update, finish):

    mgrpo_nccl   vLLM's own NCCL broadcast between GPUs, plus a checksum of what arrived
    mgrpo_gloo   the same messages over gloo between CPU processes
    mgrpo_ipc    between two processes of one GPU (see `ipc_transfer`)

Importing this module registers them in vLLM's factory. Engines import it through
`WORKER_EXTENSION`, which vLLM loads in every worker process.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from vllm.config.weight_transfer import WeightTransferConfig
from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory
from vllm.distributed.weight_transfer.nccl_engine import (
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
from cluster.weight_sync.gloo_group import GlooGroup
from cluster.weight_sync.ipc_transfer import CheckedIpcReceiver
from cluster.weight_sync.weight_sending import GlooInitInfo
from mgrpo.rooms import write_stacks_on_signal

write_stacks_on_signal()  # vLLM's own processes import this module too
WORKER_EXTENSION = "cluster.weight_sync.weight_transfer.WeightInspector"
BACKENDS = {"gloo": "mgrpo_gloo", "nccl": "mgrpo_nccl", "ipc": "mgrpo_ipc"}


class CheckedNcclReceiver(ChecksArrivals, NCCLWeightTransferEngine):
    """vLLM's NCCL receiver that records a checksum of every received tensor."""

    def init_transfer_engine(self, init_info: Any) -> None:
        self.shutdown()  # a new group, or a learner that came back: never reuse an old one
        super().init_transfer_engine(init_info)


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


def transfer_config(backend: str) -> WeightTransferConfig:
    """The engine's start-up settings that select our receiver."""
    return WeightTransferConfig(backend=BACKENDS[backend])


WeightTransferEngineFactory.register_engine("mgrpo_nccl", CheckedNcclReceiver)
WeightTransferEngineFactory.register_engine("mgrpo_gloo", GlooReceiver)
WeightTransferEngineFactory.register_engine("mgrpo_ipc", CheckedIpcReceiver)
