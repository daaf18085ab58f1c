"""A copy of a run's folder in shared storage.

The run works in a folder of this machine. After each checkpoint new files are uploaded to the URL
in the background: the checkpoint's data first and its manifest last, so that an interrupted upload
does not count. A run that starts on another machine fetches the newest complete checkpoint.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

from cluster.progress_board import LOOK_S, Patience
from mgrpo.config import OutputConfig, RunConfig
from mgrpo.config.yaml_core import parse_yaml
from mgrpo.errors import RunDirectoryError, StorageError
from mgrpo.storage.checkpoints import (
    CHECKPOINTS_DIR,
    MANIFEST_FILE,
    UNFINISHED,
    checkpoints,
    fault_of,
    kept,
    newest_whole,
)
from mgrpo.storage.files import Storage, is_url, local_folder_of
from mgrpo.storage.policies import BEST_FILE, POLICY_DIR
from mgrpo.storage.runs_dir import resolve_runs_dir

POLICY_LAST = f"{POLICY_DIR}/config.json"  # its last file: a policy without it is incomplete
PARTIAL = (".unfinished", ".partial", ".old")


def local_run_dir(output: OutputConfig, name: str) -> Path:
    """The folder of this machine that a run of this name works in."""
    if not is_url(output.runs_dir):
        return Path(resolve_runs_dir(output.runs_dir)) / name
    return Path(output.local_runs_dir) / local_folder_of(output.runs_dir) / name


def mirror_of(config: RunConfig, run_dir: Path) -> Mirror:
    """The run's mirror; one that does nothing if runs_dir is a local folder."""
    if not is_url(config.output.runs_dir):
        return Mirror(None, run_dir)
    url = f"{config.output.runs_dir.rstrip('/')}/{config.name}"
    storage = Storage(url, config.output.storage)
    return Mirror(storage, run_dir, keep=config.checkpoints.keep, num_steps=config.steps)


