"""Sixty steps of a real run hold no more at their end than before, and leave nothing."""

import pytest

from benchmarks.leaks import START_S, STEP_S, measured

NUM_STEPS = 60


@pytest.mark.slow  # a minute and a half
@pytest.mark.timeout(START_S + STEP_S * NUM_STEPS + 60)
def test_a_run_holds_no_more_with_every_step_and_leaves_nothing():
    found = measured(NUM_STEPS)
    assert {"driver/memory_mib", "engines/files", "learner/threads"} <= found["growth"].keys()
    assert (found["growing"], found["left"]) == ([], [])
