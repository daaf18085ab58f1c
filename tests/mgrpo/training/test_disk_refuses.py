"""A disk that is full, read-only or slow costs checkpoints, and not the run."""

from __future__ import annotations

import errno
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from mgrpo.config import RunConfig
from mgrpo.errors import LearnerError, RunDirectoryError
from mgrpo.storage.checkpoints import UNFINISHED, fault_of
from mgrpo.training import checkpoints
from tests.mgrpo.training.light_run import LightRun
from tests.mgrpo.training.test_sample_ahead import lineage

STEPS = 8
FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def light(tree: dict[str, Any], folder: Path, **changes: Any) -> LightRun:
    given = {
        "checkpoints": {"every_steps": 2, "keep": 2, "memory_copy_share": 0},
        "steps": STEPS,
        "output": {"report": False},
        **changes,
    }
    return LightRun(RunConfig.model_validate({**tree, **given}), folder / "run")


def refuse_at(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, calls: set[int], error: Exception
) -> None:
    """Some calls of a function raise, counted from 1; they have done half of their work."""
    function: Callable[..., Any] = getattr(owner, name)
    num_calls = 0

    def refusing(*args: Any, **kwargs: Any) -> Any:
        nonlocal num_calls
        num_calls += 1
        if num_calls in calls:
            if isinstance(args[0], Path) and args[0].parent.is_dir():
                (args[0].parent / "half").write_bytes(b"x")
            raise error
        return function(*args, **kwargs)

    monkeypatch.setattr(owner, name, refusing)


def leftovers(run: LightRun) -> list[str]:
    return [one.name for one in (run.run_dir / "checkpoints").iterdir() if UNFINISHED in one.name]


@pytest.mark.parametrize("where", ["the folder", "the learner", "the state", "the hashes"])
def test_a_full_disk_costs_the_checkpoint_and_no_older_one(tree, tmp_path, monkeypatch, where):
    """The second and the third of four are refused."""
    run = light(tree, tmp_path)
    owner, name, error = {
        "the folder": (checkpoints, "begin_checkpoint", FULL),
        "the learner": (run.learner, "save_states", RunDirectoryError(f"shard: {FULL}")),
        "the state": (checkpoints.RunState, "write_files", FULL),
        "the hashes": (checkpoints, "finish_checkpoint", FULL),
    }[where]
    refuse_at(monkeypatch, owner, name, {2, 3}, error)
    seen: list[list[str]] = []
    update = run.learner.update

    def noting(*args: Any, **kwargs: Any) -> Any:
        seen.append(run.checkpoint_names)
        return update(*args, **kwargs)

    run.learner.update = noting  # type: ignore[method-assign]
    assert [row["step"] for row in run.train()] == list(range(STEPS))
    said = run.console.getvalue()
    assert said.count("could not be written") == 2 and said.count("No space left on device") == 2
    assert "the checkpoint after step 4" in said and "the checkpoint after step 6" in said
    assert leftovers(run) == []
    assert all("step-000002" in names for names in seen[4:])
    assert run.checkpoint_names == ["step-000002", "step-000008"]
    assert "the newest is step-000002" in said
    assert all(fault_of(run.run_dir / "checkpoints" / one) == "" for one in run.checkpoint_names)


def test_what_could_not_be_deleted_while_the_disk_was_read_only_is_gone_at_the_end(
    tree, tmp_path, monkeypatch
):
    run = light(tree, tmp_path)
    finish = checkpoints.finish_checkpoint

    def leaving(folder: Path, state: Mapping[str, object]) -> Path:
        if state["num_steps"] == STEPS:
            shutil.copytree(folder, folder.with_name(f"step-000007{UNFINISHED}"))
        return finish(folder, state)

    monkeypatch.setattr(checkpoints, "finish_checkpoint", leaving)
    run.train()
    assert leftovers(run) == []


def test_older_ones_that_cannot_be_deleted_stay_and_it_is_said(tree, tmp_path, monkeypatch):
    run = light(tree, tmp_path)
    refuse_at(monkeypatch, checkpoints, "tidy", {3, 4}, FULL)
    run.train()
    assert run.console.getvalue().count("older checkpoints could not be tidied: ") == 2
    assert run.checkpoint_names == [f"step-{number:06d}" for number in (2, 4, 6, 8)]


