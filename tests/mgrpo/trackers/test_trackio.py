"""In a process of its own: trackio reads where its database is when it is first imported."""

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.trackers
pytest.importorskip("trackio", reason="trackio is not installed: make extras")

RECORD = """
import json, sys
from pathlib import Path
from mgrpo.config import TrackioConfig
from tests.mgrpo.trackers.resumed_run import record

run_dir = Path(sys.argv[1])
record(TrackioConfig(offline=True, project="p"), run_dir)

from trackio.sqlite_storage import SQLiteStorage

name = json.loads((run_dir / "trackers.json").read_text())["trackio"]
logs = SQLiteStorage.get_logs("p", name)
rows = [(row["step"], row["layer1/accuracy"]) for row in logs if "layer1/accuracy" in row]
shown = [row["step"] for row in logs if "completions" in row]
runs = SQLiteStorage.get_runs("p")
print("FOUND", json.dumps({"runs": runs, "name": name, "rows": rows, "shown": shown}))
"""


def test_an_offline_run_is_resumed_under_its_name(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", RECORD, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.partition("FOUND")[2])
    assert found["name"].startswith("sums-") and found["runs"] == [found["name"]]
    assert sorted(map(tuple, found["rows"])) == [
        (0, 0.25),
        (1, 0.25),
        (2, 0.25),
        (3, 0.25),
        (3, 0.75),
        (4, 0.25),
        (4, 0.75),
    ]
    assert found["shown"] == [0]
    assert (tmp_path / "trackio" / "p.db").is_file()
