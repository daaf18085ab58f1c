"""Checks that the storage of the recipe's runs can be read from here."""

from __future__ import annotations

from mgrpo.config import OutputConfig
from mgrpo.errors import StorageError
from mgrpo.findings import CheckLine
from mgrpo.storage.files import Storage, is_url, scheme_of

DEADLINE_S = 10.0  # a check answers in seconds


def storage_lines(output: OutputConfig, run: str) -> list[CheckLine]:
    """One line if runs_dir is a URL; the run tests at its start whether it can write."""
    if not is_url(output.runs_dir):
        return []
    quick = output.storage.model_copy(
        update={"attempts": 1, "deadline_s": min(output.storage.deadline_s, DEADLINE_S)}
    )
    try:
        names = Storage(f"{output.runs_dir.rstrip('/')}/{run}", quick).find()
    except StorageError as error:
        return [CheckLine("fail", "output.runs_dir", str(error))]
    if scheme_of(output.runs_dir) == "memory":
        text = f"{output.runs_dir} is this process's memory: its content is lost when the run ends"
        return [CheckLine("warn", "output.runs_dir", text)]
    found = f"{len(names)} files of run {run} there" if names else "nothing there yet"
    return [CheckLine("ok", "output.runs_dir", f"{output.runs_dir} can be read, {found}")]
