"""The driver's side of checkpoints on several nodes, with ranks in this process.

Real ranks on real nodes: tests/end_to_end/test_learner_files.py.
"""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from learner import rank_files as learner_files
from learner.node_files import NodeFiles
from learner.rank_files import LearnerFiles
from learner.state_files import Shard
from mgrpo.errors import DeadlineError

IN_TIME = {"deadline_s": 20.0, "setting": "a test"}
SHARD = "weights-zero2-0000{}-of-00004.safetensors"
AVERAGE = "ema/average-zero2-0000{}-of-00004.safetensors"
COMMON = "common.pt"


class Rank(NodeFiles):
    """Writes files named as the learner's, on a node with a temporary folder of its own."""

    def __init__(self, number: int, node: str, root: Path, *, is_with_driver: bool) -> None:
        self.number, self.name, self.root = number, node, root
        self.is_with_driver = is_with_driver
        self.policy_version, self.zero_stage = 7, 2
        self.read: dict[str, bytes] = {}

    def node(self) -> str:
        return self.name

    def sees(self, marker: str, content: str) -> bool:
        return self.is_with_driver and super().sees(marker, content)

    def list_files(self, folder: str) -> dict[str, int]:
        is_here = self.is_with_driver or Path(folder).is_relative_to(self.root)
        return super().list_files(folder) if is_here else {}

    def make_folder(self, name: str) -> str:
        folder = self.root / f"mgrpo-{name}"
        folder.mkdir(parents=True)
        return str(folder)

    def save_state(self, directory: str, policy_version: int) -> bool:
        if policy_version != self.policy_version:
            return False
        for name in (SHARD, AVERAGE):
            file = Path(directory) / name.format(self.number)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(bytes([self.number]) * 1000)
        if self.number == 0:
            (Path(directory) / COMMON).write_bytes(bytes(range(250)) * 10)
            (Path(directory) / "empty").write_bytes(b"")
        return True

    def reads(self, names: list[str]) -> list[str]:
        return Shard(self.zero_stage, self.number, 4).reads(names)

    def load_state(self, directory: str) -> int:
        root = Path(directory)
        self.read = {name: (root / name).read_bytes() for name in self.list_files(directory)}
        return self.policy_version

    def save_policy(self, directory: str) -> None:
        if self.number == 0:
            Path(directory).mkdir()
            (Path(directory) / "config.json").write_text("{}")


class InProcess:
    """As RemoteActor: a call's result is there at once."""

    def __init__(self, rank: Rank) -> None:
        self.rank, self.name = rank, f"learner-rank-{rank.number}"

    def submit(self, method, *args):
        return self.name, getattr(self.rank, method.__name__)(*args)


def no_wait(calls, *, doing, deadline_s, setting, progress):
    if deadline_s < 0.2:
        raise DeadlineError(f"{calls[0][0]} ({doing})", deadline_s=deadline_s, setting=setting)
    return [result for _, result in calls]


@pytest.fixture
def ranks(tmp_path, monkeypatch):
    """Ranks 0 and 1 on the driver's node, 2 and 3 on another one."""
    monkeypatch.setattr(learner_files, "wait_for", no_wait)
    monkeypatch.setattr(learner_files, "PART_BYTES", 300)
    (tmp_path / "run").mkdir()
    return [
        InProcess(Rank(n, f"node{n // 2}", tmp_path / f"tmp{n // 2}", is_with_driver=n < 2))
        for n in range(4)
    ]


def test_shards_of_another_node_join_those_of_the_drivers(ranks, tmp_path):
    directory = tmp_path / "run" / "learner"
    assert LearnerFiles(ranks, directory, **IN_TIME).save_states(7)
    names = sorted(file.relative_to(directory).as_posix() for file in directory.rglob("*-of-*"))
    assert names == sorted(one.format(n) for one in (SHARD, AVERAGE) for n in range(4))
    assert (directory / SHARD.format(3)).read_bytes() == b"\x03" * 1000
    assert list((tmp_path / "tmp1").iterdir()) == [] and not (tmp_path / "tmp0").exists()
    assert [file.name for file in (tmp_path / "run").iterdir()] == ["learner"]


