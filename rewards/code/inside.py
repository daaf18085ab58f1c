"""Runs in the sandbox: one program, a test at a time, each in a process of its own.

Started as `python -I -S -B`, with the standard library alone. The grader writes JSON lines to its
standard input: first what to run and its limits, then tests, the next one when the last is
answered. It answers with JSON lines. A test has an input and no expected output, so nothing here
knows what is right, and whatever a program does to this process, it can only change what it
answers. A test's process has other standard streams than this one.
"""

# pathlib, shutil and their like would be imported anew for every program.
# ruff: noqa: PTH102, PTH106, PTH109, PTH114, PTH118, PTH123

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import signal
import struct
import sys
import time
from typing import Any, NoReturn

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_SET_CHILD_SUBREAPER = 1, 4, 22, 36
PR_SET_NO_NEW_PRIVS, SECCOMP_MODE_FILTER = 38, 2
EPERM, ENOSYS = 1, 38
NEW_NAMESPACES = 0x7E020000 | 0x00000080
"""CLONE_NEW* of `clone`: namespaces of users, processes, mounts, networks, time and the rest."""
NEW_CALLS = (425, 426, 427, 428, 429, 430, 431, 432, 433, 438, 442)  # numbered alike everywhere
NUMBERS = {  # of system calls that a program needs for nothing, and for sockets
    "x86_64": (
        0xC000003E,
        (56, 435),
        (
            *(41, 101, 155, 161, 165, 166, 175, 246, 248, 249, 250, 272, 298, 303, 304, 308),
            *(310, 311, 313, 321, 323, *NEW_CALLS),
        ),
    ),
    "aarch64": (
        0xC00000B7,
        (220, 435),
        (
            *(198, 117, 41, 51, 40, 39, 105, 104, 217, 218, 219, 97, 241, 264, 265, 268),
            *(270, 271, 273, 280, 282, *NEW_CALLS),
        ),
    ),
}
"""By machine: audit architecture, (clone, clone3), and socket, ptrace, mounts, kernel modules,
keys, perf_event_open, other processes' memory, bpf, userfaultfd, io_uring and their like."""
X32_CALLS = 0x40000000
TRACEBACK_CHARACTERS = 600
POLL_S = 0.002
MIB = 2**20


def prctl(option: int, value: int = 0, pointer: Any = 0) -> bool:
    """Whether the kernel did it."""
    libc = ctypes.CDLL(None, use_errno=True)
    return bool(libc.prctl(option, ctypes.c_ulong(value), pointer, 0, 0) == 0)


def forbid_system_calls() -> bool:
    """Let this process and those that it starts make no socket, namespace or mount, and neither
    trace another process nor load anything into the kernel; False where this is not possible."""
    machine = os.uname().machine
    if machine not in NUMBERS:
        return False
    architecture, (clone, clone3), denied = NUMBERS[machine]

    def line(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
        return struct.pack("HBBI", code, if_true, if_false, value)

    load, equal, at_least, any_of, answer = 0x20, 0x15, 0x35, 0x45, 0x06
    allow, refuse = line(answer, 0x7FFF0000), line(answer, 0x00050000 | EPERM)
    rules = [
        line(load, 4),
        line(equal, architecture, 1, 0),
        refuse,
        line(load, 0),
        line(at_least, X32_CALLS, 0, 1),
        refuse,
        line(equal, clone3, 0, 1),
        line(answer, 0x00050000 | ENOSYS),  # its flags cannot be read; libc then takes clone
    ]
    for number in denied:
        rules += [line(equal, number, 0, 1), refuse]
    rules += [line(equal, clone, 1, 0), allow, line(load, 16)]
    rules += [line(any_of, NEW_NAMESPACES, 0, 1), refuse, allow]
    code = b"".join(rules)
    memory = ctypes.create_string_buffer(code, len(code))
    program = struct.pack("HxxxxxxP", len(rules), ctypes.addressof(memory))
    return prctl(PR_SET_NO_NEW_PRIVS, 1) and prctl(
        PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.create_string_buffer(program, len(program))
    )


def main(*, has_own_processes: bool) -> None:
    """Answer the grader until it closes the pipe.

    Args:
        has_own_processes: no process but those of this program can be seen or signalled.
    """
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    prctl(PR_SET_DUMPABLE, 0)  # a test's process could otherwise open this one's pipes
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    for one in (signal.SIGTERM, signal.SIGINT, signal.SIGPIPE):
        signal.signal(one, signal.SIG_DFL)
    asked, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb", buffering=0)
    header = json.loads(asked.readline())
    limits = header["limits"]
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (limits["open_files"],) * 2)
    if has_own_processes:  # else it would count all processes of this user
        resource.setrlimit(resource.RLIMIT_NPROC, (limits["processes"],) * 2)
    ready = {"pid": os.getpid(), "is_filtered": forbid_system_calls()}
    answers.write(json.dumps(ready).encode() + b"\n")
    folder = os.getcwd()
    for number, line in enumerate(asked):
        test = json.loads(line)
        answer = run_test(
            header["program"], test, limits, f"{folder}/{number}", alone=has_own_processes
        )
        answers.write(json.dumps(answer).encode() + b"\n")


