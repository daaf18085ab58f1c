"""Runs a program where it can reach nothing, test by test, and hands out what it wrote.

Kinds, all with the limits of `Limits`, a process group of their own and a deadline:

    namespaces   entered by `enter.py`: own files, processes, network; a user of its own as root
    bubblewrap   the same by the program `bwrap`
    none         limits and refused system calls alone: it can read and write what this user can

Expected outputs never enter: tests are given one at a time, without them, and what comes back is
compared by who asked. The channel is the standard input and output of the process inside, so what a
program does to it changes nothing but its own answers.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Literal, get_args

from cluster.left_over import private_folder
from mgrpo.errors import RewardError
from mgrpo.records.json_object import JsonObject

Kind = Literal["namespaces", "bubblewrap", "none"]
Choice = Literal["auto", "namespaces", "bubblewrap", "none"]
INSIDE, ENTER = (Path(__file__).with_name(name) for name in ("inside.py", "enter.py"))
PYTHON = ("-I", "-S", "-B", "-X", "utf8")
SYSTEM = ("/usr", "/lib", "/lib64")
READ_BYTES = 1 << 16
START_S = 10.0
"""To set up a sandbox, on a busy machine; not part of a program's time."""
END_S = 5.0
PREFIX, WORK = "mgrpo-program-", "work"
"""Of a program's own folder, and of the folder in it that the program works in."""
ESCAPED = 6
"""Bytes that JSON may make of one."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Of one program: bytes and processes of each test, seconds of each and of all."""

    seconds: float = 4.0  # of a test, by the clock
    total_s: float = 8.0  # of all tests together, by the clock
    cpu_s: float = 2.0  # of each process of a test
    memory_mb: int = 256  # of each process: address space
    processes: int = 8  # at a time, threads and the two of the sandbox included
    output_bytes: int = 1 << 18  # of each stream and each file
    files_mb: int = 16  # of the working folder
    open_files: int = 64


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What one test's process left."""

    out: str = ""  # standard output
    err: str = ""  # the end of standard error
    value: str = ""  # what a function returned, as JSON
    end: str = ""  # "exit 0", "signal 9", "time"; else why there is no answer
    is_cut: bool = False  # it wrote as much as it may, or more


class SandboxError(RewardError):
    """There is no sandbox, or it could not be entered: this says nothing about the program."""


def own_folder() -> Path:
    """With an empty one in it for a program; those of processes that were killed are deleted."""
    folder = private_folder(Path(tempfile.gettempdir()), PREFIX)
    (folder / WORK).mkdir()
    return folder


class Ended(Exception):
    """A sandbox answers no more, and why."""


