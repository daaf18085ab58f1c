"""A run's folder: taken by one run, found again by name."""

from __future__ import annotations

import difflib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mgrpo.checkpoints import checkpoints, newest_whole
from mgrpo.config import OutputConfig, RunConfig, StorageConfig
from mgrpo.config.load import load_recipe
from mgrpo.errors import RunDirectoryError
from mgrpo.mirror import Mirror
from mgrpo.storage import Storage, is_url, local_folder_of

METRICS_FILE = "metrics.jsonl"
EVALUATION_FILE = "evaluation.jsonl"
CONFIG_FILE = "config.yaml"
POLICY_DIR = "policy"
MAY_CHANGE = ("description", "method", "paper", "alarms", "checkpoints", "output", "cluster")
"""Sections that a resumed run may have otherwise: they do not touch its numbers."""


def refuse_existing_run(run_dir: Path) -> None:
    """Raise RunDirectoryError where an earlier run has left its metrics.

    One that ended before its first step, for want of a place or of a model, has left nothing to
    keep: the same command may simply be given again.
    """
    if run_dir.exists() and not run_dir.is_dir():
        raise RunDirectoryError(f"{run_dir} is a file. Name the run otherwise: --run NAME.")
    metrics = run_dir / METRICS_FILE
    if metrics.exists() and metrics.stat().st_size > 0:
        raise RunDirectoryError(
            f"{run_dir} already holds a run. Give this one another name (--run NAME), or delete "
            "the earlier one first (--overwrite)."
        )


def resume_point(run_dir: Path, config: RunConfig) -> Path | None:
    """The checkpoint from which this recipe goes on in this folder, if there is one.

    Raises:
        RunDirectoryError: the run there has ended, is of another recipe, or every checkpoint
            of it is damaged.
    """
    if not (run_dir / CONFIG_FILE).is_file() or not checkpoints(run_dir):
        return None
    if (run_dir / POLICY_DIR).is_dir():
        raise RunDirectoryError(
            f"The run in {run_dir} has come to its end. Give this one another name (--run NAME), "
            "or delete the earlier one first (--overwrite)."
        )
    changed = changed_keys(load_recipe(run_dir / CONFIG_FILE), config)
    if changed:
        raise RunDirectoryError(
            f"{run_dir} holds a checkpoint of another recipe: {', '.join(changed[:8])} differ. "
            "Resume with the recipe that it was made with, give this run another name "
            "(--run NAME), or delete the earlier one first (--overwrite)."
        )
    folder, faults = newest_whole(run_dir)
    if folder is None:
        raise RunDirectoryError(
            f"No checkpoint in {run_dir} is whole: {'; '.join(faults)}. Start again with "
            "--overwrite."
        )
    return folder


def changed_keys(before: RunConfig, now: RunConfig) -> list[str]:
    """Dotted paths whose values differ, of those that a resumed run must not change."""
    trees = [one.model_dump(mode="json", exclude=set(MAY_CHANGE)) for one in (before, now)]
    return sorted(differences(trees[0], trees[1], ""))


def differences(one: Any, other: Any, path: str) -> Iterator[str]:
    if isinstance(one, dict) and isinstance(other, dict):
        for key in {**one, **other}:
            yield from differences(one.get(key), other.get(key), f"{path}.{key}" if path else key)
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for place, (left, right) in enumerate(zip(one, other, strict=True)):
            yield from differences(left, right, f"{path}.{place}")
    elif one != other:
        yield path


def claim_run_directory(run_dir: Path, *, overwrite: bool) -> None:
    """Make the folder, empty of any earlier run.

    Raises:
        RunDirectoryError: it holds a run and `overwrite` is false, it holds something that no
            run has written, or it cannot be made.
    """
    if not overwrite:
        refuse_existing_run(run_dir)
        (run_dir / EVALUATION_FILE).unlink(missing_ok=True)  # of a start without a step
    elif run_dir.is_dir() and any(run_dir.iterdir()):
        if not any((run_dir / file).exists() for file in (METRICS_FILE, CONFIG_FILE)):
            raise RunDirectoryError(
                f"--overwrite would delete {run_dir}, which is not empty and has neither "
                f"{METRICS_FILE} nor {CONFIG_FILE}, so it is no run. Move it away, or give "
                "--run NAME."
            )
        shutil.rmtree(run_dir)
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunDirectoryError(
            f"Cannot make the run's folder {run_dir}: {error.strerror}. Set output.runs_dir to a "
            "place that can be written to."
        ) from error


def fetched_run(url: str) -> Path:
    """The folder of this machine that holds a run from shared storage."""
    parent, _, name = url.rstrip("/").rpartition("/")
    run_dir = Path(OutputConfig().local_runs_dir) / local_folder_of(parent) / name
    Mirror(Storage(url, StorageConfig()), run_dir).fetch_policy()
    return run_dir


def find_run(name: str, runs_dir: str = "runs") -> Path:
    """The folder of an earlier run, by path, by its name under `runs_dir`, or by its URL.

    What lies at an URL is fetched first: records, and the policy where the run has ended.
    """
    if is_url(name):
        return fetched_run(name)
    for folder in (Path(name).expanduser(), Path(runs_dir) / name):
        if (folder / METRICS_FILE).is_file() or (folder / CONFIG_FILE).is_file():
            return folder
    runs = sorted(path.parent.name for path in Path(runs_dir).glob(f"*/{METRICS_FILE}"))
    near = difflib.get_close_matches(name, runs, n=3, cutoff=0.4) or runs[:10]
    raise RunDirectoryError(
        f"There is no run {name!r}: neither that folder nor {Path(runs_dir) / name} holds "
        f"{METRICS_FILE}. Runs here: {', '.join(near) or 'none'}."
    )
