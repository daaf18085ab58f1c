"""vLLM's process stands still: stopped, or without an answer. Real processes, no vLLM."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import time
from collections.abc import Awaitable, Iterator
from typing import Any

import psutil
import pytest

from actors.core_watch import CoreWatch


class Core:
    """Answers at once, or never."""

    def __init__(self) -> None:
        self.is_idle, self.answers = True, True
        self.num_asked = 0

    def ask(self) -> Awaitable[object]:
        self.num_asked += 1
        answer = asyncio.get_running_loop().create_future()
        if self.answers:
            answer.set_result(False)
        return answer


@pytest.fixture
def process() -> Iterator[psutil.Process]:
    child = subprocess.Popen(["sleep", "600"])
    yield psutil.Process(child.pid)
    child.kill()
    child.wait(timeout=10)


def stop(process: psutil.Process) -> None:
    process.send_signal(signal.SIGSTOP)
    settled(process, is_stopped=True)


def settled(process: psutil.Process, *, is_stopped: bool) -> None:
    """Wait for a signal's effect."""
    end = time.monotonic() + 20
    while (process.status() == psutil.STATUS_STOPPED) is not is_stopped:
        assert time.monotonic() < end
        time.sleep(0.01)


def watch_of(core: Any, process: psutil.Process, said: list[str]) -> CoreWatch:
    return CoreWatch(core, patience_s=3.0, processes=lambda: [process], say=said.append)


def look(watch: CoreWatch, *, times: int) -> bool:
    async def looking() -> None:
        for _ in range(times):
            watch.look(1.0)
            await asyncio.sleep(0)

    asyncio.run(looking())
    return watch.is_over


def test_a_process_that_runs_and_answers_is_left_alone(process: psutil.Process) -> None:
    core = Core()
    assert not look(watch_of(core, process, []), times=20)
    assert core.num_asked == 20


def test_a_stopped_process_is_found_while_it_computes(process: psutil.Process) -> None:
    core = Core()
    core.is_idle = False
    stop(process)
    watch = watch_of(core, process, [])
    assert not look(watch, times=3)
    assert look(watch, times=1)


def test_a_process_that_goes_on_in_time_is_forgiven(process: psutil.Process) -> None:
    watch = watch_of(Core(), process, [])
    for _ in range(3):
        stop(process)
        assert not look(watch, times=2)
        process.send_signal(signal.SIGCONT)
        settled(process, is_stopped=False)
        assert not look(watch, times=2)


def test_an_idle_process_without_an_answer_is_found(process: psutil.Process) -> None:
    core = Core()
    core.answers = False
    watch = watch_of(core, process, [])
    assert not look(watch, times=4)
    assert look(watch, times=1)


def test_one_that_computes_may_be_late(process: psutil.Process) -> None:
    core = Core()
    core.answers = False
    watch = watch_of(core, process, [])
    look(watch, times=2)
    core.is_idle = False  # the question waits behind a long pass
    assert not look(watch, times=100)


def test_it_is_ended_and_the_log_says_why(process: psutil.Process) -> None:
    said: list[str] = []
    stop(process)
    watch = CoreWatch(Core(), patience_s=0.05, processes=lambda: [process], say=said.append)
    asyncio.run(asyncio.wait_for(watch.run(), timeout=20))
    assert process.wait(timeout=20) == -signal.SIGKILL
    assert len(said) == 1 and "stopped" in said[0] and "dead_after_s" in said[0]
