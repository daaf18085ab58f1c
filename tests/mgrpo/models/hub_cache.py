"""A cache of the hub as downloads leave it, which stands in for the hub where there is none."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

OLD, NEW = "0123456789abcdef0123456789abcdef01234567", "89abcdef0123456789abcdef0123456789abcdef"


def publish(
    cache: Path, name: str, files: Mapping[str, bytes], commit: str, ref: str = "main"
) -> Path:
    """A commit's folder; the branch or tag is at it from here on."""
    repository = cache / f"models--{name.replace('/', '--')}"
    folder = repository / "snapshots" / commit
    folder.mkdir(parents=True, exist_ok=True)
    for file, content in files.items():
        (folder / file).write_bytes(content)
    (repository / "refs").mkdir(exist_ok=True)
    (repository / "refs" / ref).write_text(commit)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """A model's files by name."""
    return {file.name: file.read_bytes() for file in folder.iterdir()}
