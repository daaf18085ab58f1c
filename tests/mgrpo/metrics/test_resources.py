from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mgrpo.metrics.resources import held, role_of


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
