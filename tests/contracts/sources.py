"""The repository's files, for tests that read them."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("mgrpo", "actors", "learner", "rewards", "cluster")
PRIVATE_FOLDERS = {
    ".git",
    ".hypothesis",
    ".import_linter_cache",
    ".mypy_cache",
    ".pytest_cache",
    ".ruff_cache",
    "__pycache__",
    "build",
    "dist",
    "models_cache",
    "runs",
    "site",
}


def python_files(*folders: str) -> list[Path]:
    """Every Python file under the given top-level folders."""
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def own_files() -> Iterator[Path]:
    """Every file of the project itself: no environments, caches, runs or build products."""
    for folder, subfolders, files in os.walk(ROOT):
        subfolders[:] = sorted(name for name in subfolders if not is_private(name))
        yield from (path for path in (Path(folder) / name for name in files) if path.is_file())


def is_private(folder: str) -> bool:
    return folder in PRIVATE_FOLDERS or folder.startswith(".venv") or folder.endswith(".egg-info")


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def shown(path: Path) -> str:
    """The path as a person would name it."""
    return str(path.relative_to(ROOT))