def run_test(
    program: str, test: dict[str, Any], limits: dict[str, Any], folder: str, *, alone: bool
) -> dict[str, Any]:
    """What one test's process wrote, returned and ended with."""
    os.mkdir(folder)
    streams = [os.memfd_create(name) for name in ("in", "out", "err", "value")]
    with open(streams[0], "wb", closefd=False) as given:
        given.write(test.get("stdin", "").encode(errors="replace"))
    os.lseek(streams[0], 0, os.SEEK_SET)
    child = os.fork()
    if child == 0:
        become_test(program, test, limits, folder, streams)
    end = wait_for(child, limits["seconds"])
    end_others(alone=alone, group=child)
    remove(folder)
    most = limits["output_bytes"]
    texts = [os.pread(stream, most, 0).decode(errors="replace") for stream in streams[1:]]
    is_cut = any(os.fstat(stream).st_size >= most for stream in streams[1:])
    for stream in streams:
        os.close(stream)
    return {"out": texts[0], "err": texts[1][-TRACEBACK_CHARACTERS:], "value": texts[2]} | {
        "end": end,
        "is_cut": is_cut,
    }


def wait_for(child: int, seconds: float) -> str:
    """How it ended: "exit 0", "signal 9", or "time" where it was ended."""
    ends_at = time.monotonic() + seconds
    while time.monotonic() < ends_at:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            code = os.waitstatus_to_exitcode(status)
            return f"exit {code}" if code >= 0 else f"signal {-code}"
        time.sleep(POLL_S)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "time"


def end_others(*, alone: bool, group: int) -> None:
    """End everything that a test has started and left."""
    while True:
        if alone:
            assert os.getpid() == 1
            with contextlib.suppress(ProcessLookupError):
                os.kill(-1, signal.SIGKILL)
        else:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(group, signal.SIGKILL)
            for child in children():
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(child, signal.SIGKILL)
        try:
            while os.waitpid(-1, os.WNOHANG if not alone else 0)[0]:
                pass
        except ChildProcessError:
            return
        time.sleep(POLL_S)


def remove(folder: str) -> None:
    """Delete a test's folder as far as possible, and nothing that a link leads to."""
    if os.path.islink(folder):
        return
    with contextlib.suppress(RecursionError):
        for parent, folders, files in os.walk(folder, topdown=False):
            for name in (*files, *folders):
                path = os.path.join(parent, name)
                is_folder = name in folders and not os.path.islink(path)
                with contextlib.suppress(OSError):
                    (os.rmdir if is_folder else os.unlink)(path)
    with contextlib.suppress(OSError):
        os.rmdir(folder)


def children() -> list[int]:
    """Processes that this one has started, and those whose parents are gone."""
    with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as file:
        return [int(one) for one in file.read().split()]


def become_test(
    program: str, test: dict[str, Any], limits: dict[str, Any], folder: str, streams: list[int]
) -> NoReturn:
    """Run the program in this process; nothing of the grader's pipes is left in it."""
    code = 1
    try:
        os.setsid()
        os.chdir(folder)
        for number, stream in enumerate(streams):
            os.dup2(stream, number, inheritable=True)
        os.closerange(len(streams), limits["open_files"])
        bound(limits)
        is_call = "function" in test
        names: dict[str, Any] = {"__name__": "solution" if is_call else "__main__"}
        sys.argv = ["solution.py"]
        sys.stdin, sys.stdout, sys.stderr = map(text_stream, range(3), ("r", "w", "w"))
        exec(compile(program, "solution.py", "exec"), names)
        if is_call:
            returned = function_in(names, test["function"])(*test["arguments"])
            with open(3, "w", encoding="utf-8", closefd=False) as value:
                json.dump(plain(returned), value)
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException as error:
        with contextlib.suppress(BaseException):  # out of memory, or of whatever the program took
            os.write(2, described(error).encode(errors="replace"))
    finally:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
        os._exit(code & 0xFF)


def described(error: BaseException) -> str:
    """The end of its traceback, without what called the program."""
    import traceback  # as slow as everything else together

    own = traceback.extract_tb(error.__traceback__)[1:]
    said = "".join([*traceback.format_list(own), *traceback.format_exception_only(error)])
    return said[-TRACEBACK_CHARACTERS:]


def text_stream(number: int, mode: str) -> Any:
    """On a file descriptor, with buffers of its own."""
    return os.fdopen(number, mode, encoding="utf-8", errors="replace", closefd=False)


def bound(limits: dict[str, Any]) -> None:
    """What this process and each that it starts may take."""
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    prctl(PR_SET_DUMPABLE, 0)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    cpu = max(1, round(limits["cpu_s"]))
    for kind, most in (
        (resource.RLIMIT_AS, limits["memory_mb"] * MIB),
        (resource.RLIMIT_CPU, cpu),
        (resource.RLIMIT_FSIZE, limits["output_bytes"]),
    ):
        resource.setrlimit(kind, (most, most))


def function_in(names: dict[str, Any], name: str) -> Any:
    """A function of the program, or a method of its class `Solution`.

    Raises:
        NameError: it has neither.
    """
    if callable(names.get(name)):
        return names[name]
    solution = names.get("Solution")
    if solution is not None and hasattr(solution, name):
        return getattr(solution(), name)
    raise NameError(f"the program defines no function {name!r}")


def plain(value: Any) -> Any:
    """Data that JSON has, made of nothing but it: tuples are lists, keys text, sets sorted.

    Raises:
        TypeError: it is something else.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, dict):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, set | frozenset):
        return sorted((plain(one) for one in value), key=json.dumps)
    raise TypeError(f"the function returned a {type(value).__name__}, which is no data of JSON")


if __name__ == "__main__":
    main(has_own_processes=os.getpid() == 1)
