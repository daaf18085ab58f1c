from __future__ import annotations

import json
from pathlib import Path

import pytest

from mgrpo.checkpoints import (
    begin_checkpoint,
    checkpoint_dir,
    checkpoints,
    fault_of,
    finish_checkpoint,
    keep_newest,
    newest_whole,
    read_state,
)
from mgrpo.config.load import load_recipe, save_recipe
from mgrpo.errors import RunDirectoryError
from mgrpo.run_directory import changed_keys, resume_point


def make(run_dir: Path, num_steps: int) -> Path:
    folder = begin_checkpoint(run_dir, num_steps)
    (folder / "learner").mkdir()
    (folder / "learner" / "shard.pt").write_bytes(b"weights" * num_steps)
    return finish_checkpoint(folder, {"num_steps": num_steps})


def test_a_checkpoint_appears_only_when_it_is_whole(tmp_path: Path) -> None:
    unfinished = begin_checkpoint(tmp_path, 3)
    (unfinished / "shard").write_bytes(b"half")
    assert checkpoints(tmp_path) == [] and not checkpoint_dir(tmp_path, 3).exists()
    folder = make(tmp_path, 3)  # begins again: what the interrupted attempt left is gone
    assert checkpoints(tmp_path) == [folder] == [checkpoint_dir(tmp_path, 3)]
    assert sorted(file.name for file in folder.iterdir()) == [
        "learner",
        "manifest.json",
        "state.json",
    ]
    assert read_state(folder) == {"num_steps": 3} and fault_of(folder) == ""


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    folders = [make(tmp_path, number) for number in (2, 10, 100)]
    keep_newest(tmp_path, 2)
    assert checkpoints(tmp_path) == folders[1:]


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        (lambda shard: shard.unlink(), "is missing"),
        (lambda shard: shard.write_bytes(b"short"), "5 bytes instead of 28"),
        (lambda shard: shard.write_bytes(b"weighty" * 4), "was changed"),
    ],
)
def test_a_damaged_checkpoint_is_named_and_an_older_one_taken(
    tmp_path: Path, damage, fault: str
) -> None:
    older, newer = make(tmp_path, 2), make(tmp_path, 4)
    damage(newer / "learner" / "shard.pt")
    found, faults = newest_whole(tmp_path)
    assert found == older
    assert len(faults) == 1 and str(newer) in faults[0] and fault in faults[0]


def test_a_manifest_that_is_no_json_is_a_fault(tmp_path: Path) -> None:
    folder = make(tmp_path, 2)
    (folder / "manifest.json").write_text("{")
    assert "manifest" in fault_of(folder)
    assert newest_whole(tmp_path)[0] is None


def test_a_run_resumes_by_the_recipe_that_it_was_made_with(tmp_path: Path) -> None:
    config = load_recipe("quickstart")
    assert resume_point(tmp_path, config) is None  # no run there
    save_recipe(config, tmp_path / "config.yaml")
    assert resume_point(tmp_path, config) is None  # no checkpoint
    folder = make(tmp_path, 2)
    assert resume_point(tmp_path, config) == folder
    quieter = load_recipe("quickstart", ["output.trackers=[]", "checkpoints.keep=5"])
    assert resume_point(tmp_path, quieter) == folder

    other = load_recipe("quickstart", ["learner.learning_rate=1e-5", "layers.solve.group_size=4"])
    assert changed_keys(config, other) == ["layers.0.group_size", "learner.learning_rate"]
    with pytest.raises(RunDirectoryError, match=r"layers\.0\.group_size, learner\.learning_rate"):
        resume_point(tmp_path, other)


def test_a_run_that_has_ended_is_not_resumed(tmp_path: Path) -> None:
    config = load_recipe("quickstart")
    save_recipe(config, tmp_path / "config.yaml")
    make(tmp_path, 2)
    (tmp_path / "policy").mkdir()
    with pytest.raises(RunDirectoryError, match="come to its end"):
        resume_point(tmp_path, config)


def test_without_a_whole_checkpoint_it_says_so(tmp_path: Path) -> None:
    config = load_recipe("quickstart")
    save_recipe(config, tmp_path / "config.yaml")
    folder = make(tmp_path, 2)
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / next(iter(manifest))).unlink()
    with pytest.raises(RunDirectoryError, match=r"No checkpoint .* is whole"):
        resume_point(tmp_path, config)
