from __future__ import annotations

import dataclasses
import json
import os
import threading
from pathlib import Path

import pytest

from mgrpo.errors import RunDirectoryError
from mgrpo.storage import checkpoints as storage
from mgrpo.storage.checkpoints import (
    FORMAT,
    begin_checkpoint,
    best_checkpoint,
    checkpoint_dir,
    checkpoints,
    fault_of,
    fingerprint,
    finish_checkpoint,
    newest_whole,
    read_state,
    refuse_other_problems,
    tidy,
)
from mgrpo.storage.policies import BestRecord, write_best
from mgrpo.types import Problem


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
    assert read_state(folder) == {"format": FORMAT, "num_steps": 3} and fault_of(folder) == ""


def test_all_of_it_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_disk: list[tuple[int, int]] = []  # inode and size, in order
    fsync, rename = os.fsync, os.rename
    at_rename: list[int] = []

    def noting(opened: int) -> None:
        found = os.fstat(opened)
        on_disk.append((found.st_ino, found.st_size))
        fsync(opened)

    def naming(*args: Path) -> None:
        at_rename.append(len(on_disk))
        rename(*args)

    monkeypatch.setattr(os, "fsync", noting)
    monkeypatch.setattr(os, "rename", naming)
    folder = make(tmp_path, 3)

    def places(*paths: Path) -> set[tuple[int, int]]:
        return {(path.stat().st_ino, path.stat().st_size) for path in paths}

    (before,) = at_rename
    assert places(folder, *folder.rglob("*")) <= set(on_disk[:before])
    assert places(folder.parent) <= set(on_disk[before:])  # its name, too


def test_files_are_hashed_by_several_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of the two files waits until the other one is hashed, too."""
    both, sha256_of = threading.Barrier(2), storage.sha256_of

    def waiting(file: Path) -> str:
        both.wait(60)
        return sha256_of(file)

    monkeypatch.setattr(storage, "sha256_of", waiting)
    monkeypatch.setattr(storage, "HASH_THREADS", 2)  # as many as a machine has cores, up to 8
    assert fault_of(make(tmp_path, 3)) == ""


def test_what_interrupted_attempts_left_is_removed(tmp_path: Path) -> None:
    left = begin_checkpoint(tmp_path, 3)
    begin_checkpoint(tmp_path, 5)
    assert not left.exists()


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    folders = [make(tmp_path, number) for number in (2, 10, 100, 1_000_000)]
    tidy(tmp_path, 2, folders[-1])
    assert checkpoints(tmp_path) == folders[2:]
    tidy(tmp_path, 5, folders[-1])
    assert checkpoints(tmp_path) == folders[2:]


def test_the_best_one_is_kept_until_there_is_a_better_one(tmp_path: Path) -> None:
    folders = [make(tmp_path, number) for number in (2, 4, 6, 8)]
    for number in (0, 1, 3):
        write_best(folders[number], BestRecord(2 * number + 2, "m", "max", 0.5))
    tidy(tmp_path, 1, folders[2])
    assert checkpoints(tmp_path) == folders[1:3]
    assert best_checkpoint(tmp_path) == (folders[1], BestRecord(4, "m", "max", 0.5))


def test_damaged_ones_that_a_run_went_back_from_take_no_place(tmp_path: Path) -> None:
    folders = [make(tmp_path, number) for number in (2, 4, 6, 8)]
    tidy(tmp_path, 2, folders[1])
    assert checkpoints(tmp_path) == folders[:2]


@pytest.mark.parametrize(("number", "writer"), [(1, "an earlier"), (FORMAT + 1, "a later")])
def test_a_format_of_another_version_is_said(tmp_path: Path, number: int, writer: str) -> None:
    older, folder = make(tmp_path, 2), begin_checkpoint(tmp_path, 3)
    (folder / "learner").mkdir()
    (folder / "learner" / "shard.pt").write_bytes(b"state")
    newer = finish_checkpoint(folder, {"num_steps": 3, "format": number})
    assert f"written by {writer} version of mgrpo, in format {number}" in fault_of(newer)
    assert newest_whole(tmp_path)[0] == older


@pytest.mark.parametrize("state", [{}, {"num_steps": -1}, {"num_steps": "x"}, {"num_steps": None}])
def test_a_state_without_its_steps_is_none(tmp_path: Path, state: dict[str, object]) -> None:
    folder = begin_checkpoint(tmp_path, 3)
    (folder / "learner").mkdir()
    (folder / "learner" / "shard.pt").write_bytes(b"state")
    assert "state.json is none" in fault_of(finish_checkpoint(folder, state))


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


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "{}",
        "[]",
        "5",
        '{"state.json": null}',
        '{"state.json": {"bytes": 1}}',
        '{"state.json": {"bytes": 1, "sha256": "x", "more": 2}}',
        '{"learner/shard.pt": {"bytes": 14, "sha256": "x"}}',
        "\x00",
        "",
    ],
)
def test_a_manifest_that_is_none_is_a_fault(tmp_path: Path, text: str) -> None:
    folder = make(tmp_path, 2)
    (folder / "manifest.json").write_text(text)
    assert "manifest" in fault_of(folder)
    assert newest_whole(tmp_path)[0] is None


def test_a_file_outside_of_the_checkpoint_is_no_part_of_it(tmp_path: Path) -> None:
    folder = make(tmp_path, 2)
    manifest = json.loads((folder / "manifest.json").read_text())
    shard = manifest["learner/shard.pt"]
    (tmp_path / "shard.pt").write_bytes((folder / "learner" / "shard.pt").read_bytes())
    manifest["../../shard.pt"] = shard
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert "../../shard.pt is missing" in fault_of(folder)


def test_the_fingerprint_is_that_of_the_problems_and_their_order() -> None:
    first = Problem(problem_id="a/0", question="1 + 1?", answer="2", metadata={"b": 1, "a": [2]})
    second = Problem(problem_id="a/1", question="1 + 2?", answer="3")
    same = dataclasses.replace(first, metadata={"a": [2], "b": 1})
    assert fingerprint([first, second]) == fingerprint([same, second])
    others = [
        [second, first],
        [first],
        [dataclasses.replace(first, answer="3"), second],
        [dataclasses.replace(first, question="1 + 1 ?"), second],
        [dataclasses.replace(first, domain="sums"), second],
        [dataclasses.replace(first, solution="one and one"), second],
        [dataclasses.replace(first, metadata={"a": [3], "b": 1}), second],
        [dataclasses.replace(first, earlier_turns=[{"role": "system", "content": "a"}]), second],
        [dataclasses.replace(first, source="a"), second],
    ]
    assert len({fingerprint(problems) for problems in [[first, second], *others]}) == 10
    refuse_other_problems([first, second], fingerprint([same, second]), "sums.jsonl")
    with pytest.raises(RunDirectoryError, match=r"data\.train \(sums\.jsonl\) has changed since"):
        refuse_other_problems([first], fingerprint([first, second]), "sums.jsonl")


def test_a_problem_with_any_text_has_a_fingerprint() -> None:
    odd = Problem(problem_id="\udcff", question="\0", answer="\U0001d7da", metadata={"x": {1, 2}})
    assert len(fingerprint([odd])) == 64
