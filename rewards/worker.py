"""The code of a reward process: load the checks once, then score completions.

Started by spawning, so nothing of the driver is inherited. Must not import torch, vLLM or
Ray: a process that is killed has to be replaced in well under a second.
"""

from __future__ import annotations

import asyncio
import fcntl
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
import traceback
from collections.abc import Mapping, MutableSequence, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from typing import NoReturn

from mgrpo.config.rewards import FunctionTerm
from mgrpo.errors import RewardError
from rewards.containment import (
    EXIT_CODE_OF_RETIRED,
    MAX_LEFT_BEHIND,
    contain,
    num_left_behind,
)
from rewards.conventions import Group, Invocation, RewardFunction, invocations
from rewards.registry import load_function
from rewards.score import Outcome, failed
from rewards.task_answer import Task, verifier

CHUNK_BUDGET_S = 0.25
"""A chunk starts no further completion after this time, and returns the rest."""
EXIT_CODE_OF_ZERO = 70
EXIT_CODE_OF_BROKEN = 71
"""A check has changed this program's own modules or objects, so that nothing can be sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """Completions of one problem that are sent to a reward process together, for some terms."""

    group: Group
    terms: Sequence[int]
    slot: int  # index of this chunk's progress in the shared positions


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """What a process says when its checks are imported."""

    pid: int
    failure: str  # why they could not be
    is_async: Mapping[int, bool]  # of each term


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """The functions of this process, or why they could not be loaded."""

    functions: Mapping[int, RewardFunction]  # by the number of their term
    positions: MutableSequence[int]
    deadline_s: float  # of what is awaited; the pool ends what blocks
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)
    failure: str = ""
    num_own: int = 0  # threads and processes of the imported modules


current: Worker | None = None  # a process pool's initialiser has no other way to keep it


def initialise(
    terms: Mapping[int, FunctionTerm],
    tasks: Sequence[Task],
    positions: MutableSequence[int],
    deadline_s: float,
    memory_gib: float | None,
) -> None:
    """Prepare this process. The error of a check that cannot be loaded is kept for `probe`."""
    global current
    # Whoever stops a job signals all of its processes at once, but the driver may first have to
    # finish a step, for which checks are still needed. The pool ends its processes by SIGKILL.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    die_with_parent()
    contain(memory_gib)
    tell_exits_apart()
    functions: dict[int, RewardFunction] = {}
    failure = ""
    try:
        functions = {number: load_function(term) for number, term in terms.items()}
        for task in tasks:
            verifier(task)  # now, not within the first deadline
    except RewardError as error:
        failure = str(error)
    current = Worker(
        functions=functions,
        positions=positions,
        deadline_s=deadline_s,
        failure=failure,
        num_own=num_left_behind(),
    )


def probe(pause_s: float) -> Probe:
    """The pause lets other processes answer too."""
    assert current is not None
    time.sleep(pause_s)
    is_async = {number: one.is_async for number, one in current.functions.items()}
    return Probe(pid=os.getpid(), failure=current.failure, is_async=is_async)


def loaded_modules() -> list[str]:
    """Top-level modules that this process has imported."""
    return sorted({name.partition(".")[0] for name in sys.modules})


def score_task(chunk: Chunk, is_group: bool) -> list[list[Outcome]]:
    """`score_group` or `score_chunk`; the process ends where it is no longer fit for it."""
    assert current is not None
    if num_left_behind() - current.num_own > MAX_LEFT_BEHIND:
        os._exit(EXIT_CODE_OF_RETIRED)
    try:
        rows = score_group(chunk) if is_group else score_chunk(chunk)
        pickle.dumps(rows)
    except BaseException:  # whatever a check raised is in the rows
        os._exit(EXIT_CODE_OF_BROKEN)
    return rows


def score_chunk(chunk: Chunk) -> list[list[Outcome]]:
    """[completion][term of the chunk] of the chunk's first completions: all if that is quick.

    Before each check it records its position, so that the completion at which a process was killed
    or died is known.
    """
    assert current is not None
    started = time.monotonic()
    rows: list[list[Outcome]] = []
    if current.failure:
        return all_failed(chunk, current.failure)
    calls = [invocations(current.functions[term], chunk.group) for term in chunk.terms]
    for index, of_completion in enumerate(zip(*calls, strict=True)):
        if rows and time.monotonic() - started > CHUNK_BUDGET_S:
            break
        row: list[Outcome] = []
        for number, call in enumerate(of_completion):
            current.positions[chunk.slot] = index * len(calls) + number
            row += scored(call)
        rows.append(row)
    return rows


def score_group(chunk: Chunk) -> list[list[Outcome]]:
    """[completion][1] of a term whose function takes the group, or is awaited for all of it."""
    assert current is not None
    if current.failure:
        return all_failed(chunk, current.failure)
    function = current.functions[chunk.terms[0]]
    calls = invocations(function, chunk.group)
    if function.is_async:
        outcomes = current.loop.run_until_complete(all_awaited(calls, current.deadline_s))
    else:
        outcomes = [scored(call) for call in calls]
    return [[outcome] for of_call in outcomes for outcome in of_call]


def all_failed(chunk: Chunk, why: str) -> list[list[Outcome]]:
    return [[failed("error", why) for _ in chunk.terms] for _ in chunk.group.texts]


def scored(call: Invocation) -> list[Outcome]:
    """Make a call; any exception becomes the status `error`."""
    try:
        return call.read(call.make())
    except BaseException as error:  # sys.exit() in a check is a crash too
        return [failed("error", description(error))] * call.count


async def all_awaited(calls: Sequence[Invocation], deadline_s: float) -> list[list[Outcome]]:
    """Make calls of an async function; they wait at the same time."""
    return await asyncio.gather(*(awaited(call, deadline_s) for call in calls))


async def awaited(call: Invocation, deadline_s: float) -> list[Outcome]:
    limit = asyncio.timeout(deadline_s)
    try:
        async with limit:
            returned = await call.make()
        return call.read(returned)
    except BaseException as error:
        if limit.expired():
            detail = f"took longer than rewards.deadline_s = {deadline_s:g} s and was cancelled"
            return [failed("timeout", detail)] * call.count
        return [failed("error", description(error))] * call.count


def description(error: BaseException) -> str:
    """ "KeyError: 'x' (my.py:12)" """
    place = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{os.path.basename(place.filename)}:{place.lineno}"  # noqa: PTH119
    try:
        text = str(error)[:2000]
    except BaseException as other:
        text = f"its text raises {type(other).__name__}"
    return f"{type(error).__name__}: {text} ({where})"


def tell_exits_apart() -> None:
    """Make os._exit(0) visible: the pool treats exit code 0 as a normal end."""
    really_exit = os._exit

    def exit_with_code(status: int) -> NoReturn:
        really_exit(status or EXIT_CODE_OF_ZERO)

    os._exit = exit_with_code


def die_with_parent() -> None:
    """End this process when the driver is killed, whatever it is doing.

    On Linux the kernel does it: it sends SIGKILL when the pipe to the parent closes, even
    while C code holds the interpreter's lock. (PR_SET_PDEATHSIG would act when the *thread*
    that started the process ends, and a pool may be started by a passing thread.)
    Elsewhere a thread waits for the pipe.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None, "a reward process is always a child"
    pipe = parent.sentinel
    if sys.platform == "linux":
        fcntl.fcntl(pipe, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(pipe, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(pipe, fcntl.F_SETFL, fcntl.fcntl(pipe, fcntl.F_GETFL) | os.O_ASYNC)
        if wait([pipe], timeout=0):  # it closed before we asked to be told
            os.kill(os.getpid(), signal.SIGKILL)
    else:
        threading.Thread(target=exit_after, args=(pipe,), daemon=True).start()


def exit_after(pipe: int) -> None:
    wait([pipe])
    os.kill(os.getpid(), signal.SIGKILL)
