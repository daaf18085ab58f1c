import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from mgrpo.config import RunConfig, StorageConfig
from mgrpo.errors import RunDirectoryError, StorageError
from mgrpo.storage.checkpoints import begin_checkpoint, checkpoints, finish_checkpoint, newest_whole
from mgrpo.storage.files import Storage
from mgrpo.storage.mirror import Mirror, local_run_dir, mirror_of, stored_checkpoints
from mgrpo.storage.policies import BestRecord, write_best

QUICK = StorageConfig(attempts=2, backoff_s=0.01, deadline_s=20)


def make_checkpoint(run_dir: Path, num_steps: int, size: int = 1000) -> Path:
    folder = begin_checkpoint(run_dir, num_steps)
    (folder / "learner").mkdir()
    for rank in range(2):
        (folder / "learner" / f"rank{rank}.pt").write_bytes(bytes([num_steps + rank]) * size)
    return finish_checkpoint(folder, {"num_steps": num_steps})


def make_run(run_dir: Path) -> None:
    (run_dir / "rollouts").mkdir(parents=True)
    (run_dir / "config.yaml").write_text("steps: 60\n")
    (run_dir / "metrics.jsonl").write_text('{"step": 0}\n')
    (run_dir / "rollouts" / "step-000000.jsonl").write_text("{}\n")
    (run_dir / "rollouts" / "step-000001.unfinished").write_text("{")


def make_policy(run_dir: Path) -> None:
    (run_dir / "policy").mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        (run_dir / "policy" / name).write_text(name)


