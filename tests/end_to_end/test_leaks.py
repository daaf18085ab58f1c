"""Sixty steps of a real run open nothing that they do not close, and leave nothing."""

import pytest

from benchmarks.leaks import START_S, STEP_S, measured
from mgrpo.metrics.resources import MEMORY

NUM_STEPS = 60
MOST_MIB = 4.0
"""Growth a step of all processes together. Caches still fill: engines hold 1 to 2 MiB more with
each of these steps, and a tenth of that after 200; `make leaks` has the time to see it."""


@pytest.mark.alone
@pytest.mark.timeout(START_S + STEP_S * NUM_STEPS + 60)
def test_a_run_opens_no_more_with_every_step_and_leaves_nothing():
    found = measured(NUM_STEPS)
    growth = found["growth"]
    assert {"driver/memory_mib", "engines/files", "learner/threads"} <= growth.keys()
    assert [name for name in found["growing"] if not name.endswith(MEMORY)] == []
    memory = [one["per_step"] for name, one in growth.items() if name.endswith(MEMORY)]
    assert sum(memory) < MOST_MIB
    assert found["left"] == []
