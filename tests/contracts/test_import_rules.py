"""The import contract of pyproject.toml holds, and it notices what it is there to notice."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import grimp
import pytest

from tests.contracts.sources import ROOMS, ROOT

DEADLINE_S = 120
GROUND_FLOOR = (
    "mgrpo.config",
    "mgrpo.types",
    "mgrpo.records.stored",
    "mgrpo.records.turns",
    "mgrpo.records.token_columns",
    "mgrpo.records.json_object",
    "mgrpo.errors",
    "mgrpo.records.secret_values",
    "mgrpo.registry",
    "mgrpo.rooms",
)


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the contracts over the packages in `folder`."""
    program = Path(sys.executable).parent / "lint-imports"
    return subprocess.run(
        [sys.executable, str(program), "--no-cache"],
        cwd=folder,
        env={"PYTHONPATH": str(folder), "COLUMNS": "200", "PATH": ""},
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )


@pytest.fixture
def copy_of_the_rooms(tmp_path: Path) -> Path:
    for room in ROOMS:
        shutil.copytree(ROOT / room, tmp_path / room, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_the_contracts_hold() -> None:
    done = lint_imports(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("module", "statement", "contract"),
    [
        ("learner/losses.py", "import actors.engine", "Imports point down"),
        ("rewards/pool.py", "from learner import losses", "Imports point down"),
        ("cluster/placement.py", "import learner.losses", "Imports point down"),
        ("mgrpo/config/base.py", "import cluster.placement", "Imports point down"),
        ("mgrpo/errors.py", "import mgrpo.config.run", "Imports point down"),
        (
            "actors/layers.py",
            "def late():\n    import mgrpo.training.loop",
            "Imports point down",
        ),
        ("learner/losses.py", "import vllm.config", "vLLM is imported by"),
        ("learner/losses.py", "from deepspeed import zero", "DeepSpeed is imported by"),
        ("rewards/pool.py", "import ray", "Ray is imported by"),
        ("mgrpo/types.py", "import torch", "The ground floor is light"),
    ],
)
def test_a_forbidden_import_breaks_the_contract(
    copy_of_the_rooms: Path, module: str, statement: str, contract: str
) -> None:
    path = copy_of_the_rooms / module
    path.write_text(f"{path.read_text(encoding='utf-8')}\n{statement}\n", encoding="utf-8")
    done = lint_imports(copy_of_the_rooms)
    broken = [line for line in done.stdout.splitlines() if " BROKEN" in line]
    assert done.returncode == 1, done.stdout + done.stderr
    assert any(line.startswith(contract) for line in broken), done.stdout


def test_the_ground_floor_imports_nothing_from_above_it() -> None:
    graph = grimp.build_graph(*ROOMS, cache_dir=None)
    ground = {module for name in GROUND_FLOOR for module in (name, *graph.find_descendants(name))}
    upward = {
        f"{module} -> {imported}"
        for module in ground
        for imported in graph.find_modules_directly_imported_by(module)
        if imported not in ground
    }
    assert upward == set()
