"""Checkpoints: everything that an exact resume needs, written atomically.

    checkpoints/step-000020/
        learner/       weights in float32 and the optimizer's states, for any number of ranks
                       and any ZeRO stage (learner/state_files.py); policy version
        state.json     format, steps done, the problems' fingerprint, the sampler's state,
                       pooled errors, kept corrections
        best.json      in that of the best step so far alone: its measurement
        manifest.json  every file's size and SHA-256, written last

Sampling, guidance and parents are drawn from seeds that contain the step's number, so this state
continues a run to the same numbers. The folder is built under another name and renamed.
`mgrpo/training/checkpoints.py` hashes and renames beside the next steps.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from multiprocessing.pool import ThreadPool
from pathlib import Path

from pydantic import BaseModel, NonNegativeInt, TypeAdapter, ValidationError

from mgrpo.errors import RunDirectoryError
from mgrpo.metrics.rows import reason_of
from mgrpo.records.json_object import JsonObject
from mgrpo.storage.files import leaves_its_folder
from mgrpo.storage.policies import BEST_FILE, BestRecord, read_best
from mgrpo.types import Problem

CHECKPOINTS_DIR = "checkpoints"
STATE_FILE = "state.json"
MANIFEST_FILE = "manifest.json"
LEARNER_DIR = "learner"
UNFINISHED = ".unfinished"
FORMAT = 2
"""Of a checkpoint's content. 1, which had none, kept the learner as DeepSpeed's shards."""
HASH_THREADS = min(8, os.cpu_count() or 1)  # one hashes about 1 GB/s; disks read several


class State(BaseModel, extra="allow", strict=True):
    """What every checkpoint's state says, whatever the format."""

    format: int = 1
    num_steps: NonNegativeInt


class Listed(BaseModel, extra="forbid"):
    """A file in a manifest."""

    bytes: int
    sha256: str


MANIFEST = TypeAdapter(dict[str, Listed])


def checkpoint_dir(run_dir: Path, num_steps: int) -> Path:
    """The folder of the checkpoint after so many steps."""
    return run_dir / CHECKPOINTS_DIR / f"step-{num_steps:06d}"


def begin_checkpoint(run_dir: Path, num_steps: int) -> Path:
    """An empty folder to fill; leftovers of interrupted attempts are removed."""
    remove_unfinished(run_dir)
    folder = checkpoint_dir(run_dir, num_steps).with_suffix(UNFINISHED)
    folder.mkdir(parents=True)
    return folder


def remove_unfinished(run_dir: Path) -> None:
    """Delete what interrupted attempts left, where the disk lets it."""
    for left in (run_dir / CHECKPOINTS_DIR).glob(f"*{UNFINISHED}"):
        shutil.rmtree(left, ignore_errors=True)


def finish_checkpoint(unfinished: Path, state: Mapping[str, object]) -> Path:
    """Add the state and the manifest, and rename the folder."""
    (unfinished / STATE_FILE).write_text(json.dumps({"format": FORMAT, **state}), encoding="utf-8")
    files = [file for file in sorted(unfinished.rglob("*")) if file.is_file()]
    manifest = {
        file.relative_to(unfinished).as_posix(): {"bytes": file.stat().st_size, "sha256": digest}
        for file, digest in zip(files, sha256_of_all(files), strict=True)
    }
    (unfinished / MANIFEST_FILE).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    for path in (*unfinished.rglob("*"), unfinished):
        to_disk(path)
    folder = unfinished.with_suffix("")
    shutil.rmtree(folder, ignore_errors=True)  # the same step, written before a resume
    unfinished.rename(folder)
    to_disk(folder.parent)
    return folder


