"""The command line answers at once: what it imports before it knows the command is light."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

import pytest

from tests.contracts.sources import ROOT

DEADLINE_S = 60
HEAVY = ("torch", "transformers", "vllm", "ray", "deepspeed", "datasets", "numpy")

# Runs the code given as the first argument; prints which heavy libraries it brought in.
PROBE = """
import contextlib, io, sys
with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
    exec(sys.argv.pop(1))
print(*sorted(set(sys.modules) & set(sys.argv[1].split(","))))
"""


def heavy_imports_of(code: str, heavy: Sequence[str] = HEAVY) -> list[str]:
    """The heavy libraries in memory after a new process has run `code`."""
    done = subprocess.run(
        [sys.executable, "-c", PROBE, code, ",".join(heavy)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["version"]])
def test_the_command_line_s_help_imports_nothing_heavy(arguments: list[str]) -> None:
    assert heavy_imports_of(f"from mgrpo.cli import main; main({arguments!r})") == []


@pytest.mark.parametrize(
    "module", ["mgrpo", "mgrpo.errors", "mgrpo.config.sections", "mgrpo.config.load"]
)
def test_the_ground_floor_imports_nothing_heavy(module: str) -> None:
    # Records hold token columns, which are arrays.
    assert heavy_imports_of(f"import {module}") == (["numpy"] if module == "mgrpo.types" else [])


def test_the_records_import_numpy_for_their_columns_and_nothing_else() -> None:
    assert heavy_imports_of("import mgrpo.types") == ["numpy"]


def test_a_reward_process_imports_no_section_of_recipes_but_rewards() -> None:
    others = ("mgrpo.config.sections", "mgrpo.config.layers", "mgrpo.config.run")
    assert heavy_imports_of("import rewards.worker", others) == []
    assert heavy_imports_of("from mgrpo.config import RunConfig", others) == sorted(others)


def test_the_probe_notices_a_heavy_import() -> None:
    assert heavy_imports_of("import numpy") == ["numpy"]
