"""Where every process of a run is in its Python code, on all nodes, while it hangs.

py-spy reads the stacks of another process. Where the system does not let it, the process is sent
`STACK_SIGNAL`, by which those of ours write their stacks to their own log.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from mgrpo.rooms import STACK_SIGNAL

RUN_VARIABLE = "MGRPO_RUN"
"""In the environment of every process that a run has started, with the run's id."""
SPY_S = 10.0  # for one process
NODE_S = 60.0  # for all of a node
Stacks = dict[str, str]
"""Text by process, named "<node>/<process id>-<title>"."""


def stacks_of_run(run_id: str) -> Iterator[tuple[str, str]]:
    """Name and text of every process of a run that can be reached, those of this machine first; a
    node that does not answer is named."""
    here = ray.util.get_node_ip_address()
    yield from own_stacks(run_id, here).items()
    look = ray.remote(num_cpus=0, max_retries=0)(own_stacks)
    asked = {
        look.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        ).remote(run_id, node["NodeManagerAddress"]): node["NodeManagerAddress"]
        for node in ray.nodes()
        if node["Alive"] and node["NodeManagerAddress"] != here
    }
    if not asked:
        return
    done, late = ray.wait(list(asked), num_returns=len(asked), timeout=NODE_S)
    for one in done:
        try:
            yield from ray.get(one, timeout=SPY_S).items()
        except ray.exceptions.RayError as error:
            yield f"{asked[one]}/unknown", f"This node could not be asked: {error}"
    for one in late:
        yield f"{asked[one]}/unknown", f"This node did not answer within {NODE_S:g} s."


def own_stacks(run_id: str, node: str) -> Stacks:
    """Of the run's processes on this machine."""
    found = {one.pid: one for one in processes_of(run_id)}
    return {f"{node}/{pid}-{title(one)}": stack_of(one) for pid, one in sorted(found.items())}


def processes_of(run_id: str) -> Iterator[psutil.Process]:
    """This process, those that it has started, and those that carry the run's mark."""
    own = psutil.Process()
    yield from [own, *own.children(recursive=True)]
    for process in psutil.process_iter():
        try:
            if process.environ().get(RUN_VARIABLE) == run_id:
                yield process
        except (psutil.Error, OSError):  # another user's, or gone
            continue


def title(process: psutil.Process) -> str:
    """A process's name for a file's name: "ray__LearnerRank_update"."""
    try:
        words = process.cmdline() or [process.name()]
    except psutil.Error:
        return "gone"
    text = Path(words[0]).name if "/" in words[0] else words[0]
    if text.startswith("python"):
        text = "-".join([text, *(Path(word).name for word in words[1:3])])
    return "".join(letter if letter.isalnum() or letter in "-." else "_" for letter in text)[:60]


def stack_of(process: psutil.Process) -> str:
    """Its state and its stacks, or why there are none."""
    try:
        with process.oneshot():
            state = process.status()
            head = f"state: {state}, threads: {process.num_threads()}\n\n"
    except psutil.Error as error:
        return f"gone: {error}"
    said = spied(process.pid, is_stopped=state == psutil.STATUS_STOPPED)
    if said is not None:
        return head + said
    if process.pid != os.getpid() and answers_signal(process.pid):
        process.send_signal(STACK_SIGNAL)
        log = f"logs/*-{process.pid}.err"
        return f"{head}py-spy cannot read it. It writes its stacks to its log, {log}."
    return f"{head}py-spy cannot read it, and it is no process of ours or of Python."


def spied(pid: int, *, is_stopped: bool) -> str | None:
    """What py-spy reads; None if it cannot.

    Args:
        is_stopped: it can be read as it is; otherwise py-spy holds it meanwhile.
    """
    program = Path(sys.executable).with_name("py-spy")
    found = str(program) if program.is_file() else shutil.which("py-spy")
    if found is None:
        return None
    command = [found, "dump", "--pid", str(pid), *(["--nonblocking"] if is_stopped else [])]
    try:
        done = subprocess.run(command, capture_output=True, timeout=SPY_S, check=False)
    except (subprocess.TimeoutExpired, OSError):
        return None
    return done.stdout.decode(errors="replace") if done.returncode == 0 else None


def answers_signal(pid: int) -> bool:
    """Whether it has a handler for `STACK_SIGNAL`; others would be ended by it."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    caught = next((line for line in lines.splitlines() if line.startswith("SigCgt:")), "SigCgt: 0")
    return bool(int(caught.split()[1], 16) >> (STACK_SIGNAL - 1) & 1)