def test_a_run_goes_on_elsewhere_from_its_newest_checkpoint(base_url, tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    make_run(here)
    mirror = Mirror(Storage(base_url, QUICK), here, keep=2)
    mirror.begin()
    for num_steps in (10, 20, 30):
        mirror.checkpoint(make_checkpoint(here, num_steps))
        assert mirror.settle() == ""
    assert stored_checkpoints(mirror.storage.find()) == ["step-000020", "step-000030"]
    assert not any("step-000010" in name for name in mirror.storage.find())

    Mirror(Storage(base_url, QUICK), there).fetch()
    folder, faults = newest_whole(there)
    assert (folder.name, faults) == ("step-000030", [])
    assert (there / "metrics.jsonl").read_text() == (here / "metrics.jsonl").read_text()
    assert (there / "rollouts" / "step-000000.jsonl").is_file()
    assert not list(there.rglob("*.unfinished"))


def test_the_best_checkpoint_stays_in_the_storage(base_url, tmp_path):
    mirror = Mirror(Storage(base_url, QUICK), tmp_path, keep=1)
    for num_steps in (10, 20, 30):
        folder = make_checkpoint(tmp_path, num_steps)
        if num_steps < 30:
            write_best(folder, BestRecord(num_steps, "m", "max", 0.5))
        mirror.checkpoint(folder)
        assert mirror.settle() == ""
    assert stored_checkpoints(mirror.storage.find()) == ["step-000020", "step-000030"]


def test_a_run_that_has_ended_is_fetched_only_to_be_longer(base_url, tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    make_run(here)  # of 60 steps
    make_policy(here)
    mirror = Mirror(Storage(base_url, QUICK), here)
    mirror.checkpoint(make_checkpoint(here, 60))
    assert mirror.finish() == ""
    with pytest.raises(RunDirectoryError, match="already finished"):
        Mirror(Storage(base_url, QUICK), there, num_steps=60).fetch()
    longer = Mirror(Storage(base_url, QUICK), there, num_steps=62)
    longer.fetch()
    assert [folder.name for folder in checkpoints(there)] == ["step-000060"]
    longer.reopen()
    Mirror(Storage(base_url, QUICK), tmp_path / "third", num_steps=62).fetch()  # it goes on there


def test_an_upload_that_was_cut_off_does_not_count(base_url, tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    make_run(here)
    mirror = Mirror(Storage(base_url, QUICK), here)
    mirror.checkpoint(make_checkpoint(here, 10))
    assert mirror.settle() == ""
    second = make_checkpoint(here, 20)
    mirror.storage.put(second / "learner" / "rank0.pt", "checkpoints/step-000020/learner/rank0.pt")
    Mirror(Storage(base_url, QUICK), there).fetch()
    assert [folder.name for folder in checkpoints(there)] == ["step-000010"]


def test_a_damaged_checkpoint_is_passed_over_for_an_older_whole_one(base_url, tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    make_run(here)
    mirror = Mirror(Storage(base_url, QUICK), here)
    for num_steps in (10, 20):
        mirror.checkpoint(make_checkpoint(here, num_steps))
    assert mirror.settle() == ""
    (tmp_path / "damage").write_bytes(b"x" * 1000)
    mirror.storage.put(tmp_path / "damage", "checkpoints/step-000020/learner/rank1.pt")
    Mirror(Storage(base_url, QUICK), there).fetch()
    assert [folder.name for folder in checkpoints(there)] == ["step-000010"]
    mirror.storage.put(tmp_path / "damage", "checkpoints/step-000010/learner/rank1.pt")
    with pytest.raises(RunDirectoryError, match=r"No checkpoint at .*rank1\.pt was changed"):
        Mirror(Storage(base_url, QUICK), tmp_path / "elsewhere").fetch()


def test_a_folder_that_is_as_new_is_left_alone_and_an_older_one_replaced(base_url, tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    make_run(here)
    mirror = Mirror(Storage(base_url, QUICK), here)
    mirror.checkpoint(make_checkpoint(here, 10))
    assert mirror.settle() == ""
    (here / "metrics.jsonl").write_text("newer\n")
    mirror.fetch()
    assert (here / "metrics.jsonl").read_text() == "newer\n"
    Mirror(Storage(base_url, QUICK), there).fetch()
    mirror.checkpoint(make_checkpoint(here, 20))
    assert mirror.settle() == ""
    Mirror(Storage(base_url, QUICK), there).fetch()
    assert newest_whole(there)[0].name == "step-000020"
    assert (there / "metrics.jsonl").read_text() == "newer\n"


def test_a_finished_run_is_there_whole_and_is_not_gone_on_with(base_url, tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    make_run(here)
    make_checkpoint(here, 10)
    make_policy(here)
    mirror = Mirror(Storage(base_url, QUICK), here)
    assert mirror.finish() == ""
    with pytest.raises(RunDirectoryError, match="is already finished"):
        Mirror(Storage(base_url, QUICK), there).fetch()
    Mirror(Storage(base_url, QUICK), there).fetch_policy()
    assert sorted(file.name for file in (there / "policy").iterdir()) == [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    ]
    mirror.remove()
    assert mirror.storage.find() == {}
    with pytest.raises(RunDirectoryError, match="There is no run at"):
        Mirror(Storage(base_url, QUICK), tmp_path / "x").fetch_policy()


def test_a_run_without_a_checkpoint_is_refused_as_in_a_plain_folder(base_url, tmp_path):
    make_run(tmp_path / "here")
    mirror = Mirror(Storage(base_url, QUICK), tmp_path / "here")
    mirror.refuse_existing()
    mirror.begin()
    with pytest.raises(RunDirectoryError, match="already holds a run"):
        mirror.refuse_existing()


def test_a_failed_upload_warns_and_the_next_one_sends_everything(tmp_path, monkeypatch):
    make_run(tmp_path)
    mirror = Mirror(Storage("memory://comes-and-goes", QUICK), tmp_path)
    warnings = []
    mirror.warn = warnings.append
    put_file = mirror.storage.files.put_file

    def down(*args, **kwargs):
        raise ConnectionResetError("peer went away")

    monkeypatch.setattr(mirror.storage.files, "put_file", down)
    mirror.checkpoint(make_checkpoint(tmp_path, 10))
    assert "memory://comes-and-goes/checkpoints/step-000010" in mirror.settle()
    assert "peer went away" in warnings[0] and str(tmp_path) in warnings[0]
    monkeypatch.setattr(mirror.storage.files, "put_file", put_file)
    assert mirror.finish() == "" and len(warnings) == 1
    assert stored_checkpoints(mirror.storage.find()) == ["step-000010"]


def test_storage_that_cannot_be_written_to_shows_before_anything_starts(tmp_path):
    make_run(tmp_path / "here")
    (tmp_path / "file").write_text("a file, not a folder")
    mirror = Mirror(Storage(f"file://{tmp_path}/file/runs", QUICK), tmp_path / "here")
    with pytest.raises(StorageError, match="Cannot write file://"):
        mirror.begin()
    assert mirror.finish() == ""  # it was said already


def test_an_upload_is_waited_for_as_long_as_it_moves(tmp_path, monkeypatch):
    make_run(tmp_path)
    slow = QUICK.model_copy(update={"upload_s": 2.0, "attempts": 1})
    mirror = Mirror(Storage("memory://moves", slow), tmp_path)
    assert mirror.finish() == ""
    put_file, is_over = mirror.storage.files.put_file, threading.Event()

    def put_slowly(path, target, callback):
        for _ in range(30):
            time.sleep(0.1)
            callback.relative_update(1 << 20)
        put_file(path, target)

    monkeypatch.setattr(mirror.storage.files, "put_file", put_slowly)
    (tmp_path / "new.txt").write_text("three seconds, in which it moves")
    assert mirror.finish() == ""
    monkeypatch.setattr(mirror.storage.files, "put_file", lambda *a, **k: is_over.wait(60))
    (tmp_path / "newer.txt").write_text("one more")
    assert "made no progress for 2 s (output.storage.upload_s)" in mirror.finish()
    is_over.set()


def test_an_upload_is_waited_for_no_longer_than_it_may_take(tmp_path, monkeypatch):
    make_run(tmp_path)
    mirror = Mirror(Storage("memory://slow", QUICK), tmp_path)
    warnings = []
    mirror.warn = warnings.append
    is_over = threading.Event()
    monkeypatch.setattr(mirror.storage.files, "put_file", lambda *a, **k: is_over.wait(60))
    assert "did not finish within 0.1 s" in mirror.finish(0.1)
    assert "mirror" in {thread.name for thread in threading.enumerate()} and len(warnings) == 1
    is_over.set()


STOPPED = """
import sys, time
from pathlib import Path
from mgrpo.storage.mirror import Mirror
from mgrpo.storage.files import Storage
from tests.mgrpo.storage.test_mirror import QUICK, make_checkpoint, make_run

url, run_dir = sys.argv[1], Path(sys.argv[2])
make_run(run_dir)
mirror = Mirror(Storage(url, QUICK), run_dir)
mirror.checkpoint(make_checkpoint(run_dir, 10))
assert mirror.settle() == ""
put_file = mirror.storage.files.put_file
def slow(source, target, **options):
    put_file(source, target, **options)
    print("sent", target, flush=True)
    time.sleep(30)
mirror.storage.files.put_file = slow
mirror.checkpoint(make_checkpoint(run_dir, 20))
mirror.settle()
"""


def test_sigterm_in_the_middle_of_an_upload_leaves_the_earlier_checkpoint_valid(tmp_path):
    url = f"file://{tmp_path}/shared"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", STOPPED, url, str(tmp_path / "here")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert "checkpoints/step-000020/learner/rank0.pt" in process.stdout.readline()
        process.terminate()
        assert process.wait(20) != 0
    assert (tmp_path / "shared/checkpoints/step-000020/learner/rank0.pt").is_file()
    Mirror(Storage(url, QUICK), tmp_path / "there").fetch()
    assert newest_whole(tmp_path / "there")[0].name == "step-000010"


def test_a_plain_folder_has_no_mirror(tree, tmp_path):
    config = RunConfig.model_validate({**tree, "output": {"runs_dir": str(tmp_path)}})
    assert local_run_dir(config.output, config.name) == tmp_path / config.name
    mirror = mirror_of(config, tmp_path)
    for call in (mirror.fetch, mirror.refuse_existing, mirror.begin, mirror.remove):
        call()
    mirror.checkpoint(tmp_path)
    assert mirror.finish() == "" and mirror.settle() == ""


def test_a_run_at_an_url_works_in_a_folder_named_after_it(tree, tmp_path):
    output = {"runs_dir": "memory://team/runs", "local_runs_dir": str(tmp_path)}
    config = RunConfig.model_validate({**tree, "output": output})
    assert local_run_dir(config.output, config.name) == tmp_path / "memory-team-runs" / config.name
    mirror = mirror_of(config, local_run_dir(config.output, config.name))
    assert mirror.storage.url == f"memory://team/runs/{config.name}"
