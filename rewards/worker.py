"""The code of a reward process: load the checks once, then score chunks of completions.

Started by spawning, so nothing of the driver is inherited. Must not import torch, vLLM or
Ray: a process that is killed has to be replaced in well under a second.
"""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import MutableSequence, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from typing import Any, NoReturn

from mgrpo.errors import RewardError
from mgrpo.types import Problem, Reward
from rewards.registry import Check, load_check
from rewards.score import TermReward, as_reward, combine, failed
from rewards.task_answer import Task, verifier

CHUNK_BUDGET_S = 0.25
"""A chunk starts no further completion after this time, and returns the rest."""
EXIT_CODE_OF_ZERO = 70


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """One check of the recipe, in plain types: pydantic is not needed here."""

    check: str
    weight: float
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """Completions of one problem that are sent to a reward process together."""

    problem: Problem
    texts: Sequence[str]
    slot: int  # index of this chunk's progress in the shared positions


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """The checks of this process, or why they could not be loaded."""

    terms: Sequence[Term]
    checks: Sequence[Check]
    positions: MutableSequence[int]
    failure: str = ""


current: Worker | None = None  # a process pool's initialiser has no other way to keep it


def initialise(
    terms: Sequence[Term], tasks: Sequence[Task], positions: MutableSequence[int]
) -> None:
    """Prepare this process. The error of a check that cannot be loaded is kept for `probe`."""
    global current
    # Whoever stops a job signals all of its processes at once, but the driver may first have to
    # finish a step, for which checks are still needed. The pool ends its processes by SIGKILL.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    die_with_parent()
    tell_exits_apart()
    checks: list[Check] = []
    failure = ""
    try:
        checks = [load_check(term.check, term.settings) for term in terms]
        for task in tasks:
            verifier(task)  # now, not within the first deadline
    except RewardError as error:
        failure = str(error)
    current = Worker(terms=terms, checks=checks, positions=positions, failure=failure)


def probe(pause_s: float) -> tuple[int, str]:
    """(process id, why its checks could not be loaded). The pause lets other processes answer
    too."""
    assert current is not None
    time.sleep(pause_s)
    return os.getpid(), current.failure


def loaded_modules() -> list[str]:
    """Top-level modules that this process has imported."""
    return sorted({name.partition(".")[0] for name in sys.modules})


def judge_chunk(chunk: Chunk) -> list[Reward]:
    """The rewards of the chunk's first completions: all of them if that is quick.

    Before each check it records its position, so that the completion at which a process was killed
    or died is known.
    """
    assert current is not None
    started = time.monotonic()
    rewards: list[Reward] = []
    for index, text in enumerate(chunk.texts):
        if rewards and time.monotonic() - started > CHUNK_BUDGET_S:
            break
        rewards.append(judge(current, chunk, index, text))
    return rewards


def judge(worker: Worker, chunk: Chunk, index: int, text: str) -> Reward:
    """One completion's reward from all checks."""
    if worker.failure:
        return failed("error", worker.failure)
    terms = []
    for number, (term, check) in enumerate(zip(worker.terms, worker.checks, strict=True)):
        worker.positions[chunk.slot] = index * len(worker.terms) + number
        reward = run_check(check, text, chunk.problem, term.settings)
        terms.append(TermReward(name=term.check, weight=term.weight, reward=reward))
    return combine(terms)


def run_check(check: Check, text: str, problem: Problem, settings: dict[str, object]) -> Reward:
    """Call a check; any exception becomes the status `error`."""
    try:
        return as_reward(check(text, problem, **settings))
    except BaseException as error:  # sys.exit() in a check is a crash too
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{os.path.basename(place.filename)}:{place.lineno}"  # noqa: PTH119
        return failed("error", f"{type(error).__name__}: {error} ({where})"[:2000])


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
