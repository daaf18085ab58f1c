"""Mutation tests of the code between packages: one change at a time, to be detected by fast tests.

    python -m scripts.mutants                     # all of them; minutes
    python -m scripts.mutants --only W1 seeds     # those whose name holds one of these words
    python -m scripts.mutants --list

Each mutant is applied to a copy of the working tree, and the tests that it names run there. It is
killed if one of them fails, or if they do not end in time. The exit code is 0 if every required
mutant is killed and at most a tenth of the others survives. The mutants are in
`scripts/mutant_list.py`.
"""

from __future__ import annotations

import argparse
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from scripts.mutant_list import MUTANTS, Mutant

ROOT = Path(__file__).resolve().parent.parent
DEADLINE_S = 300.0
ALLOWED_SHARE = 0.1
"""Of the mutants that are not required to be killed, at most this share may survive."""
TESTS_FAILED, NO_TEST_FAILED = 1, 0  # pytest's exit codes


class Outcome(StrEnum):
    """The outcome of a mutant."""

    KILLED = "killed"
    SURVIVED = "SURVIVED"
    BROKEN = "BROKEN"  # its text is not in the file exactly once, or its tests cannot be run


@dataclass(frozen=True)
class Result:
    """One mutant and its outcome."""

    mutant: Mutant
    outcome: Outcome
    seconds: float
    detail: str = ""

    @property
    def line(self) -> str:
        name = f"{self.outcome:<9}{self.seconds:6.1f} s  {self.mutant.name}"
        return f"{name}: {self.detail}" if self.detail else name


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.mutants", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--only", nargs="+", default=[], metavar="WORD", help="parts of names")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="at the same time")
    parser.add_argument("--list", action="store_true", help="print names and files, run nothing")
    given = parser.parse_args(arguments)
    chosen = [
        mutant for mutant in MUTANTS if not given.only or any(w in mutant.name for w in given.only)
    ]
    if given.list or not chosen:
        print("\n".join(f"{one.name}  ({one.file})" for one in chosen) or "no such mutant")
        return 0 if chosen else 2
    with copies(given.jobs) as folders:
        failing = failing_tests(chosen, folders[0])
        if failing:
            print(f"These fail without any change, so they can kill nothing:\n{failing}")
            return 2
        results = list(run_all(chosen, folders))
    return summary(results)


@contextmanager
def copies(count: int) -> Iterator[list[Path]]:
    """Copies of the working tree, for one mutant each at a time."""
    with tempfile.TemporaryDirectory(prefix="mutants-") as home:
        folders = [Path(home) / str(number) for number in range(count)]
        for folder in folders:
            copy_tree(folder)
        yield folders


def copy_tree(folder: Path) -> None:
    """Every file that git knows or would add, as it is now."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        timeout=60,
    ).stdout.decode()
    for name in filter(None, listed.split("\0")):
        source, target = ROOT / name, folder / name
        if source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)


def failing_tests(mutants: Iterable[Mutant], folder: Path) -> str:
    """What pytest says of the tests in the unchanged tree; "" where all pass."""
    tests = sorted({test for mutant in mutants for test in mutant.tests})
    done = run_tests(tests, folder, deadline_s=DEADLINE_S * len(tests))
    return "" if done.returncode == NO_TEST_FAILED else done.stdout[-3000:]


def run_all(mutants: Sequence[Mutant], folders: Sequence[Path]) -> Iterator[Result]:
    """Each mutant in whichever copy is free; results are printed as they come."""
    free: queue.SimpleQueue[Path] = queue.SimpleQueue()
    for folder in folders:
        free.put(folder)

    def in_a_copy(mutant: Mutant) -> Result:
        folder = free.get_nowait()  # there are as many as threads
        try:
            return try_mutant(mutant, folder)
        finally:
            free.put(folder)

    with ThreadPoolExecutor(len(folders)) as pool:
        for result in pool.map(in_a_copy, mutants):
            print(result.line, flush=True)
            yield result


def try_mutant(mutant: Mutant, folder: Path) -> Result:
    """Apply one mutant in a copy, run its tests, and put the file back."""
    began = time.monotonic()
    path = folder / mutant.file
    original = path.read_text(encoding="utf-8")
    count = original.count(mutant.old)
    if count != 1:
        return Result(mutant, Outcome.BROKEN, 0.0, f"its text is in {mutant.file} {count} times")
    write_source(path, original.replace(mutant.old, mutant.new))
    try:
        done = run_tests(mutant.tests, folder, deadline_s=DEADLINE_S)
    except subprocess.TimeoutExpired:
        return Result(mutant, Outcome.KILLED, time.monotonic() - began, "the tests did not end")
    finally:
        write_source(path, original)
    seconds = time.monotonic() - began
    if done.returncode == NO_TEST_FAILED:
        return Result(mutant, Outcome.SURVIVED, seconds, mutant.file)
    if done.returncode == TESTS_FAILED:
        return Result(mutant, Outcome.KILLED, seconds)
    return Result(mutant, Outcome.BROKEN, seconds, done.stdout[-500:])


def write_source(path: Path, text: str) -> None:
    """Write a module and forget its bytecode, which Python takes for current where size and time
    of the source, in seconds, are as before."""
    path.write_text(text, encoding="utf-8")
    for compiled in (path.parent / "__pycache__").glob(f"{path.stem}.*.pyc"):
        compiled.unlink()


def run_tests(
    tests: Sequence[str], folder: Path, *, deadline_s: float
) -> subprocess.CompletedProcess[str]:
    """Run some test files of a copy, up to the first failure."""
    options = ["-q", "-x", "-p", "no:cacheprovider", "-m", "not slow and not gpu and not cluster"]
    return subprocess.run(
        [sys.executable, "-m", "pytest", *options, *tests],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=deadline_s,
        check=False,
    )


def summary(results: Sequence[Result]) -> int:
    """Print what survived and the share; the exit code."""
    broken = [result for result in results if result.outcome is Outcome.BROKEN]
    survivors = [result for result in results if result.outcome is Outcome.SURVIVED]
    required = [survivor for survivor in survivors if survivor.mutant.is_required]
    others = [result for result in results if not result.mutant.is_required]
    share = (len(survivors) - len(required)) / max(1, len(others))
    print(
        f"\n{len(results)} mutants: {len(results) - len(survivors) - len(broken)} killed, "
        f"{len(survivors)} survived ({len(required)} of them required to be killed; "
        f"{share:.0%} of the others, allowed {ALLOWED_SHARE:.0%}), {len(broken)} broken"
    )
    for one in survivors:
        print(f"  {one.mutant.name}: {one.mutant.file}\n    - {one.mutant.old.strip()}")
        print(f"    + {one.mutant.new.strip()}")
    return 1 if required or broken or share > ALLOWED_SHARE else 0


if __name__ == "__main__":
    sys.exit(main())
