"""A gloo group of any processes, with deadlines, independent of torch's default group."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from datetime import timedelta

import psutil
import torch
from torch import Tensor
from torch.distributed import BroadcastOptions, PrefixStore, ProcessGroupGloo, TCPStore

MEETING_LOOK_S = 0.02
GIVEN_UP = "given up"  # a key of the store


def listening_socket(address: str, port: int = 0) -> socket.socket:
    """A socket bound to one address, not to all interfaces, and to a port; 0 takes a free one,
    without a race for it."""
    server = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    server.bind((address, port))
    server.listen()
    return server


def loopback_interface() -> str:
    """The name of the network interface that no other machine reaches: "lo" on Linux."""
    return next(
        name
        for name, addresses in psutil.net_if_addrs().items()
        if any(one.address == "127.0.0.1" for one in addresses)
    )


def address_towards(peer: str) -> str:
    """The address of this machine as `peer` sees it. Nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((peer, 9))
        return str(probe.getsockname()[0])


class GlooGroup:
    """Broadcasts from rank 0 to every other rank.

    Args:
        address, port: where rank 0's store listens.
        rank, world_size: this process's place; rank 0 sends.
        timeout_s: longest wait for a peer, in joining and in each broadcast.
        server: rank 0's listening socket (`listening_socket`); None on the other ranks.
        check: called while waiting for the others; what it raises ends the wait.

    Raises:
        TimeoutError: not all ranks arrived in time.
    """

    def __init__(
        self,
        *,
        address: str,
        port: int,
        rank: int,
        world_size: int,
        timeout_s: float,
        server: socket.socket | None = None,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        timeout = timedelta(seconds=timeout_s)
        listen_fd = server.detach() if server is not None else None  # the store owns it from here
        self.store = TCPStore(
            address,
            port,
            world_size,
            is_master=rank == 0,
            timeout=timeout,
            wait_for_workers=False,
            master_listen_fd=listen_fd,
            use_libuv=True,
        )
        meet(self.store, rank=rank, world_size=world_size, timeout_s=timeout_s, check=check)
        options = ProcessGroupGloo._Options()  # type: ignore[attr-defined]
        options._devices = [ProcessGroupGloo.create_device(hostname=address_towards(address))]
        options._timeout = timeout
        store = PrefixStore("mgrpo_weights", self.store)
        self.group: ProcessGroupGloo | None = ProcessGroupGloo(store, rank, world_size, options)
        self.timeout = timeout

    def broadcast(self, tensor: Tensor) -> None:
        """Send (rank 0) or receive in place (other ranks) a contiguous CPU tensor."""
        if self.group is None:
            raise RuntimeError("the weight group is closed")
        options = BroadcastOptions()
        options.rootRank = 0
        options.rootTensor = 0
        options.timeout = self.timeout
        # Gloo has no bfloat16 on every build; bytes are bytes.
        work = self.group.broadcast([tensor.view(torch.uint8)], options)  # type: ignore[attr-defined]
        try:
            work.wait(self.timeout)
        finally:
            # An error's traceback would keep it, it would keep the connections open after
            # `close`, and the other ranks would wait for this one until their own deadline.
            del work

    def close(self) -> None:
        """Leave the group. Pending broadcasts of the others fail at once."""
        self.group = None


def meet(
    store: TCPStore,
    *,
    rank: int,
    world_size: int,
    timeout_s: float,
    check: Callable[[], None],
) -> None:
    """Wait until every rank has arrived, before gloo's own rendezvous, which cannot be cancelled.

    A process that dies before arriving would block all others for the whole timeout. Here each rank
    polls: rank 0 also calls `check`, the others test whether rank 0 gave up.
    """
    end = time.monotonic() + timeout_s
    store.set(f"here/{rank}", "1")
    all_keys = [f"here/{other}" for other in range(world_size)]
    try:
        while not store.check(all_keys):
            check()
            if store.check([GIVEN_UP]):
                raise ConnectionError("rank 0 of the weight group gave up waiting for the others")
            if time.monotonic() > end:
                missing = [i for i, key in enumerate(all_keys) if not store.check([key])]
                raise TimeoutError(
                    f"ranks {missing} of the weight group did not join within {timeout_s:g} s"
                )
            time.sleep(MEETING_LOOK_S)
    except BaseException:
        if rank == 0:
            store.set(GIVEN_UP, "1")
            time.sleep(
                5 * MEETING_LOOK_S
            )  # the store ends with this process; let the others read it first
        raise
