"""What the built package says of itself, and that each fact is written once."""

from __future__ import annotations

import re
import tomllib

import pytest

from mgrpo import __version__
from tests.contracts.sources import ROOMS, ROOT

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_the_version_is_written_in_one_place() -> None:
    assert "version" not in PYPROJECT["project"]
    assert PYPROJECT["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "mgrpo.__version__"}
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.dev\d+|(a|b|rc)\d+)?", __version__)


@pytest.mark.parametrize("room", ROOMS)
def test_type_checkers_of_users_read_the_types_of_each_package(room: str) -> None:
    assert (ROOT / room / "py.typed").is_file()
    assert "py.typed" in PYPROJECT["tool"]["setuptools"]["package-data"]["*"]
