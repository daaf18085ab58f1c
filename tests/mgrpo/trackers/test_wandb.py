import json
import os
import subprocess
import sys

import pytest

from mgrpo.config import WandbConfig
from mgrpo.errors import TrackerError
from mgrpo.trackers import RunFacts, open_trackers
from mgrpo.trackers.completions import COLUMNS
from tests.mgrpo.trackers.resumed_run import record
from tests.mgrpo.trackers.wandb_file import history, records

pytestmark = pytest.mark.trackers
pytest.importorskip("wandb", reason="wandb is not installed: make extras")


def test_an_offline_run_and_its_resumption_are_files_of_one_run(tmp_path):
    # W&B's folder is named after the second in which it began.
    record(WandbConfig(offline=True, project="p", tags=["t"]), tmp_path, pause_s=1.0)
    run_id = json.loads((tmp_path / "trackers.json").read_text())["wandb"]
    first, second = sorted((tmp_path / "wandb").glob(f"offline-run-*/run-{run_id}.wandb"))
    shown, rows = parted(history(first))
    assert [(row["step"], row["layer1/accuracy"]) for row in rows] == [
        (step, 0.25) for step in range(5)
    ]
    assert "learner/kl" not in rows[0]
    assert [row["step"] for row in shown] == [0]
    (file,) = first.parent.glob("files/media/table/completions_*.table.json")
    table = json.loads(file.read_text())
    assert table["columns"] == list(COLUMNS)
    assert table["data"][0] == ["s0p0#0", 1, "3 | 4?", "so\n7", "7", 1.0]
    assert [(row["step"], row["layer1/accuracy"]) for row in parted(history(second))[1]] == [
        (3, 0.75),
        (4, 0.75),
    ]


def parted(rows):
    """The rows with completions, and those with metrics."""
    return [row for row in rows if "layer1/accuracy" not in row], [
        row for row in rows if "layer1/accuracy" in row
    ]


def test_charts_are_drawn_over_our_step_and_the_recipe_is_the_runs_config(tmp_path):
    record(WandbConfig(offline=True, project="p", group="g", tags=["t"]), tmp_path)
    first = min((tmp_path / "wandb").glob("offline-run-*/*.wandb"))
    by_kind = {}
    for one in records(first):
        kind = one.WhichOneof("record_type")
        by_kind.setdefault(kind, []).append(getattr(one, kind))
    (run,) = by_kind["run"]
    assert (run.project, run.display_name, run.run_group, list(run.tags)) == (
        "p",
        "sums",
        "g",
        ["t"],
    )
    config = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert config["layers"] == [{"name": "solve"}, {"name": "correct"}]
    assert any(m.glob_name == "*" and m.step_metric == "step" for m in by_kind["metric"])


UNREACHABLE = """
import sys
from pathlib import Path
from mgrpo.config import WandbConfig
from mgrpo.errors import TrackerError
from mgrpo.trackers import RunFacts, open_trackers
from mgrpo.trackers.completions import COLUMNS
try:
    open_trackers([WandbConfig(deadline_s=3)], RunFacts("sums", Path(sys.argv[1])))
except TrackerError as error:
    print(error)
"""


def test_a_server_that_cannot_be_reached_is_an_error_at_the_start_within_the_deadline(tmp_path):
    environment = {
        **os.environ,
        "WANDB_BASE_URL": "http://127.0.0.1:9",  # the discard port: nothing listens
        "WANDB_API_KEY": "0" * 40,
        "WANDB_MODE": "online",
    }
    done = subprocess.run(
        [sys.executable, "-c", UNREACHABLE, str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "The tracker wandb" in done.stdout and "offline: true" in done.stdout, done.stderr


def test_a_record_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "trackers.json").write_text("{")
    with pytest.raises(TrackerError, match=r"trackers\.json cannot be read"):
        open_trackers([WandbConfig(offline=True)], RunFacts("sums", tmp_path))
