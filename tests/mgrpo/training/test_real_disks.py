"""Disks that are read-only, full, at their quota or slow cost checkpoints, and not the run."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from typing import Any

import pytest

from mgrpo.storage.checkpoints import UNFINISHED
from tests.disk import own_mounts, preloaded
from tests.mgrpo.training.disk_driver import MOUNTED, PRELOADED, STEPS

LATE = "the checkpoint after step 4 to be on disk"


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What the driver saw in each case that is possible here."""
    folder = tmp_path_factory.mktemp("disk")
    (folder / "empty").mkdir()
    mounts, library = own_mounts(folder / "empty"), preloaded(folder)
    cases = [*(MOUNTED if mounts else ()), *(PRELOADED if library else ())]
    driver = [sys.executable, "-m", "tests.mgrpo.training.disk_driver", str(folder), *cases]
    done = subprocess.run(
        [*mounts, *driver],
        env={**os.environ, **library},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return found


def of(seen: dict[str, dict[str, Any]], case: str) -> dict[str, Any]:
    if case not in seen:
        pytest.skip("this user may not mount" if case in MOUNTED else "there is no C compiler")
    return seen[case]


@pytest.mark.parametrize(
    ("case", "error"),
    [
        ("read-only", "Read-only file system"),
        ("full", "No space left on device"),
        ("quota", "Disk quota exceeded"),
    ],
)
def test_a_disk_that_refuses_costs_the_checkpoints_until_it_is_mended(seen, case, error):
    """Half of the second one is written when it is refused."""
    found = of(seen, case)
    assert found["steps"] == list(range(STEPS))
    said = found["said"]
    assert said.count("could not be written: ") == said.count(error) == 2
    for number in (4, 6):
        start = f"the checkpoint after step {number} could not be written: [Errno "
        assert error in said.partition(start)[2].partition(":")[0]
    assert all("step-000002" in names for names in found["folders"][4:])
    half = [f"step-000004{UNFINISHED}"] if case == "read-only" else []  # it cannot be deleted
    assert found["folders"][6] == ["step-000002", *half]
    assert found["left"] == ["step-000002", "step-000008"] and found["faults"] == ["", ""]


def test_steps_go_on_while_a_slow_disk_takes_a_checkpoint(seen):
    found = of(seen, "slow")
    assert found["steps"] == list(range(STEPS))
    unfinished = ["step-000002", f"step-000004{UNFINISHED}"]
    assert found["folders"][4:7] == [unfinished] * 3
    assert found["folders"][7] == ["step-000002", "step-000004"]
    assert found["said"].count(LATE) == 1 and "cluster.deadlines.update_s" in found["said"]
    assert found["left"] == ["step-000004", "step-000008"] and found["faults"] == ["", ""]


def test_a_checkpoint_that_is_late_to_the_end_is_said_and_the_run_ends_in_order(seen):
    found = of(seen, "slow to the end")
    assert found["steps"] == list(range(STEPS)) and found["stopped_by"] == ""
    assert found["said"].count(LATE) == 1
    assert found["said"].count("the checkpoint after step 4 is still being written") == 2  # 6, 8
    assert found["left"] == ["step-000002", f"step-000004{UNFINISHED}"] and found["faults"] == [""]


@pytest.mark.parametrize(
    ("case", "said", "half"),
    [
        ("a signal beside the steps", rf"Waited 0\.\d s for {LATE}", [f"step-000004{UNFINISHED}"]),
        ("a signal within a step", "the checkpoint was not finished within", []),
    ],
)
def test_a_signal_waits_for_a_slow_disk_no_longer_than_its_deadline(seen, case, said, half):
    """The disk would take minutes."""
    found = of(seen, case)
    assert found["stopped_by"] == "Stopped by SIGTERM." and len(found["steps"]) < STEPS
    assert len(re.findall(said, found["said"])) == 1 and "checkpoints.on_signal_s" in found["said"]
    assert found["left"] == ["step-000002", *half] and found["faults"] == [""]