def test_a_node_is_sent_what_is_everybodys_and_its_own_shards(ranks, tmp_path):
    directory = tmp_path / "run" / "learner"
    LearnerFiles(ranks, directory, **IN_TIME).save_states(7)
    assert LearnerFiles(ranks, directory, **IN_TIME).load_states() == 7
    own = {name.format(n) for name in (SHARD, AVERAGE) for n in (2, 3)}
    for one in ranks[2:]:
        assert set(one.rank.read) == {COMMON, "empty", *own}
        assert one.rank.read[COMMON] == bytes(range(250)) * 10
        assert one.rank.read["empty"] == b""
    assert len(ranks[0].rank.read) == 10  # reads in place, where all of it is


def test_a_checkpoint_is_read_from_a_disk_that_cannot_be_written_to(ranks, tmp_path, monkeypatch):
    directory = tmp_path / "run" / "learner"

    def refuse(file, content, encoding):
        raise OSError(errno.EROFS, "Read-only file system", str(file))

    monkeypatch.setattr(Path, "write_text", refuse)
    with pytest.raises(OSError, match="Read-only"):
        LearnerFiles(ranks, directory, **IN_TIME)  # nothing tells who sees it
    monkeypatch.undo()
    monkeypatch.setattr(learner_files, "wait_for", no_wait)
    LearnerFiles(ranks, directory, **IN_TIME).save_states(7)
    monkeypatch.setattr(Path, "write_text", refuse)
    reading = LearnerFiles(ranks, directory, **IN_TIME)
    assert [home.folder is None for home in reading.homes] == [True, True, False, False]
    assert reading.load_states() == 7


@pytest.mark.parametrize("change", ["fewer ranks", "another stage"])
def test_a_node_is_sent_all_shards_where_other_ranks_saved_them(ranks, tmp_path, change):
    directory = tmp_path / "run" / "learner"
    LearnerFiles(ranks, directory, **IN_TIME).save_states(7)
    if change == "fewer ranks":
        for file in directory.rglob("*-00003-of-*"):
            file.unlink()
        for file in directory.rglob("*-of-00004*"):
            file.rename(file.with_name(file.name.replace("-of-00004", "-of-00003")))
    else:
        for one in ranks:
            one.rank.zero_stage = 3
    LearnerFiles(ranks, directory, **IN_TIME).load_states()
    assert len(ranks[3].rank.read) == (8 if change == "fewer ranks" else 10)


def test_a_learner_that_has_moved_on_is_not_saved(ranks, tmp_path):
    assert not LearnerFiles(ranks, tmp_path / "run" / "learner", **IN_TIME).save_states(6)
    assert list((tmp_path / "run").iterdir()) == []


def test_what_is_known_of_the_folder_is_not_asked(ranks, tmp_path):
    files = LearnerFiles(ranks, tmp_path / "run" / "learner", is_shared=True, **IN_TIME)
    assert [home.folder for home in files.homes] == [None] * 4
    files = LearnerFiles(ranks, tmp_path / "run" / "learner", is_shared=False, **IN_TIME)
    assert [home.node for home in files.homes] == ["node0", "node0", "node1", "node1"]
    assert len({home.folder for home in files.homes}) == 2


def test_the_policy_of_a_rank_elsewhere_replaces_the_old_one_whole(ranks, tmp_path):
    ranks[0].rank.is_with_driver = False
    policy = tmp_path / "run" / "policy"
    policy.mkdir()
    (policy / "old.json").write_text("{}")
    LearnerFiles(ranks, policy, **IN_TIME).save_policy()
    assert [file.name for file in policy.iterdir()] == ["config.json"]
    assert [file.name for file in (tmp_path / "run").iterdir()] == ["policy"]


def test_moving_files_has_one_deadline_and_names_its_setting(ranks, tmp_path):
    with pytest.raises(DeadlineError, match="a test"):
        files = LearnerFiles(ranks, tmp_path / "run" / "learner", deadline_s=0.01, setting="a test")
        files.save_states(7)


def test_only_folders_that_were_made_for_it_are_deleted(tmp_path):
    with pytest.raises(AssertionError):
        NodeFiles().remove_folder(str(tmp_path))
