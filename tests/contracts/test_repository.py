"""What must be true of the repository's files, whoever changes them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mgrpo.config.load import load_recipe
from tests.contracts.sources import ROOMS, ROOT, own_files, python_files, shown, tree_of

RECIPES = [
    *(file for file in sorted((ROOT / "mgrpo").rglob("*.yaml")) if file.parent.name != "suites"),
    *sorted((ROOT / "benchmarks").rglob("*.yaml")),
]
# Someone's own folders: they are right on one machine only.
MACHINE_PATH = re.compile(r"(?<![\w.~}$-])/(?:home|root|Users|work|mnt|data)/[\w.-]+")
MAX_FILE_BYTES = 5 * 2**20


def text_of(path: Path) -> str:
    """A file's text; empty where it holds none."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return ""


@pytest.mark.parametrize("recipe", RECIPES, ids=shown)
def test_a_recipe_loads(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    config = load_recipe(recipe)
    assert config.steps > 0


def test_there_are_recipes() -> None:
    assert RECIPES


def test_no_file_names_a_folder_of_somebody_s_machine() -> None:
    found = [
        f"{shown(path)}:{number}: {match.group()}"
        for path in own_files()
        for number, line in enumerate(text_of(path).splitlines(), start=1)
        for match in MACHINE_PATH.finditer(line)
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("line", "is_found"),
    [
        ("open('" + "/home" + "/ann/model')", True),
        ("see " + "/root" + "/x", True),
        ("make setup PYTHON=/path/to/python", False),
        ("https://example.org" + "/data" + "/x", False),
        ("runs/" + "home" + "/x", False),
    ],
)
def test_the_machine_path_pattern(line: str, is_found: bool) -> None:
    assert bool(MACHINE_PATH.search(line)) is is_found


def test_no_file_is_too_large_for_a_repository() -> None:
    large = [f"{shown(p)}: {p.stat().st_size} bytes" for p in own_files() if is_large(p)]
    assert not large, "\n".join(large)


def test_every_method_has_tests_in_the_folder_that_mirrors_its_own() -> None:
    methods = [file.parent.name for file in (ROOT / "mgrpo" / "methods").glob("*/recipe.yaml")]
    folder = ROOT / "tests" / "mgrpo" / "methods"
    untested = [name for name in sorted(methods) if not has_tests(folder / name)]
    assert methods and not untested, f"no test in tests/mgrpo/methods/: {', '.join(untested)}"


def has_tests(folder: Path) -> bool:
    """Whether a folder has a file of tests with at least one test in it."""
    files = folder.glob("test_*.py")
    return any(re.search(r"^def test_", text_of(file), re.MULTILINE) for file in files)


def is_large(path: Path) -> bool:
    return path.stat().st_size > MAX_FILE_BYTES


def test_every_module_says_what_it_is_for() -> None:
    silent = [
        shown(path)
        for path in python_files(*ROOMS, "scripts")
        if text_of(path).strip() and not module_docstring(path)
    ]
    assert not silent, "no docstring: " + ", ".join(silent)


def module_docstring(path: Path) -> str:
    body = tree_of(path).body
    first = getattr(getattr(body[0], "value", None), "value", "") if body else ""
    return first if isinstance(first, str) else ""
