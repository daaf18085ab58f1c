"""scripts/setup.sh: it finds a Python that runs, not merely one that is there."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.contracts.sources import ROOT

DEADLINE_S = 30
BROKEN_SHIM = "#!/bin/sh\necho 'command not found in this version' >&2\nexit 127\n"
# Answers version questions like the version named, and says who it is when handed the work.
FAKE_PYTHON = """#!/bin/sh
if [ "$1" = -m ]; then echo "{name} runs $*"; exit 0; fi
case "$2" in *"(3, 11) <= sys.version_info < (3, 14)"*) exit {unsupported} ;; esac
exit 1
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with the script and a PATH folder of its own, `bin`."""
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "setup.sh", tmp_path / "scripts")
    (tmp_path / "bin").mkdir()
    for tool in ("bash", "dirname", "sh"):
        found = shutil.which(tool)
        assert found
        (tmp_path / "bin" / tool).symlink_to(found)
    return tmp_path


def add(checkout: Path, name: str, text: str) -> None:
    path = checkout / "bin" / name
    path.write_text(text)
    path.chmod(0o755)


def run_setup(checkout: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(checkout / "bin" / "bash"), str(checkout / "scripts" / "setup.sh"), "--extra", "cpu"],
        env={"PATH": str(checkout / "bin"), "HOME": str(checkout), **environment},
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )


def test_a_shim_that_does_not_run_is_passed_over(checkout: Path) -> None:
    add(checkout, "python3.11", BROKEN_SHIM)
    add(checkout, "python3.12", FAKE_PYTHON.format(name="twelve", unsupported=0))
    assert run_setup(checkout).stdout == "twelve runs -m scripts.install --extra cpu\n"


def test_a_supported_python_is_preferred_to_a_newer_default(checkout: Path) -> None:
    add(checkout, "python3", FAKE_PYTHON.format(name="fourteen", unsupported=1))
    add(checkout, "python3.12", FAKE_PYTHON.format(name="twelve", unsupported=0))
    assert run_setup(checkout).stdout.startswith("twelve runs")


def test_the_python_named_by_the_user_is_taken(checkout: Path) -> None:
    add(checkout, "python3.11", FAKE_PYTHON.format(name="eleven", unsupported=0))
    add(checkout, "mine", FAKE_PYTHON.format(name="mine", unsupported=0))
    assert run_setup(checkout, PYTHON="mine").stdout.startswith("mine runs")


@pytest.mark.parametrize("environment", [{}, {"PYTHON": "python3"}, {"PYTHON": "no-such"}])
def test_without_a_supported_python_the_message_says_what_to_install(
    checkout: Path, environment: dict[str, str]
) -> None:
    add(checkout, "python3", FAKE_PYTHON.format(name="fourteen", unsupported=1))
    done = run_setup(checkout, **environment)
    assert done.returncode == 2
    named = environment.get("PYTHON", "what is here")
    assert f"Python 3.11, 3.12 or 3.13 is needed; {named} is none that runs" in done.stderr
    assert "apt-get install" in done.stderr
    assert "PYTHON=" in done.stderr
    assert "runs -m" not in done.stdout
