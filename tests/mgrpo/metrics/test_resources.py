from __future__ import annotations

import mmap
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from cluster.left_over import mark_owner, private_folder
from mgrpo.metrics.resources import held, on_disk, role_of


@pytest.mark.parametrize(
    ("command", "role"),
    [
        ("ray::VllmEngine.generate", "engines"),
        ("VLLM::EngineCore", "engines"),
        ("ray::LearnerRank", "learner"),
        ("ray::learner-rank-0.update", "learner"),
        ("ray::layer1-engine-0.generate", "engines"),
        ("python -c from multiprocessing.spawn import spawn_main", "rewards"),
        ("/lib/ray/core/src/ray/raylet/raylet --raylet_socket_name=x", "ray"),
        ("ray::RuntimeEnvAgent", "ray"),
    ],
)
def test_a_process_has_the_role_of_its_command_line(command, role):
    assert role_of(command) == role


def test_a_file_that_is_opened_and_a_child_count():
    before = held()
    with (
        Path(os.devnull).open(),
        subprocess.Popen(
            [sys.executable, "-c", "input()", "gcs_server"], stdin=subprocess.PIPE
        ) as child,
    ):
        now = held()
        child.communicate(b"\n", timeout=60)
    assert now["driver/files"] >= before["driver/files"] + 2
    assert now["driver/memory_mib"] > 1
    assert now["ray/threads"] >= before.get("ray/threads", 0) + 1


def test_shared_memory_is_its_own_and_no_other():
    before = held()
    with mmap.mmap(-1, 8 * 2**20) as mapped:  # shared, in no file
        mapped[:: mmap.PAGESIZE] = b"x" * (len(mapped) // mmap.PAGESIZE)
        now = held()
    assert now["driver/shared_mib"] - before["driver/shared_mib"] == pytest.approx(8, abs=0.5)
    assert now["driver/memory_mib"] - before["driver/memory_mib"] < 4


def test_disk_is_of_the_run_s_temporary_folders_and_of_its_own_without_its_records(
    tmp_path, monkeypatch
):
    temporary, run_dir = tmp_path / "temporary", tmp_path / "run"
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    for folder in (temporary / "mgrpo-of-another", run_dir / "logs", run_dir / "checkpoints"):
        folder.mkdir(parents=True)
    before = on_disk(run_dir, ("checkpoints",))
    own = private_folder(temporary, "mgrpo-engine-")
    write_mib(own / "inside" / "socket", 3)
    write_mib(temporary / "mgrpo-of-another" / "x", 5)
    write_mib(run_dir / "logs" / "x", 2)
    write_mib(run_dir / "checkpoints" / "step-1" / "x", 5)
    write_mib(run_dir / "metrics.jsonl", 5)
    (own / "link").symlink_to(tmp_path)

    now = on_disk(run_dir, ("checkpoints",))
    more = {name: now[name] - value for name, value in before.items()}
    assert more["temporary_folders/disk_mib"] == pytest.approx(3, abs=0.1)
    assert more["run_folder/disk_mib"] == pytest.approx(2, abs=0.1)
    mark_owner(temporary / "mgrpo-of-another")
    after = on_disk(run_dir, ())
    assert after["temporary_folders/disk_mib"] > now["temporary_folders/disk_mib"] + 4.9
    assert after["run_folder/disk_mib"] > now["run_folder/disk_mib"] + 4.9


def write_mib(file: Path, size: int) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(os.urandom(size * 2**20))