def test_a_disk_that_is_gone_once_a_checkpoint_is_written_costs_those_on_it(
    tree, tmp_path, monkeypatch
):
    """Another one is mounted over it, as `make chaos` does."""
    run, finish = light(tree, tmp_path), checkpoints.finish_checkpoint

    def vanishing(folder: Path, state: Mapping[str, object]) -> Path:
        written = finish(folder, state)
        if state["num_steps"] == 4:
            written.parent.rename(tmp_path / "gone")
            written.parent.mkdir()
        return written

    monkeypatch.setattr(checkpoints, "finish_checkpoint", vanishing)
    assert [row["step"] for row in run.train()] == list(range(STEPS))
    said = run.console.getvalue()
    assert said.count("older checkpoints could not be tidied: [Errno 2]") == 1
    assert f"{run.run_dir / 'checkpoints' / 'step-000004'}" in said.replace("\n", "")
    assert run.checkpoint_names == ["step-000006", "step-000008"]
    assert (tmp_path / "gone" / "step-000004").is_dir()


def test_a_folder_that_cannot_be_made_is_said_each_time(tree, tmp_path):
    run = light(tree, tmp_path)
    run.run_dir.mkdir()
    (run.run_dir / "checkpoints").write_text("in the way")
    run.train()
    said = run.console.getvalue()
    assert said.count("could not be written") == STEPS // 2 and "there is none yet" in said


def test_the_error_that_ends_a_run_is_shown_also_where_the_disk_is_full(
    tree, tmp_path, monkeypatch
):
    run = light(tree, tmp_path)
    refuse_at(monkeypatch, checkpoints, "finish_checkpoint", {1, 2, 3, 4}, FULL)
    update, num_calls = run.learner.update, 0

    def failing(*args: Any, **kwargs: Any) -> Any:
        nonlocal num_calls
        num_calls += 1
        if num_calls == 4:
            raise LearnerError("The gradient is nan.")
        return update(*args, **kwargs)

    run.learner.update = failing  # type: ignore[method-assign]
    with pytest.raises(LearnerError, match="The gradient is nan"):
        run.train()
    assert "no checkpoint was written: " in run.console.getvalue()
    assert leftovers(run) == []


def test_a_run_whose_disk_was_full_resumes_as_if_it_had_not_been(tree, tmp_path, monkeypatch):
    whole = light(tree, tmp_path / "whole")
    whole.train()
    run = light(tree, tmp_path / "cut", steps=6)
    refuse_at(monkeypatch, checkpoints, "finish_checkpoint", {3}, FULL)
    run.train()
    assert run.checkpoint_names == ["step-000002", "step-000004"]
    shutil.rmtree(run.run_dir / "policy")
    again = light(tree, tmp_path / "cut")
    again.train(resume_from=run.run_dir / "checkpoints" / "step-000004")
    assert lineage([run, again]) == lineage([whole])


@pytest.fixture
def hung(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """The checkpoint after step 4 does not get to the disk before this is set."""
    arrived, finish, wait = (
        threading.Event(),
        checkpoints.finish_checkpoint,
        checkpoints.Finishing.wait,
    )

    def slow(folder: Path, state: Mapping[str, object]) -> Path:
        if state["num_steps"] == 4:
            assert arrived.wait(60)
        return finish(folder, state)

    def waits(self: checkpoints.Finishing, within_s: float, setting: str, progress: Any) -> None:
        is_hung = self.state["num_steps"] == 4 and not arrived.is_set()
        wait(self, 0.01 if is_hung else 60, setting, None if is_hung else progress)

    monkeypatch.setattr(checkpoints, "finish_checkpoint", slow)
    monkeypatch.setattr(checkpoints.Finishing, "wait", waits)
    yield arrived
    arrived.set()


def test_storage_that_hangs_delays_the_run_once_and_does_not_end_it(tree, tmp_path, hung):
    run = light(tree, tmp_path)
    assert [row["step"] for row in run.train()] == list(range(STEPS))
    said = run.console.getvalue()
    assert said.count("the checkpoint after step 4 to be on disk") == 1
    assert "cluster.deadlines.update_s" in said
    assert "the checkpoint after step 4 is still being written" in said
    assert run.checkpoint_names == ["step-000002"]


def test_storage_that_is_slow_costs_those_that_were_due_meanwhile(tree, tmp_path, hung):
    run = light(tree, tmp_path)
    update = run.learner.update

    def updating(*args: Any, **kwargs: Any) -> Any:
        if len(run.learner.updates) == 6:  # then the one after step 6 was due
            hung.set()
            for thread in threading.enumerate():
                if thread.name == "checkpoint":
                    thread.join(60)
        return update(*args, **kwargs)

    run.learner.update = updating  # type: ignore[method-assign]
    run.train()
    assert "the checkpoint after step 4 to be on disk" in run.console.getvalue()
    assert run.checkpoint_names == ["step-000004", "step-000008"]
