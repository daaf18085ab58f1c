"""Sixty steps of a real run open nothing that they do not close, and leave nothing."""

import pytest

from benchmarks.leaks import START_S, STEP_S, WARM_UP, measured
from mgrpo.metrics.resources import DISK, FILES, MEMORY, SHARED_MEMORY, THREADS

NUM_STEPS = 60
MOST_MORE = {FILES: 3.0, THREADS: 3.0, MEMORY: 40.0, SHARED_MEMORY: 8.0, DISK: 8.0}
"""In all steps after the warm-up, by role. Something that is opened with every checkpoint, at each
tenth step, is more. Memory and disk are in MiB: caches and logs still take some."""


@pytest.mark.alone
@pytest.mark.timeout(START_S + STEP_S * NUM_STEPS + 60)
def test_a_run_opens_no_more_with_every_step_and_leaves_nothing() -> None:
    found = measured(NUM_STEPS)
    steps = NUM_STEPS * (1 - WARM_UP)
    more = {name: steps * one["per_step"] for name, one in found["growth"].items()}
    assert {"driver/memory_mib", "engines/files", "learner/threads"} <= more.keys()
    assert {"ray/shared_mib", "temporary_folders/disk_mib", "run_folder/disk_mib"} <= more.keys()
    too_much = {
        name: found for name, found in more.items() if found > MOST_MORE[name.rpartition("/")[2]]
    }
    assert too_much == {}, more
    assert found["left"] == []