def to_disk(path: Path) -> None:
    """Wait until a file's content, or a folder's names, would survive a loss of power."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def tidy(run_dir: Path, count: int, newest: Path) -> None:
    """Delete all checkpoints but the newest up to one that is whole, and that of the best step.

    Later ones are damaged: the run went on from one before them.

    Raises:
        OSError: the newest is gone, with all the disk perhaps, or another cannot be deleted.
    """
    folders = {folder.name: folder for folder in checkpoints(run_dir)}
    if newest.name not in folders:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(newest))
    best = [name for name, folder in folders.items() if (folder / BEST_FILE).is_file()]
    for name in set(folders).difference(kept(list(folders), best, count, newest.name)):
        shutil.rmtree(folders[name])


def kept(names: Sequence[str], best: Sequence[str], count: int, newest: str) -> set[str]:
    """The checkpoints that stay: the newest up to one, and of the best ones up to it the last.

    Args:
        names: of checkpoints, oldest first.
        best: those of them that were the best when they were written.
    """
    until = names[: names.index(newest) + 1]
    return {*until[-count:], *[name for name in until if name in best][-1:]}


def best_checkpoint(run_dir: Path) -> tuple[Path, BestRecord] | None:
    """The checkpoint of the best step and its measurement; None: none is kept."""
    for folder in reversed(checkpoints(run_dir)):
        if (record := read_best(folder)) is not None:
            return folder, record
    return None


def checkpoints(run_dir: Path) -> list[Path]:
    """Checkpoints, oldest first; damage may have made some of them useless."""
    folders = {
        int(folder.name.removeprefix("step-")): folder
        for folder in (run_dir / CHECKPOINTS_DIR).glob("step-*")
        if folder.name.removeprefix("step-").isdecimal() and folder.is_dir()
    }
    return [folders[number] for number in sorted(folders)]


def newest_whole(run_dir: Path) -> tuple[Path | None, list[str]]:
    """The newest checkpoint that this version reads and whose files are all intact.

    Returns:
        Its folder, or None, and the fault of each newer one.
    """
    faults: list[str] = []
    for folder in reversed(checkpoints(run_dir)):
        fault = fault_of(folder)
        if not fault:
            return folder, faults
        faults.append(f"{folder}: {fault}")
    return None, faults


def fault_of(folder: Path) -> str:
    """Why nothing can go on from a checkpoint; "" if it is whole."""
    try:
        return fault_of_files(folder) or fault_of_state(folder)
    except OSError as error:
        return f"a file cannot be read ({error})"


def fault_of_files(folder: Path) -> str:
    """The first file that is not as the manifest says; "" if there is none."""
    try:
        manifest = MANIFEST.validate_json((folder / MANIFEST_FILE).read_bytes())
    except (OSError, ValidationError) as error:
        return f"its manifest cannot be read ({str(error).partition(chr(10))[0]})"
    has_learner = any(name.startswith(f"{LEARNER_DIR}/") for name in manifest)
    if STATE_FILE not in manifest or not has_learner:
        return f"its manifest does not list {STATE_FILE} and files of {LEARNER_DIR}/"
    for name, expected in manifest.items():
        file = folder / name
        if leaves_its_folder(name) or not file.is_file():
            return f"{name} is missing"
        if file.stat().st_size != expected.bytes:
            return f"{name} has {file.stat().st_size} bytes instead of {expected.bytes}"
    digests = sha256_of_all([folder / name for name in manifest])
    for (name, expected), digest in zip(manifest.items(), digests, strict=True):
        if digest != expected.sha256:
            return f"{name} was changed"
    return ""


def fault_of_state(folder: Path) -> str:
    """Why this version cannot go on from a state that is as it was written; "" if it can."""
    try:
        state = State.model_validate_json((folder / STATE_FILE).read_bytes())
    except ValidationError as error:
        return f"{STATE_FILE} is none ({str(error).partition(chr(10))[0]})"
    if state.format == FORMAT:
        return ""
    writer = "a later" if state.format > FORMAT else "an earlier"
    return (
        f"it was written by {writer} version of mgrpo, in format {state.format}; this version "
        f"reads format {FORMAT}. Resume with the version in the run's environment.json"
    )


def read_state(folder: Path) -> JsonObject:
    """The state that `finish_checkpoint` wrote.

    Raises:
        RunDirectoryError: there is none, or it is none.
    """
    try:
        state: JsonObject = json.loads((folder / STATE_FILE).read_text(encoding="utf-8"))
        State.model_validate(state)
    except (OSError, ValueError, RecursionError) as error:
        reason = reason_of(error)
        raise RunDirectoryError(f"{folder / STATE_FILE} cannot be read: {reason}.") from error
    return state


def fingerprint(problems: Sequence[Problem]) -> str:
    """The same for the same problems in the same order, and for no others.

    Problems that are kept on disk may know theirs.
    """
    if known := getattr(problems, "known_fingerprint", ""):
        return str(known)
    digest = hashlib.sha256()
    for problem in problems:
        row: list[object] = [
            problem.problem_id,
            problem.question,
            problem.answer,
            problem.domain,
            problem.solution,
            problem.metadata,
        ]
        row += [given for given in (problem.earlier_turns, problem.source) if given]
        digest.update(json.dumps(row, sort_keys=True, default=repr).encode() + b"\n")
    return digest.hexdigest()


def refuse_other_problems(problems: Sequence[Problem], expected: str, source: str) -> None:
    """Raise RunDirectoryError if these are not the problems of a checkpoint.

    Args:
        expected: their fingerprint, as the checkpoint has it.
        source: what to call the data.
    """
    if fingerprint(problems) != expected:
        raise RunDirectoryError(
            f"data.train ({source}) has changed since the checkpoint was written: questions, "
            "answers or their order differ. Restore the earlier data to resume, give this "
            "run another name (--run NAME), or delete the earlier one first (--overwrite)."
        )


def sha256_of_all(files: Sequence[Path]) -> list[str]:
    """One of each file, several at a time."""
    with ThreadPool(HASH_THREADS) as pool:
        return pool.map(sha256_of, files, chunksize=1)


def sha256_of(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
