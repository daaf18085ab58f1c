"""Weights between processes of one GPU: vLLM's CUDA IPC transport, with checksums.

For engines and learner ranks that share their GPUs (`cluster.colocate`), where NCCL cannot work:
it needs one process per GPU. A rank packs its weights into one buffer, whose handle the engine on
the same GPU opens; every rank does so with the whole weights, so nothing crosses between GPUs.
Not yet run on a GPU.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from vllm.distributed.weight_transfer.base import VLLMWeightSyncClient
from vllm.distributed.weight_transfer.ipc_engine import (
    IPCTrainerInitInfo,
    IPCTrainerWeightTransferEngine,
    IPCWeightTransferEngine,
)

from cluster.weight_sync.checked_loading import ChecksArrivals


class CheckedIpcReceiver(ChecksArrivals, IPCWeightTransferEngine):
    """vLLM's IPC receiver that records a checksum of every received tensor."""


@dataclass
class CheckedIpcTrainerInitInfo(IPCTrainerInitInfo):
    """vLLM's IPC sender, under the name that our receiver is registered with."""

    backend: ClassVar[str] = "mgrpo_ipc"


class CheckedIpcSender(IPCTrainerWeightTransferEngine):
    """vLLM's IPC sender; the source that it reads does the checksums.

    Its ranks synchronise after every chunk. If engines fail, rank 0 continues to synchronise to the
    end and only then raises: otherwise the other ranks would block.
    """

    init_info_cls = CheckedIpcTrainerInitInfo

    def send_weights(self) -> None:
        client = self.client
        self.client = lasting = ClientToTheEnd(client)
        try:
            super().send_weights()
        finally:
            self.client = client
        if lasting.error is not None:
            raise lasting.error


class ClientToTheEnd:
    """Drives the engines until one fails, then does nothing; the failure is kept."""

    def __init__(self, client: VLLMWeightSyncClient) -> None:
        self.client = client
        self.error: Exception | None = None

    def init_weight_transfer_engine(self, init_info: dict[str, object]) -> None:
        self.client.init_weight_transfer_engine(init_info)

    def start_weight_update(self) -> None:
        self.attempt("start_weight_update")

    def update_weights(self, update_info: object) -> None:
        self.attempt("update_weights", update_info)

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        self.attempt("finish_weight_update", weight_version)

    def attempt(self, method: str, *args: object) -> None:
        if self.error is not None:
            return
        try:
            getattr(self.client, method)(*args)
        except Exception as error:
            self.error = error
