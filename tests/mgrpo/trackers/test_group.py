import time

import pytest

from mgrpo.config import OutputConfig, TensorboardConfig
from mgrpo.errors import TrackerError
from mgrpo.trackers import RunFacts, Trackers, group, open_trackers
from mgrpo.trackers.background import MAX_WAITING
from tests.mgrpo.trackers.doubles import FailingTracker, HangingTracker, KeepingTracker


def test_every_tracker_is_told_every_step_in_order_and_closed():
    first, second = KeepingTracker(), KeepingTracker()
    with Trackers() as trackers:
        trackers.add("first", lambda: first)
        trackers.add("second", lambda: second)
        for step in range(50):
            trackers.write(step, {"a": float(step), "b": None, "c": float("inf")})
    assert first.rows == second.rows == [(step, {"a": float(step)}) for step in range(50)]
    assert first.is_closed and second.is_closed


def test_a_tracker_that_fails_is_warned_of_once_counted_and_leaves_the_others_alone():
    warnings, kept = [], KeepingTracker()
    with Trackers() as trackers:
        trackers.warn = warnings.append
        failing = trackers.add("failing", FailingTracker)
        trackers.add("keeping", lambda: kept)
        for step in range(20):
            trackers.write(step, {"a": 1.0})
            while failing.num_missed <= step:
                time.sleep(0.001)
    during, at_the_end = warnings
    assert during.startswith(
        "The tracker failing failed to record a step: ConnectionError: no route for step 0."
    )
    assert "missed 20 writes" in at_the_end and "no route for step 19" in at_the_end
    assert len(kept.rows) == 20


def test_a_tracker_that_hangs_delays_neither_the_steps_nor_the_end():
    warnings, hanging = [], HangingTracker()
    began = time.monotonic()
    with Trackers() as trackers:
        trackers.warn = warnings.append
        trackers.add("hanging", lambda: hanging, deadline_s=0.1)
        for step in range(10):
            trackers.write(step, {"a": 1.0})
            time.sleep(0.02)
        assert trackers.num_missed == 0
    assert time.monotonic() - began < 5
    assert "has been busy with one step for more than 0.1 s" in warnings[0]
    assert "did not finish within 0.1 s; about 10 steps" in warnings[1]  # 9 rows and the end's
    hanging.released.set()


def test_a_tracker_that_hangs_for_long_misses_steps_instead_of_filling_the_memory():
    hanging = HangingTracker()
    trackers = Trackers()
    trackers.warn = lambda message: None
    member = trackers.add("hanging", lambda: hanging, deadline_s=0.1)
    member.wait_until_open()
    for step in range(MAX_WAITING + 50):
        trackers.write(step, {"a": 1.0})
    assert 49 <= member.num_missed <= 50  # its thread may hold one more
    hanging.released.set()
    trackers.close()


def test_one_that_cannot_start_says_why_and_what_to_do(monkeypatch):
    kept = KeepingTracker()

    def opened(config, facts):
        if config.deadline_s == 5:
            return kept
        raise SystemExit("no API key")

    monkeypatch.setattr(group, "opened", opened)
    configs = [TensorboardConfig(deadline_s=5), TensorboardConfig(deadline_s=6)]
    with pytest.raises(TrackerError, match=r"cannot be started: SystemExit: no API key\. Fix"):
        open_trackers(configs, RunFacts("sums", None))
    assert kept.is_closed


def test_one_that_does_not_start_in_its_time_is_named_with_its_deadline(monkeypatch):
    monkeypatch.setattr(group, "opened", lambda config, facts: time.sleep(0.5) or KeepingTracker())
    with pytest.raises(TrackerError, match=r"tensorboard did not start within 0\.05 s"):
        open_trackers([TensorboardConfig(deadline_s=0.05)], RunFacts("sums", None))


def test_a_missing_package_is_named_before_anything_starts(monkeypatch):
    monkeypatch.setitem(group.PACKAGES, "wandb", "a_package_that_is_not_there")
    trackers = OutputConfig(trackers=["tensorboard", "wandb"]).trackers
    with pytest.raises(TrackerError, match=r"not installed here\. .*pip install 'mgrpo\[wandb\]'"):
        open_trackers(trackers, RunFacts("sums", None))


def test_what_a_tracker_calls_the_run_is_found_again_and_a_torn_record_is_named(tmp_path):
    facts = RunFacts("sums", tmp_path)
    assert facts.recorded_id("wandb") is None
    facts.record_id("wandb", "ab12")
    facts.record_id("mlflow", "77")
    resumed = RunFacts("sums", tmp_path, first_step=20)
    assert (resumed.recorded_id("wandb"), resumed.recorded_id("mlflow")) == ("ab12", "77")
    (tmp_path / "trackers.json").write_text("{")
    with pytest.raises(TrackerError, match=r"trackers\.json cannot be read"):
        facts.recorded_id("wandb")
