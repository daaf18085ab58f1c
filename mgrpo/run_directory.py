"""A run's folder: taken by one run, found again by name."""

from __future__ import annotations

import difflib
import shutil
from pathlib import Path

from mgrpo.errors import RunDirectoryError

METRICS_FILE = "metrics.jsonl"
CONFIG_FILE = "config.yaml"


def refuse_existing_run(run_dir: Path) -> None:
    """Raise RunDirectoryError where an earlier run has left its metrics."""
    if run_dir.exists() and not run_dir.is_dir():
        raise RunDirectoryError(f"{run_dir} is a file. Name the run otherwise: --run NAME.")
    if (run_dir / METRICS_FILE).exists():
        raise RunDirectoryError(
            f"{run_dir} already holds a run. Give this one another name (--run NAME), or delete "
            "the earlier one first (--overwrite)."
        )


def claim_run_directory(run_dir: Path, *, overwrite: bool) -> None:
    """Make the folder, empty of any earlier run.

    Raises:
        RunDirectoryError: it holds a run and `overwrite` is false, it holds something that no
            run has written, or it cannot be made.
    """
    if not overwrite:
        refuse_existing_run(run_dir)
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


def find_run(name: str, runs_dir: str = "runs") -> Path:
    """The folder of an earlier run, by path or by its name under `runs_dir`."""
    for folder in (Path(name).expanduser(), Path(runs_dir) / name):
        if (folder / METRICS_FILE).is_file() or (folder / CONFIG_FILE).is_file():
            return folder
    runs = sorted(path.parent.name for path in Path(runs_dir).glob(f"*/{METRICS_FILE}"))
    near = difflib.get_close_matches(name, runs, n=3, cutoff=0.4) or runs[:10]
    raise RunDirectoryError(
        f"There is no run {name!r}: neither that folder nor {Path(runs_dir) / name} holds "
        f"{METRICS_FILE}. Runs here: {', '.join(near) or 'none'}."
    )
