import errno
import json
import math
import random
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from mgrpo.errors import RunDirectoryError
from mgrpo.metric_sums import MetricSums
from mgrpo.metrics.log import (
    LineFile,
    MetricsLog,
    read_evaluations,
    read_metrics,
    read_rollouts,
    rollout_paths,
)
from mgrpo.report.page import facts_of
from mgrpo.report.run_data import RunData
from mgrpo.trackers import Trackers
from mgrpo.types import Completion, CompletionId, Reward
from tests.disk import files_of_at_most
from tests.mgrpo.trackers.doubles import FailingTracker, KeepingTracker


def a_completion(completion_id: str = "sum/3#1.0", **changes) -> Completion:
    fields = {
        "id": CompletionId.named(completion_id),
        "problem_id": "sum/3",
        "domain": "sum",
        "layer": 1,
        "parent_id": None,
        "group_key": "sum/3",
        "prompt": [1, 2],
        "token_ids": [5, 9],
        "rollout_logprobs": [-0.25, -1.5],
        "finish_reason": "stop",
        "version_spans": ((0, 7),),
        "text": "it is 7",
        "prompt_text": "3 + 4?",
        "reward": Reward(value=1.0, correct=True, parts={"answer": 1.0}, extracted_answer="7"),
        "advantage": 0.5,
        "selected": True,
    }
    return Completion(**{**fields, **changes})


