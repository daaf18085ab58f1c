"""Runs a target's cases in this process, under a deadline each, and watches what they touch."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from tests.fuzz.mutations import mutated
from tests.fuzz.target import Seed, Target

CASE_S = 10.0
"""Longest time of one case, in seconds; more is a hang."""
REPOSITORY = Path(__file__).resolve().parents[2]
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
PATH_EVENTS = {
    "os.mkdir": [(0, 2)],
    "os.remove": [(0, 1)],
    "os.rmdir": [(0, 1)],
    "os.rename": [(0, 2), (1, 3)],
    "os.link": [(1, 3)],
    "os.symlink": [(1, 2)],
    "os.chmod": [(0, 2)],
}
"""Audit events that change files: where among their arguments are a path, and the descriptor of the
folder that it is relative to."""
FORBIDDEN = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork")


class Hang(BaseException):
    """A case took longer than CASE_S."""


class Outside(BaseException):
    """A case changed a file outside its folder, or began a process."""


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """What no reader may do, and the first case that made it."""

    target: str
    error: str  # "KeyError (log.py:142)"
    number: int
    message: str = field(compare=False)


@dataclass(slots=True)
class Outcome:
    """What came of some cases of one target."""

    read: int = 0  # without an error
    refused: int = 0  # by a clear one
    findings: dict[str, Finding] = field(default_factory=dict)
    times_found: Counter[str] = field(default_factory=Counter)

    @property
    def cases(self) -> int:
        return self.read + self.refused + self.times_found.total()

    def note(self, one: Finding) -> None:
        self.findings[one.error] = min(one, self.findings.get(one.error, one))
        self.times_found[one.error] += 1

    def add(self, other: Outcome) -> None:
        self.read += other.read
        self.refused += other.refused
        self.times_found += other.times_found
        for name, one in other.findings.items():
            self.findings[name] = min(one, self.findings.get(name, one))


def run_cases(target: Target, numbers: Iterable[int], *, seed: int) -> Outcome:
    """Run some of a target's cases; the same number is the same case under the same seed."""
    outcome, seeds = Outcome(), target.seeds()
    with tempfile.TemporaryDirectory(prefix="mgrpo-fuzz-") as folder, watching(Path(folder)):
        for number in numbers:
            run_case(target, case_of(target, seeds, number, seed), number, Path(folder), outcome)
    return outcome


def case_of(target: Target, seeds: Iterable[Seed], number: int, seed: int) -> Seed:
    rng = random.Random(f"{seed}/{target.name}/{number}")
    valid = rng.choice(list(seeds))
    return Seed(valid.name, mutated(valid.data, valid.name, rng))


def run_case(target: Target, case: Seed, number: int, folder: Path, outcome: Outcome) -> None:
    own = folder / "case"
    own.mkdir()
    try:
        with deadline(CASE_S):
            target.read(own, case)
    except target.clear:
        outcome.refused += 1
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        outcome.note(finding(target, number, error))
    else:
        outcome.read += 1
    finally:
        shutil.rmtree(own)


def finding(target: Target, number: int, error: BaseException) -> Finding:
    """Named by its type and the innermost line of ours that led to it."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [one for one in frames if is_ours(one.filename)] or frames[-1:]
    place = f"{Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else "?"
    name = f"{type(error).__name__} ({place})"
    return Finding(target.name, name, number, safe_text(error)[:300])


def is_ours(file: str) -> bool:
    path = Path(file)
    return (
        path.is_relative_to(REPOSITORY) and ".venv" not in path.parts and "fuzz" not in path.parts
    )


def safe_text(error: BaseException) -> str:
    try:
        return " ".join(str(error).split())
    except Exception:
        return "(it cannot be printed)"


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Raise Hang in what takes longer."""

    def ring(number: int, frame: FrameType | None) -> None:
        raise Hang(f"not done after {seconds:g} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


# --- files ---

allowed: Path | None = None
"""The folder that cases may write into, while they run. An audit hook cannot be taken away."""


@contextmanager
def watching(folder: Path) -> Iterator[None]:
    global allowed
    if not is_hooked():
        sys.addaudithook(audit)
    allowed = folder.resolve()
    try:
        yield
    finally:
        allowed = None


def is_hooked() -> bool:
    """Whether `audit` is a hook already; says so from now on."""
    was, audit.is_on = getattr(audit, "is_on", False), True  # type: ignore[attr-defined]
    return was


def audit(event: str, arguments: tuple[Any, ...]) -> None:
    if allowed is None:
        return
    if event == "open":
        path, _, flags = arguments
        if isinstance(path, str | bytes | os.PathLike) and (flags or 0) & WRITING:
            refuse_outside(path, event)
    elif event in PATH_EVENTS:
        for path_at, folder_at in PATH_EVENTS[event]:
            refuse_outside(arguments[path_at], event, arguments[folder_at])
    elif event in FORBIDDEN:
        raise Outside(f"{event} {arguments[:2]!r}")


def refuse_outside(path: Any, event: str, folder: int = -1) -> None:
    if isinstance(path, int):
        return
    start = Path(f"/proc/self/fd/{folder}" if folder >= 0 else "")
    file = Path(os.path.realpath(start / os.fsdecode(path)))
    is_cache = file.suffix == ".pyc" or file.parent.name == "__pycache__" or ".pyc." in file.name
    if not is_cache and not file.is_relative_to(str(allowed)) and str(file) != os.devnull:
        raise Outside(f"{event} {file}")
