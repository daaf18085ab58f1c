"""The loop, the records and the base of configuration know no method: a method is a folder."""

from __future__ import annotations

import re
from pathlib import Path

import grimp
import pytest

from tests.contracts.sources import ROOMS, ROOT, python_files, shown

METHODS = ROOT / "mgrpo" / "methods"
GENERAL_WORDS = {
    "grpo",  # what all of them change; also the end of the package's name
    "mgrpo",  # the package
    "score",  # what the checks do
    "success_only",
}
"""Folders whose names are words that the base may use."""
BASE = [
    *python_files("mgrpo/training"),
    ROOT / "mgrpo" / "types.py",
    *python_files("mgrpo/records"),
    ROOT / "mgrpo" / "metric_sums.py",
    ROOT / "mgrpo" / "plugin.py",
    ROOT / "mgrpo" / "config" / "base.py",
    ROOT / "mgrpo" / "config" / "run.py",
    ROOT / "actors" / "rollout.py",
    ROOT / "learner" / "rank.py",
]


def method_names() -> list[str]:
    folders = [path.name for path in METHODS.iterdir() if (path / "recipe.yaml").is_file()]
    return sorted(set(folders) - GENERAL_WORDS)


def named_in(text: str) -> set[str]:
    """Methods that a text names, in any case, however the parts of the name are joined."""
    return {
        name
        for name in method_names()
        if re.search(rf"(?<![a-z]){name.replace('_', '[-_ ]?')}(?![a-z])", text, re.IGNORECASE)
    }


def test_there_are_methods_to_look_for() -> None:
    assert len(method_names()) > 30
    assert named_in("as in ScRPO, or GRPO-CARE") == {"scrpo", "grpo_care"}
    assert named_in("a descriptor") == set()


@pytest.mark.parametrize("path", BASE, ids=shown)
def test_no_method_is_named(path: Path) -> None:
    assert named_in(path.read_text(encoding="utf-8")) == set()


def test_nothing_below_them_imports_a_method() -> None:
    """Methods are found by the names that their folders declare (mgrpo/registry.py)."""
    graph = grimp.build_graph(*ROOMS, cache_dir=None)
    methods = graph.find_descendants("mgrpo.methods")
    above = ("mgrpo.methods", "mgrpo.check", "mgrpo.plan", "mgrpo.commands", "mgrpo.cli")
    importers = {
        f"{module} -> {method}"
        for method in methods
        for module in graph.find_modules_that_directly_import(method)
        if not module.startswith(above)
    }
    assert importers == set()


def test_the_loop_fits_two_screens() -> None:
    lines = (ROOT / "mgrpo" / "training" / "loop.py").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 150
