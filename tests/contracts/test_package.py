"""What the built package says of itself, and that each fact is written once."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from mgrpo import __version__
from tests.contracts.sources import ROOMS, ROOT

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")


def test_the_version_is_written_in_one_place() -> None:
    assert "version" not in PYPROJECT["project"]
    assert PYPROJECT["tool"]["setuptools"]["dynamic"]["version"] == {
        "attr": "mgrpo.version.__version__"
    }
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.dev\d+|(a|b|rc)\d+)?", __version__)


@pytest.mark.parametrize("room", ROOMS)
def test_type_checkers_of_users_read_the_types_of_each_package(room: str) -> None:
    assert (ROOT / room / "py.typed").is_file()
    assert "py.typed" in PYPROJECT["tool"]["setuptools"]["package-data"]["*"]


def test_the_image_holds_what_the_dockerfile_copies_and_can_install_before_our_code(
    tmp_path: Path,
) -> None:
    """Its first layer imports the packages, as scripts/install.py does there."""
    before, install, after = DOCKERFILE.partition("\nRUN mkdir ")
    assert install and "make setup" in after.splitlines()[1]
    for line in re.findall(r"^COPY (.+)$", before, re.MULTILINE):
        *sources, target = line.split()
        for source in sources:
            copy = (
                tmp_path / target / Path(source).name if target.endswith("/") else tmp_path / target
            )
            copy.parent.mkdir(exist_ok=True)
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, copy)
            else:
                shutil.copy(ROOT / source, copy)
    for room in after.partition("\\")[0].split():
        (tmp_path / room).mkdir()
    code = f"import {', '.join(ROOMS)}; print(mgrpo.__file__)"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.strip() == str(tmp_path / "mgrpo" / "__init__.py"), done.stderr


def test_the_image_is_given_no_more_than_it_copies() -> None:
    copied = {
        source.split("/")[0]
        for line in re.findall(r"^COPY (.+)$", DOCKERFILE, re.MULTILINE)
        for source in line.split()[:-1]
    }
    ignore = (ROOT / ".dockerignore").read_text(encoding="utf-8").split("\n")
    assert "*" in ignore
    assert {line[1:] for line in ignore if line.startswith("!")} == copied
    assert set(ROOMS) <= copied


def test_the_workflows_run_commands_that_make_has_on_the_pythons_that_are_supported() -> None:
    workflows = {
        path.name: yaml.safe_load(path.read_text(encoding="utf-8"))
        for path in (ROOT / ".github" / "workflows").glob("*.yml")
    }
    commands = {
        target
        for workflow in workflows.values()
        for job in workflow["jobs"].values()
        for step in job["steps"]
        for target in re.findall(r"^make ([\w-]+)", step.get("run", ""), re.MULTILINE)
    }
    targets = re.findall(
        r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert {"setup", "check", "test", "test-wheel"} <= commands <= set(targets)
    pythons = workflows["ci.yml"]["jobs"]["test"]["strategy"]["matrix"]["python"]
    named = [line for line in PYPROJECT["project"]["classifiers"] if ":: Python :: 3" in line]
    assert pythons == [line.rpartition(" ")[2] for line in named]
    first, last = (version.split(".")[1] for version in (pythons[0], pythons[-1]))
    assert PYPROJECT["project"]["requires-python"] == f">=3.{first},<3.{int(last) + 1}"