class Mirror:
    """Copies a run's folder to its storage, and back."""

    def __init__(
        self, storage: Storage | None, run_dir: Path, *, keep: int = 2, num_steps: int = 0
    ) -> None:
        self.storage, self.run_dir, self.keep = storage, run_dir, keep
        self.num_steps = num_steps  # planned for the run
        self.sent: dict[str, tuple[int, int]] = {}  # name -> size and time of change
        self.thread: threading.Thread | None = None
        self.failure: Exception | None = None
        self.num_failed = 0
        self.warn: Callable[[str], None] = print

    # --- at the start ---

    def fetch(self) -> None:
        """Fetch the run's newest complete checkpoint, unless this machine has it or a newer one.

        Raises:
            StorageError: the storage cannot be read.
            RunDirectoryError: the run there is finished, or none of its checkpoints is complete.
        """
        if self.storage is None:
            return None
        names = self.storage.find()
        if POLICY_LAST in names and self.num_steps <= self._stored_steps():
            raise RunDirectoryError(
                f"The run at {self.storage.url} is already finished. Make it longer (steps=N), "
                "give this one another name (--run NAME), or delete the earlier one first "
                "(--overwrite)."
            )
        there = stored_checkpoints(names)
        here, _ = newest_whole(self.run_dir)
        if not there or (here is not None and here.name >= there[-1]):
            return None
        faults: list[str] = []
        for name in reversed(there):
            if here is not None and here.name >= name:
                break
            url = self.storage.url_of(f"{CHECKPOINTS_DIR}/{name}")
            print(f"fetching {url}", flush=True)
            fault = self._fetch_checkpoint(name, names)
            if not fault:
                return self._fetch_files(names)
            faults.append(f"{url}: {fault}")
            print(f"{faults[-1]}; looking at the one before", flush=True)
        if here is None:
            raise RunDirectoryError(
                f"No checkpoint at {self.storage.url} is complete: {'; '.join(faults)}. Start "
                "again "
                "with --overwrite."
            )
        return None

    def refuse_existing(self) -> None:
        """Raise RunDirectoryError if an earlier run cannot be resumed."""
        if self.storage is None:
            return
        names = self.storage.find()
        if "metrics.jsonl" in names and not stored_checkpoints(names):
            raise RunDirectoryError(
                f"{self.storage.url} already holds a run, without a checkpoint to resume from. "
                "Give "
                "this one another name (--run NAME), or delete the earlier one first (--overwrite)."
            )

    def _stored_steps(self) -> int:
        """The planned number of steps of the run in the storage."""
        assert self.storage is not None
        recipe = parse_yaml(self.storage.read("config.yaml").decode())
        return int(recipe["steps"])

    def reopen(self) -> None:
        """Continue the run in the storage: its policy no longer counts as complete."""
        if self.storage is not None:
            self.storage.remove(POLICY_LAST)

    def remove(self) -> None:
        """Delete the run in the storage."""
        if self.storage is None:
            return
        names = self.storage.find()
        # The manifests first: if this is interrupted, no incomplete checkpoint counts.
        for name in sorted(names, key=lambda one: not one.endswith(f"/{MANIFEST_FILE}")):
            self.storage.remove(name)

    def fetch_policy(self) -> None:
        """Fetch the finished run's policy and records.

        Raises:
            RunDirectoryError: there is no such run.
        """
        assert self.storage is not None, "a run at an URL"
        names = self.storage.find()
        if not names:
            raise RunDirectoryError(f"There is no run at {self.storage.url}.")
        self._fetch_files(names)
        policy = self.run_dir / POLICY_DIR
        if POLICY_LAST in names and not policy.is_dir():
            partial = self.run_dir / f".{POLICY_DIR}.partial"
            shutil.rmtree(partial, ignore_errors=True)
            for name in names:
                if name.startswith(f"{POLICY_DIR}/"):
                    self.storage.get(name, partial / name.removeprefix(f"{POLICY_DIR}/"))
            partial.rename(policy)

    def _fetch_checkpoint(self, name: str, names: dict[str, int]) -> str:
        """Download one checkpoint; returns its fault, "" if there is none."""
        assert self.storage is not None
        prefix = f"{CHECKPOINTS_DIR}/{name}/"
        folder = self.run_dir / CHECKPOINTS_DIR / name
        unfinished = folder.with_suffix(UNFINISHED)
        shutil.rmtree(unfinished, ignore_errors=True)
        for file in names:
            if file.startswith(prefix):
                self.storage.get(file, unfinished / file.removeprefix(prefix))
        if fault := fault_of(unfinished):
            shutil.rmtree(unfinished)
            return fault
        shutil.rmtree(folder, ignore_errors=True)
        unfinished.rename(folder)
        return ""

    def _fetch_files(self, names: dict[str, int]) -> None:
        """Fetch everything but checkpoints and policy; local files are replaced."""
        assert self.storage is not None
        for name in names:
            if not name.startswith((f"{CHECKPOINTS_DIR}/", f"{POLICY_DIR}/")):
                self.storage.get(name, self.run_dir / name)

    # --- while it runs ---

    def begin(self) -> None:
        """Upload the run's first files, so that an unwritable storage is detected now.

        Raises:
            StorageError: it cannot.
        """
        if self.storage is None:
            return
        try:
            self._send_files()
        except StorageError:
            self.storage = None  # it has been retried: not again when the run ends
            raise
        if self.storage.url.startswith("memory:"):
            self.warn(
                f"{self.storage.url} is this process's memory: it is lost when the process ends."
            )

    def checkpoint(self, folder: Path, within_s: float | None = None) -> None:
        """Start the upload of a finished checkpoint and other new files, after the one before."""
        if self.storage is None:
            return
        self.settle(within_s)
        self._begin(lambda: self._send_checkpoint(folder))

    def settle(self, within_s: float | None = None) -> str:
        """Wait for the upload, no longer than `within_s` or, without, as long as it moves; returns
        its error, "" if it succeeded.

        A failure is also reported to the user, once. The next checkpoint is uploaded in any case.
        """
        if self.storage is None or self.thread is None:
            return ""
        deadline_s = within_s or self.storage.config.upload_s
        patience = Patience(deadline_s, None if within_s else self.storage)
        while self.thread.is_alive() and (left_s := patience.left_s()) > 0:
            self.thread.join(min(left_s, LOOK_S))
        is_late, self.thread = self.thread.is_alive(), None
        failure = str(self.failure) if self.failure is not None else ""
        if is_late:
            failure = f"The upload to {self.storage.url} " + (
                f"did not finish within {deadline_s:g} s (checkpoints.on_signal_s)."
                if within_s
                else f"made no progress for {deadline_s:g} s (output.storage.upload_s)."
            )
        if failure:
            self.num_failed += 1
            self.warn(f"{failure} The local folder has all files: {self.run_dir}.")
        return failure

    def finish(self, within_s: float | None = None) -> str:
        """Upload everything that is missing, the policy last, and wait for it.

        Args:
            within_s: longest time for all of it, what a signal leaves; None: as long as it moves.

        Returns:
            The error, "" if everything was uploaded.
        """
        if self.storage is None:
            return ""
        began = time.monotonic()
        self.settle(within_s)
        self._begin(self._send_rest)
        left_s = None if within_s is None else within_s - (time.monotonic() - began)
        lost = self.settle(None if left_s is None else max(0.1, left_s))
        if not lost:
            print(f"kept at {self.storage.url}", flush=True)
        return lost

    def _begin(self, work: Callable[[], None]) -> None:
        assert self.thread is None, "one upload at a time"
        self.failure = None

        def guarded() -> None:
            try:
                work()
            except (StorageError, OSError) as error:
                self.failure = error

        self.thread = threading.Thread(target=guarded, name="mirror", daemon=True)
        self.thread.start()

    def _send_checkpoint(self, folder: Path) -> None:
        assert self.storage is not None
        prefix = f"{CHECKPOINTS_DIR}/{folder.name}"
        # The same step, written again after a resume: without its manifest it does not count.
        self.storage.remove(f"{prefix}/{MANIFEST_FILE}")
        files = sorted(file for file in folder.rglob("*") if file.is_file())
        for file in sorted(files, key=lambda one: one.name == MANIFEST_FILE):
            self.storage.put(file, f"{prefix}/{file.relative_to(folder).as_posix()}")
        self._send_files()
        names = self.storage.find(CHECKPOINTS_DIR)
        stored = stored_checkpoints(names)
        best = [one for one in stored if f"{CHECKPOINTS_DIR}/{one}/{BEST_FILE}" in names]
        for old in sorted(set(stored).difference(kept(stored, best, self.keep, folder.name))):
            start = f"{CHECKPOINTS_DIR}/{old}/"
            self.storage.remove(f"{start}{MANIFEST_FILE}")
            for name in names:
                if name.startswith(start) and not name.endswith(f"/{MANIFEST_FILE}"):
                    self.storage.remove(name)

    def _send_rest(self) -> None:
        assert self.storage is not None
        there = stored_checkpoints(self.storage.find(CHECKPOINTS_DIR))
        for folder in checkpoints(self.run_dir)[-1:]:
            if folder.name not in there:
                self._send_checkpoint(folder)
        self._send_files()
        policy = self.run_dir / POLICY_DIR
        files = sorted(policy.rglob("*"), key=lambda one: one == self.run_dir / POLICY_LAST)
        for file in files:
            if file.is_file():
                self.storage.put(file, file.relative_to(self.run_dir).as_posix())

    def _send_files(self) -> None:
        """Files that changed since their last upload, without checkpoints and policy."""
        assert self.storage is not None
        for file in sorted(self.run_dir.rglob("*")):
            name = file.relative_to(self.run_dir)
            is_partial = any(part.endswith(PARTIAL) for part in name.parts)
            if name.parts[0] in (CHECKPOINTS_DIR, POLICY_DIR) or is_partial or file.is_symlink():
                continue
            if not file.is_file():
                continue
            state = (file.stat().st_size, file.stat().st_mtime_ns)
            if self.sent.get(name.as_posix()) != state:
                self.storage.put(file, name.as_posix())
                self.sent[name.as_posix()] = state
        for gone in [name for name in self.sent if not (self.run_dir / name).exists()]:
            self.storage.remove(gone)  # policies that are no longer kept
            del self.sent[gone]


def stored_checkpoints(names: dict[str, int]) -> list[str]:
    """The folders of the checkpoints that have their manifest, oldest first."""
    found = []
    for name in names:
        parts = name.split("/")
        if len(parts) == 3 and parts[0] == CHECKPOINTS_DIR and parts[2] == MANIFEST_FILE:
            found.append(parts[1])
    return sorted(found)
