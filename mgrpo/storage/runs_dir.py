"""The folder of runs for this process: local, in a job, or below MGRPO_RUNS_ROOT."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from cluster.jobs.job_config import is_in_job
from mgrpo.errors import RunDirectoryError

RUNS_ROOT_VARIABLE = "MGRPO_RUNS_ROOT"


def resolve_runs_dir(runs_dir: str, environment: Mapping[str, str] = os.environ) -> str:
    """A recipe's `output.runs_dir` as a folder that persists after this process.

    Absolute paths and URLs (s3://...) are unchanged. A relative path is relative to
    $MGRPO_RUNS_ROOT if that is set, otherwise to the current folder.

    Raises:
        RunDirectoryError: in a job, for a relative path without that variable: the job's
            current folder is a temporary one, and the run would be lost with it.
    """
    folder = Path(runs_dir).expanduser()
    if "://" in runs_dir or folder.is_absolute():
        return runs_dir if "://" in runs_dir else str(folder)
    root = environment.get(RUNS_ROOT_VARIABLE)
    if root:
        return str(Path(root).expanduser() / folder)
    if is_in_job(environment):
        raise RunDirectoryError(
            f"output.runs_dir = {runs_dir} is relative, and this is a job: its current folder "
            f"({Path.cwd()}) is temporary, so the run would be deleted with it. Set "
            "output.runs_dir to an absolute path that all nodes share, or have the job's runtime "
            f"environment set {RUNS_ROOT_VARIABLE} (as cluster/runtime_env.yaml does)."
        )
    return runs_dir