class Sandbox:
    """One program in a sandbox; a context manager.

    Raises:
        SandboxError: it could not be entered.
    """

    def __init__(self, kind: Kind, program: str, limits: Limits) -> None:
        self.kind, self.limits = kind, limits
        self._folder = own_folder() if kind == "none" else None
        self._received = bytearray()
        self._ended = ""
        self._process = subprocess.Popen(
            command(kind, limits),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=self._folder / WORK if self._folder else "/",
            env={},
            start_new_session=True,
        )
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            assert stream is not None
            flags = fcntl.fcntl(stream, fcntl.F_GETFL)
            fcntl.fcntl(stream, fcntl.F_SETFL, flags | os.O_NONBLOCK)
        header = {"program": program, "limits": dataclasses.asdict(limits)}
        try:
            self._exchange(header, time.monotonic() + START_S)
        except Ended as reason:
            said = self._errors()
            self.close()
            raise SandboxError(f"The sandbox {kind} cannot be entered: {reason}. {said}") from None
        self.ends_at = time.monotonic() + limits.total_s

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def ask(self, test: Mapping[str, object]) -> Answer:
        """Run the program on one test, which is given without what it should answer.

        Args:
            test: {"stdin": text} or {"function": name, "arguments": [...]}.
        """
        if not self._ended:
            try:
                return answer_of(self._exchange(test, self.ends_at))
            except Ended as reason:
                self._ended = str(reason)
                self._kill()
        return Answer(end=self._ended)

    def close(self) -> None:
        """End everything that was started."""
        self._kill()
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _kill(self) -> None:
        if self._process.poll() is None:  # else its number may be another's
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(END_S)

    def _exchange(self, asked: Mapping[str, object], ends_at: float) -> JsonObject:
        """Send a line and wait for one.

        Raises:
            Ended: none came, or it is none of the sandbox's.
        """
        sent = memoryview(json.dumps(asked).encode() + b"\n")
        assert self._process.stdin is not None and self._process.stdout is not None
        to, back = self._process.stdin.fileno(), self._process.stdout.fileno()
        most = ESCAPED * 3 * self.limits.output_bytes + READ_BYTES
        while b"\n" not in self._received:
            waits_for = select.poll()
            waits_for.register(back, select.POLLIN)
            if sent:
                waits_for.register(to, select.POLLOUT)
            left = ends_at - time.monotonic()
            if left <= 0 or not (events := waits_for.poll(left * 1000)):
                raise Ended("time")
            for stream, _ in events:
                try:
                    if stream == to:
                        sent = sent[os.write(to, sent) :]
                        continue
                    found = os.read(back, READ_BYTES)
                except BlockingIOError:
                    continue
                except BrokenPipeError:
                    found = b""
                if not found:
                    raise Ended("the program ended its sandbox")
                self._received += found
            if len(self._received) > most:
                raise Ended("the program wrote into its sandbox's answers")
        line, _, rest = bytes(self._received).partition(b"\n")
        self._received = bytearray(rest)
        try:
            answer = json.loads(line)
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict) or rest:
            raise Ended("the program wrote into its sandbox's answers")
        return answer

    def _errors(self) -> str:
        """The last line that the process inside said of itself."""
        assert self._process.stderr is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(0.2)
        with contextlib.suppress(OSError):
            said = os.read(self._process.stderr.fileno(), READ_BYTES).decode(errors="replace")
            return said.strip().rpartition("\n")[2][-500:]
        return ""


def answer_of(found: JsonObject) -> Answer:
    """What came back is data of the program: anything of another form is no answer."""
    texts = {name: found.get(name) for name in ("out", "err", "value", "end")}
    if not all(isinstance(one, str) for one in texts.values()):
        return Answer(end="the program wrote into its sandbox's answers")
    return Answer(**texts, is_cut=found.get("is_cut") is True)  # type: ignore[arg-type]


def command(kind: Kind, limits: Limits) -> list[str]:
    """What is started, by kind."""
    python = os.path.realpath(sys.executable)
    if kind == "none":
        return [python, *PYTHON, str(INSIDE)]
    if kind == "namespaces":
        asked = {
            "inside": str(INSIDE),
            "readable": readable(),
            "parent": os.getpid(),
            "files_mb": limits.files_mb,
        }
        return [python, *PYTHON, str(ENTER), json.dumps(asked)]
    devices = [part for name in ("null", "zero", "urandom") for part in device(name)]
    return [
        *(
            str(shutil.which("bwrap")),
            "--unshare-all",
            "--die-with-parent",
            "--as-pid-1",
            "--new-session",
        ),
        *("--clearenv", "--cap-drop", "ALL", "--uid", "1000", "--gid", "1000"),
        *(part for source, place in readable() for part in ("--ro-bind", source, place)),
        *("--ro-bind", str(INSIDE), "/inside.py", *devices),
        *("--size", str(limits.files_mb << 20), "--tmpfs", "/work", "--remount-ro", "/"),
        *("--chdir", "/work", "--", python, *PYTHON, "/inside.py"),
    ]


def device(name: str) -> tuple[str, str, str]:
    return "--dev-bind", f"/dev/{name}", f"/dev/{name}"


