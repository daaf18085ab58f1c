from __future__ import annotations

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from cluster.weight_sync.gloo_group import GlooGroup, listening_socket
from mgrpo.errors import ActorDiedError


def join(rank: int, world_size: int, port: int, server: object = None) -> GlooGroup:
    return GlooGroup(
        address="127.0.0.1",
        port=port,
        rank=rank,
        world_size=world_size,
        timeout_s=2 if world_size > 3 else 20,
        server=server,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int8])
def test_every_rank_receives_what_rank_zero_sends(dtype: torch.dtype) -> None:
    server = listening_socket("127.0.0.1")
    port = server.getsockname()[1]
    sent = torch.arange(-50, 50).to(dtype).reshape(4, 25)

    def take_part(rank: int) -> torch.Tensor:
        group = join(rank, 3, port, server if rank == 0 else None)
        tensor = sent.clone() if rank == 0 else torch.zeros_like(sent)
        group.broadcast(tensor)
        group.close()
        return tensor

    with ThreadPoolExecutor(3) as executor:
        received = [
            job.result(timeout=60) for job in [executor.submit(take_part, r) for r in range(3)]
        ]
    assert all(tensor.equal(sent) for tensor in received)


def test_a_peer_that_never_comes_is_an_error_within_the_deadline() -> None:
    server = listening_socket("127.0.0.1")
    began = time.monotonic()
    with pytest.raises(TimeoutError, match=r"ranks \[1, 2, 3\] .* did not join within"):
        join(0, 4, server.getsockname()[1], server)
    assert time.monotonic() - began < 30


def test_who_came_leaves_when_the_first_rank_gives_up_on_one_that_died() -> None:
    server = listening_socket("127.0.0.1")
    port = server.getsockname()[1]

    def died() -> None:
        if time.monotonic() > began + 0.3:
            raise ActorDiedError("layer1-engine-1 died")

    began = time.monotonic()
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(
            lambda: GlooGroup(address="127.0.0.1", port=port, rank=1, world_size=3, timeout_s=60)
        )
        with pytest.raises(ActorDiedError, match="layer1-engine-1"):
            GlooGroup(
                address="127.0.0.1",
                port=port,
                rank=0,
                world_size=3,
                timeout_s=60,
                server=server,
                check=died,
            )
        with pytest.raises((ConnectionError, RuntimeError)):
            other.result(timeout=10)
    assert time.monotonic() - began < 10


def test_the_meeting_point_listens_on_its_own_address_only() -> None:
    server = listening_socket("127.0.0.1")
    assert server.getsockname()[0] == "127.0.0.1"
    server.close()


def test_a_rank_that_dies_in_a_broadcast_holds_up_nobody() -> None:
    """The sender notices by itself; the others because it closes, even while it handles that."""
    server = listening_socket("127.0.0.1")
    port = server.getsockname()[1]
    dying = (
        "import os, torch\n"
        "from cluster.weight_sync.gloo_group import GlooGroup\n"
        f"group = GlooGroup(address='127.0.0.1', port={port}, rank=2, world_size=3, timeout_s=60)\n"
        "group.broadcast(torch.zeros(1000))\n"
        "os._exit(1)\n"
    )

    def receive() -> None:
        group = GlooGroup(address="127.0.0.1", port=port, rank=1, world_size=3, timeout_s=60)
        while True:
            group.broadcast(torch.zeros(1000))

    root = Path(__file__).resolve().parents[3]
    child = subprocess.Popen([sys.executable, "-c", dying], cwd=root)
    with ThreadPoolExecutor(1) as pool:
        receiving = pool.submit(receive)
        group = GlooGroup(
            address="127.0.0.1", port=port, rank=0, world_size=3, timeout_s=60, server=server
        )
        try:
            while True:
                group.broadcast(torch.zeros(1000))
                time.sleep(0.01)
        except RuntimeError:
            group.close()
            with pytest.raises(RuntimeError, match=r"Connection (closed|reset)"):
                receiving.result(timeout=10)
    assert child.wait(timeout=10) == 1
