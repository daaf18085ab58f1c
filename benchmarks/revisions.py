"""Other revisions of this repository, to be measured beside the present one."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from benchmarks.machine import REPOSITORY

DEADLINE_S = 120


def check_out(revision: str, folder: Path) -> None:
    """Put the files of a revision into a folder, with the present benchmarks.

    Raises:
        CalledProcessError: there is no such revision here.
    """
    files = folder / "revision.tar"
    git = ["git", "-C", str(REPOSITORY), "archive", "--output", str(files), revision]
    extract = ["tar", "-xf", str(files), "-C", str(folder), "--exclude", "benchmarks"]
    for command in (git, extract):
        subprocess.run(command, check=True, timeout=DEADLINE_S)
    shutil.copytree(REPOSITORY / "benchmarks", folder / "benchmarks")