def test_the_price_of_an_hour_adds_up_over_resumes_and_is_in_the_report(tmp_path, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr("mgrpo.metrics.log.time", SimpleNamespace(monotonic=lambda: now[0]))
    for step, price in enumerate((10.0, 20.0, None)):
        log = MetricsLog(tmp_path, price_per_hour=price)
        now[0] += 1800.0
        log.write(step, {})
        log.close()
        now[0] += 5000.0  # stopped, which is not counted
    rows = read_metrics(tmp_path)
    assert [row.get("cost") for row in rows] == [5.0, 15.0, None]
    assert [row["wall_s"] for row in rows] == [1800.0, 3600.0, 5400.0]
    facts = [facts_of(RunData(run_dir=tmp_path, metrics=rows[:end]))["Cost"] for end in (2, 3)]
    assert facts == ["15.00", ""]


def test_means_divide_once_so_unequal_parts_are_weighted_by_their_counts():
    sums = MetricSums({"layer1/accuracy": (3.0, 4.0)})
    sums.merge({"layer1/accuracy": (0.0, 8.0)})
    assert sums.means() == {"layer1/accuracy": 0.25}  # 3 of 12, not the mean of 0.75 and 0


def test_means_do_not_depend_on_how_values_are_split():
    draw = random.Random(4)
    values = [float(draw.randint(0, 1000)) for _ in range(97)]
    parts = MetricSums()
    start = 0
    while start < len(values):
        part = values[start : start + draw.randint(1, 9)]
        parts.merge(MetricSums({"reward": (sum(part), float(len(part)))}))
        start += len(part)
    one_by_one = MetricSums()
    for value in values:
        one_by_one.add("reward", value)
    expected = {"reward": sum(values) / 97}  # whole numbers: sums are exact in any order
    assert parts.means() == one_by_one.means() == expected


def test_a_maximum_stays_the_largest_value_however_it_is_split():
    sums = MetricSums({"mismatch/logprob_gap_max": (0.5, 1.0)})
    sums.merge({"mismatch/logprob_gap_max": (0.1, 1.0)})
    sums.add("mismatch/logprob_gap_max", 0.3)
    assert sums.means() == {"mismatch/logprob_gap_max": 0.5}


def test_a_name_with_count_zero_has_no_mean():
    assert MetricSums({"layer2/accuracy": (0.0, 0.0)}).means() == {}


def test_a_written_step_is_read_back_and_gets_its_wall_clock(tmp_path):
    with MetricsLog(tmp_path) as log:
        log.write(0, {"policy_version": 1, "learner/loss": 0.5})
    (row,) = read_metrics(tmp_path)
    assert row["step"] == 0 and row["policy_version"] == 1 and row["learner/loss"] == 0.5
    assert 0 <= row["wall_s"] < 60


def test_values_that_are_not_finite_become_null(tmp_path):
    with MetricsLog(tmp_path) as log:
        log.write(0, {"learner/loss": math.nan, "learner/kl": math.inf, "learner/entropy": 1.0})
        log.write_evaluation({"step": 0, "label": "before", "acc": [math.nan]})
    (row,) = read_metrics(tmp_path)
    assert (row["learner/loss"], row["learner/kl"], row["learner/entropy"]) == (None, None, 1.0)
    assert read_evaluations(tmp_path)[0]["acc"] == [None]


@pytest.mark.parametrize("acc_range", [[[0.5]], [[0.1, 0.2, 0.3]], [0.5], [[0.1, 2.0]]])
def test_a_range_has_two_ends(tmp_path, acc_range):
    row = {"step": 0, "label": "before", "acc": [0.5], "acc_range": acc_range}
    (tmp_path / "evaluation.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(RunDirectoryError, match=r"evaluation\.jsonl, line 1"):
        read_evaluations(tmp_path)


def test_a_metric_is_no_larger_than_a_float(tmp_path):
    (tmp_path / "metrics.jsonl").write_text(f'{{"step": 0, "learner/loss": {10**400}}}\n')
    with pytest.raises(RunDirectoryError, match=r"metrics\.jsonl, line 1"):
        read_metrics(tmp_path)


def test_a_line_is_on_disk_as_soon_as_it_is_written(tmp_path):
    log = MetricsLog(tmp_path)
    log.write(0, {"learner/loss": 0.5})
    assert json.loads((tmp_path / "metrics.jsonl").read_text())["learner/loss"] == 0.5
    log.close()


def test_a_torn_last_line_is_skipped_and_removed_on_resume(tmp_path):
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_text('{"step": 0, "wall_s": 100.0, "a": 1.0}\n{"step": 1, "wall_')
    assert [row["step"] for row in read_metrics(tmp_path)] == [0]
    with MetricsLog(tmp_path) as log:
        log.write(1, {"a": 2.0})
    assert [row["a"] for row in read_metrics(tmp_path)] == [1.0, 2.0]
    assert read_metrics(tmp_path)[1]["wall_s"] >= 100.0  # the clock goes on where it stood


def test_a_whole_last_line_without_its_newline_is_kept_on_resume(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 0, "a": 1.0}')
    with MetricsLog(tmp_path) as log:
        log.write(1, {"a": 2.0})
    assert [row["a"] for row in read_metrics(tmp_path)] == [1.0, 2.0]


def test_a_broken_line_in_the_middle_is_named(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 0}\nhello\n{"step": 1}\n')
    with pytest.raises(RunDirectoryError, match=r"metrics\.jsonl, line 2 .*hello"):
        read_metrics(tmp_path)


def test_steps_written_again_after_a_resume_replace_what_the_interrupted_run_wrote(tmp_path):
    with MetricsLog(tmp_path) as log:
        for step in range(5):
            log.write(step, {"a": float(step)})
    with MetricsLog(tmp_path) as log:
        log.write(3, {"a": 30.0})
    assert [row["a"] for row in read_metrics(tmp_path)] == [0.0, 1.0, 2.0, 30.0]


def test_a_repeated_evaluation_counts_once_and_the_newer_wins(tmp_path):
    with MetricsLog(tmp_path) as log:
        log.write_evaluation({"step": 0, "label": "before", "acc": [0.25]})
        log.write_evaluation({"step": 10, "label": "during", "acc": [0.5]})
        log.write_evaluation({"step": 10, "label": "during", "acc": [0.75]})
        log.write_evaluation({"step": 10, "label": "after", "acc": [0.75]})
    labels = [(row["label"], row["acc"]) for row in read_evaluations(tmp_path)]
    assert labels == [("before", [0.25]), ("during", [0.75]), ("after", [0.75])]


def test_rollouts_survive_the_round_trip_with_hostile_text(tmp_path):
    written = [a_completion(text="</script>\n\u2028 \ud800 \x00"), a_completion("sum/3#1.1")]
    with MetricsLog(tmp_path) as log:
        path = log.write_rollouts(12, written)
    assert path.name == "step-000012.jsonl"
    assert rollout_paths(tmp_path) == {12: path}
    assert read_rollouts(path) == written


def test_a_line_file_keeps_what_a_full_disk_refuses(tmp_path):
    file = LineFile(Path("/dev/full"))
    errors = [file.append(f"{number}\n") for number in range(2)]
    assert [error is not None and error.errno for error in errors] == [errno.ENOSPC] * 2
    file.file = (tmp_path / "lines").open("ab", buffering=0)  # there is room again
    assert file.append("2\n") is None and file.close() is None
    assert (tmp_path / "lines").read_text() == "0\n1\n2\n"


def test_steps_that_a_quota_refuses_are_written_when_there_is_room_again(tmp_path):
    trackers, said = Trackers(), []
    trackers.warn = said.append
    with MetricsLog(tmp_path, trackers) as log:
        log.write(0, {"a": 0.0})
        with files_of_at_most((tmp_path / "metrics.jsonl").stat().st_size + 10):
            log.write(1, {"a": 1.0})  # ten bytes of it are written
            log.write(2, {"a": 2.0})
            assert [row["step"] for row in read_metrics(tmp_path)] == [0]
            log.write_rollouts(2, [a_completion()])
        log.write(3, {"a": 3.0})
    assert [row["a"] for row in read_metrics(tmp_path)] == [0.0, 1.0, 2.0, 3.0]
    assert ["metrics.jsonl cannot be written" in one for one in said] == [True, True, False]
    assert "step-000002.jsonl is not written" in said[2]
    assert list((tmp_path / "rollouts").iterdir()) == []


def test_what_is_lost_at_the_end_is_said(tmp_path):
    trackers, said = Trackers(), []
    trackers.warn = said.append
    log = MetricsLog(tmp_path, trackers)
    with files_of_at_most(0):
        log.write_evaluation({"step": 0, "label": "before", "acc": [0.25]})
        log.close()
    assert "1 lines of" in said[1] and "evaluation.jsonl are lost" in said[1]


def test_an_empty_directory_reads_as_nothing(tmp_path):
    assert read_metrics(tmp_path) == []
    assert read_evaluations(tmp_path) == []
    assert rollout_paths(tmp_path) == {}


def test_a_tracker_is_told_the_finite_values_and_the_heldout_accuracies(tmp_path):
    told = KeepingTracker()
    trackers = Trackers()
    trackers.add("keeping", lambda: told)
    with MetricsLog(tmp_path, trackers) as log:
        log.write(3, {"learner/loss": 0.5, "learner/kl": math.nan})
        log.write_evaluation({"step": 4, "label": "after", "acc": [0.25, 0.75]})
    (step, values), evaluation = told.rows
    assert step == 3 and values.keys() == {"wall_s", "learner/loss"}
    assert evaluation == (4, {"heldout/layer1/accuracy": 0.25, "heldout/layer2/accuracy": 0.75})


def test_a_tracker_that_misses_steps_is_counted_in_the_metrics(tmp_path):
    trackers = Trackers()
    trackers.warn = lambda message: None
    failing = trackers.add("failing", FailingTracker)
    with MetricsLog(tmp_path, trackers) as log:
        log.write(0, {"a": 1.0})
        while failing.num_missed == 0:  # its thread takes the row in a moment; see pytest-timeout
            time.sleep(0.001)
        log.write(1, {"a": 2.0})
    rows = read_metrics(tmp_path)
    assert "trackers/failed_writes" not in rows[0] and rows[1]["trackers/failed_writes"] == 1


def test_totals_add_up_where_means_are_divided() -> None:
    sums = MetricSums()
    for value in (2.0, 3.0):
        sums.add("mean", value)
        sums.add_total("seconds/update", value)
    assert sums.means() == {"mean": 2.5, "seconds/update": 5.0}
