"""Weights between processes of one GPU: vLLM's CUDA IPC transport, with checksums.

For engines and learner ranks that share their GPUs (`cluster.colocate`), where NCCL cannot work:
it wants one process per GPU. A rank packs its weights into one buffer, whose handle the engine on
the same GPU opens; every rank does so with the whole weights, so nothing crosses between GPUs.
No machine of ours has run this on a GPU yet.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from vllm.distributed.weight_transfer.ipc_engine import (
    IPCTrainerInitInfo,
    IPCTrainerWeightTransferEngine,
    IPCWeightTransferEngine,
)

from cluster.checked_loading import ChecksArrivals


class CheckedIpcReceiver(ChecksArrivals, IPCWeightTransferEngine):
    """vLLM's IPC receiver that remembers a checksum of every tensor it was given."""


@dataclass
class CheckedIpcTrainerInitInfo(IPCTrainerInitInfo):
    """vLLM's IPC sender, under the name that our receiver is registered with."""

    backend: ClassVar[str] = "mgrpo_ipc"


class CheckedIpcSender(IPCTrainerWeightTransferEngine):
    """vLLM's IPC sender; the source that it reads does the checksums."""

    init_info_cls = CheckedIpcTrainerInitInfo
