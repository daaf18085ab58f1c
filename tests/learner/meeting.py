"""Threads that stand for ranks of the learner, and add tensors up over each other."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor

DEADLINE_S = 60

Add = Callable[[Tensor], Tensor]
Found = TypeVar("Found")


class Meeting:
    """Adds tensors up over threads."""

    def __init__(self, num_ranks: int) -> None:
        self.barrier = threading.Barrier(num_ranks, timeout=DEADLINE_S)
        self.given: list[Tensor] = []
        self.lock = threading.Lock()

    def add(self, values: Tensor) -> Tensor:
        with self.lock:
            self.given.append(values.clone())
        self.barrier.wait()
        total = torch.stack(self.given).sum(0, dtype=values.dtype)
        if self.barrier.wait() == 0:
            self.given = []
        self.barrier.wait()
        return values.copy_(total)


def on_ranks(call: Callable[[int, Add], Found], num_ranks: int) -> list[Found]:
    """What each rank returns, called with its number and what adds up over ranks.

    One that fails ends the wait of the others.
    """
    meeting = Meeting(num_ranks)

    def run(rank: int) -> Found:
        try:
            return call(rank, meeting.add)
        except BaseException:
            meeting.barrier.abort()
            raise

    with ThreadPoolExecutor(num_ranks) as threads:
        calls = [threads.submit(run, rank) for rank in range(num_ranks)]
        failed = [one.exception(timeout=DEADLINE_S) for one in calls]
    causes = [one for one in failed if one and not isinstance(one, threading.BrokenBarrierError)]
    if any(failed):
        raise (causes or [one for one in failed if one])[0]
    return [one.result() for one in calls]