def readable() -> list[tuple[str, str]]:
    """(folder, where it is inside): Python and the system's libraries."""
    prefix = os.path.realpath(sys.base_prefix)
    places = [place for place in SYSTEM if Path(place).is_dir()]
    if not any(prefix == place or prefix.startswith(f"{place}/") for place in places):
        places.append(prefix)
    return [(os.path.realpath(place), place) for place in places]


# --- which one ------------------------------------------------------------------------------------


def kind_for(choice: Choice) -> Kind:
    """The sandbox that a recipe's choice means on this machine.

    Raises:
        SandboxError: it is not to be had here, and why.
    """
    if choice not in get_args(Choice):
        known = ", ".join(get_args(Choice))
        raise SandboxError(f"settings.sandbox: {choice!r} is not known. Known: {known}.")
    if choice != "auto":
        if fault := fault_of(choice):
            raise SandboxError(fault)
        return choice
    faults = []
    for kind in strongest_first():
        fault = fault_of(kind)
        if not fault:
            return kind
        faults.append(fault)
    raise SandboxError(
        f"code_answer finds no sandbox on this machine, and runs no program without one. "
        f"{' '.join(faults)} Install bubblewrap, allow user namespaces (in a container "
        "CAP_SYS_ADMIN, or a runtime that nests them), or, where programs may read and write "
        "whatever this user can, set sandbox: none in the term's settings."
    )


def strongest_first() -> tuple[Kind, ...]:
    """bubblewrap is the more widely tried. But the kernel does not limit the number of root's
    processes, and it leaves a program of root's root's: there our own is stronger."""
    return ("namespaces", "bubblewrap") if os.geteuid() == 0 else ("bubblewrap", "namespaces")


def fault_of(kind: Kind) -> str:
    """Why this machine does not have a sandbox; "" if it has. Tried, not guessed."""
    try:
        enter_once(kind)
    except SandboxError as error:
        return str(error)
    return ""


@lru_cache  # of successes: a busy machine may fail once
def enter_once(kind: Kind) -> None:
    """Run a program in a sandbox of that kind.

    Raises:
        SandboxError: it cannot be had here.
    """
    if sys.platform != "linux":
        raise SandboxError(f"{kind}: needs Linux, and this is {sys.platform}.")
    if kind == "bubblewrap" and shutil.which("bwrap") is None:
        raise SandboxError("bubblewrap: there is no program bwrap.")
    with Sandbox(kind, "print(input())", Limits()) as sandbox:
        answer = sandbox.ask({"stdin": "here\n"})
    if answer.out != "here\n":
        raise SandboxError(f"The sandbox {kind} runs no program: {answer.end} {answer.err}")


PROBES = {
    "uses the network": "import socket\nsocket.socket().bind(('127.0.0.1', 0))",
    "reads this user's files": "import sys\nopen(input()).read()",
    "sees other processes": "import os\nos.kill(int(input()), 0)",
    "has more processes than allowed": (
        "import os, time\n"
        "for _ in range(int(input())):\n"
        "    if os.fork() == 0:\n"
        "        time.sleep(60)\n"
        "        os._exit(0)"
    ),
    "traces processes": "import ctypes\nassert ctypes.CDLL(None).ptrace(0, 0, 0, 0) == 0",
}
"""What a program of a sandbox should not do, and a program that ends well where it can."""


@lru_cache
def weaknesses(kind: Kind) -> tuple[str, ...]:
    """What a program can do in this sandbox on this machine: each is tried."""
    with tempfile.NamedTemporaryFile() as own:
        inputs = {
            "reads this user's files": own.name,
            "sees other processes": str(os.getpid()),
            "has more processes than allowed": str(Limits().processes),
        }
        found = []
        for what, program in PROBES.items():
            with Sandbox(kind, program, Limits()) as sandbox:
                if sandbox.ask({"stdin": inputs.get(what, "")}).end == "exit 0":
                    found.append(what)
    return tuple(found)
