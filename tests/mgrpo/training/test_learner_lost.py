"""A learner that is lost: the step is repeated by another, and nothing else changes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cluster.left_over import OWNER_FILE, machine, mark_owner
from mgrpo.config import RunConfig
from mgrpo.errors import (
    ActorDiedError,
    DeadlineError,
    LearnerError,
    LearnerLostError,
    MgrpoError,
    RunDirectoryError,
    WeightSyncError,
)
from mgrpo.metrics.log import read_metrics
from mgrpo.storage.checkpoints import newest_whole
from mgrpo.training import checkpoints, last_step
from tests.disk import files_of_at_most
from tests.mgrpo.training.light_run import LightRun
from tests.mgrpo.training.test_sample_ahead import lineage, trained

STEPS = 6
LOSSES = ["update", "save_states", "broadcast"]


@pytest.fixture(autouse=True)
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "memory"
    folder.mkdir()
    monkeypatch.setattr(last_step, "memory_folder", lambda: folder)
    return folder


@dataclass
class Processes:
    """Replaces the scripted learner of a run by one that loads the state it is given."""

    run: LightRun
    max_restarts: int = 3
    is_lost: bool = False
    failures: list[MgrpoError] = field(default_factory=list)  # of the next replacements
    states: list[Path | None] = field(default_factory=list)

    def lost(self, error: MgrpoError) -> MgrpoError | None:
        return error if self.is_lost else None

    def replace(self, state: Path | None, error: MgrpoError) -> int:
        self.is_lost = False
        self.states.append(state)
        if self.failures:
            raise self.failures.pop(0)
        self.run.engines.close()
        learner = self.run.learner
        learner.policy_version = 0
        if state is not None:
            learner.load_states(state)
        self.run.engines.broadcast(learner.policy_version)
        return learner.policy_version


def light(tree: dict[str, Any], folder: Path, **changes: Any) -> LightRun:
    given = {
        "checkpoints": {"every_steps": 4},
        "steps": STEPS,
        "output": {"report": False},
        **changes,
    }
    run = LightRun(RunConfig.model_validate({**tree, **given}), folder / "run")
    run.processes = Processes(run)
    return run


def lose(run: LightRun, where: str, *, times: tuple[int, ...]) -> Processes:
    """The learner dies in some calls of a method, counted from 1."""
    processes = run.processes
    assert isinstance(processes, Processes)
    owner: Any = run.engines if where == "broadcast" else run.learner
    method: Callable[..., Any] = getattr(owner, where)
    num_calls = 0

    def dying(*args: Any, **kwargs: Any) -> Any:
        nonlocal num_calls
        num_calls += 1
        if num_calls in times and not processes.is_lost:
            processes.is_lost = True
            raise ActorDiedError("learner-rank-0 died during the call to update.")
        return method(*args, **kwargs)

    setattr(owner, where, dying)
    return processes


@pytest.mark.parametrize(
    "pipeline",
    [
        {"max_staleness_steps": None},
        {"max_staleness_steps": 1},
        {"max_staleness_steps": 2, "new_weights": "between_groups"},
    ],
)
@pytest.mark.parametrize("where", LOSSES)
def test_each_step_trains_once_on_what_it_would_have_had(tree, tmp_path, where, pipeline):
    whole = light(tree, tmp_path / "whole", pipeline=pipeline)
    whole.train()
    run = light(tree, tmp_path / "lost", pipeline=pipeline)
    processes = lose(run, where, times=(3, 6))
    rows = run.train()

    assert len(processes.states) == 2
    assert [row["step"] for row in rows] == list(range(STEPS))
    assert rows[-1]["policy_version"] == STEPS
    assert rows[-1]["learner/restarts"] == 2
    expected, found = ([trained(u) for u in one.learner.updates] for one in (whole, run))
    kept = {one.step: one for one in found}  # the later one of a repeated step
    assert len(found) - len(kept) <= 2  # each loss repeats one step at most
    assert [(one.step, one.problems) for one in kept.values()] == [
        (one.step, one.problems) for one in expected
    ]
    if (
        pipeline["max_staleness_steps"] is None
    ):  # else what is sampled again is of a policy that is less old
        assert list(kept.values()) == expected


def test_a_loss_in_the_first_step_begins_again(tree, tmp_path):
    run = light(tree, tmp_path)
    processes = lose(run, "update", times=(1,))
    assert [row["step"] for row in run.train()] == list(range(STEPS))
    assert processes.states == [None]


def test_without_copies_it_goes_on_from_the_newest_checkpoint(tree, tmp_path, memory):
    run = light(tree, tmp_path, checkpoints={"every_steps": 2, "memory_copy_share": 0})
    processes = lose(run, "update", times=(4,))
    run.train()
    (state,) = processes.states
    assert state is not None and state.parent.name == "step-000002"
    steps = [update.step for update in run.learner.updates]
    assert steps == [0, 1, 2, 2, 3, 4, 5]
    assert [one.step for one in lineage([run])] == steps


def test_a_resumed_run_may_have_deleted_the_checkpoint_that_it_began_with(tree, tmp_path):
    checkpoints = {"every_steps": 1, "keep": 1}
    first = light(tree, tmp_path, steps=2, checkpoints=checkpoints)
    first.train()
    again = light(tree, tmp_path, checkpoints=checkpoints)
    processes = lose(again, "update", times=(3,))
    begun_with = newest_whole(again.run_dir)[0]
    again.train(resume_from=begun_with)
    assert not begun_with.exists() and len(processes.states) == 1
    assert [row["step"] for row in read_metrics(again.run_dir)] == list(range(STEPS))


def test_the_last_of_too_many_losses_ends_the_run_with_its_own_error(tree, tmp_path, memory):
    run = light(tree, tmp_path)
    processes = lose(run, "update", times=(2, 3, 4, 5))
    with pytest.raises(ActorDiedError, match="learner-rank-0 died"):
        run.train()
    assert len(processes.states) == processes.max_restarts
    assert not any(memory.iterdir())
    said = run.console.getvalue()
    assert "Restart 1 of 3 (learner.max_restarts), from step 1." in said


def test_a_loss_while_other_ranks_start_is_another_restart(tree, tmp_path):
    run = light(tree, tmp_path)
    processes = lose(run, "update", times=(3,))
    processes.failures = [LearnerLostError("learner-rank-1.1 died during the call to start.")]
    rows = run.train()
    assert [row["step"] for row in rows] == list(range(STEPS))
    assert rows[-1]["learner/restarts"] == 2
    first, second = processes.states
    assert first == second
    assert (
        "learner-rank-1.1 died during the call to start. Restart 2 of 3" in run.console.getvalue()
    )


@pytest.mark.parametrize(
    "failure",
    [
        DeadlineError("learner-rank-0", deadline_s=600, setting="cluster.deadlines.update_s"),
        LearnerLostError("learner-rank-1.1 died."),
    ],
)
def test_the_last_step_is_a_checkpoint_where_no_other_ranks_come(tree, tmp_path, memory, failure):
    run = light(tree, tmp_path)
    processes = lose(run, "update", times=(3,))
    processes.failures = [failure] * processes.max_restarts
    with pytest.raises(type(failure)):
        run.train()
    assert run.checkpoint_names == ["step-000002"]
    assert not any(memory.iterdir())
    resumed = light(tree, tmp_path)
    resumed.train(resume_from=resumed.run_dir / "checkpoints" / "step-000002")
    assert [update.step for update in resumed.learner.updates] == list(range(2, STEPS))


def test_an_error_of_a_living_learner_ends_the_run(tree, tmp_path):
    run = light(tree, tmp_path)

    def not_finite(*args: Any, **kwargs: Any) -> Any:
        raise LearnerError("The gradient is nan.")

    run.learner.update = not_finite  # type: ignore[method-assign]
    with pytest.raises(LearnerError, match="nan"):
        run.train()


def test_a_loss_while_the_next_step_is_sampled_ends_that_sampling(tree, tmp_path):
    run = light(tree, tmp_path, pipeline={"max_staleness_steps": 1})
    generate, update, cancelled = run.engine.generate, run.learner.update_beside, []

    async def late(*args: Any) -> Any:
        await asyncio.sleep(0.01)
        return await update(*args)

    async def slow(*args: Any, **kwargs: Any) -> Any:
        try:
            await asyncio.sleep(0.2)
        except asyncio.CancelledError:
            cancelled.append(True)
            raise
        return await generate(*args, **kwargs)

    run.engine.generate = slow  # type: ignore[method-assign]
    run.learner.update_beside = late  # type: ignore[method-assign]
    lose(run, "update", times=(3,))
    assert [row["step"] for row in run.train()] == list(range(STEPS))
    assert cancelled


# --- errors that end a run ---


def fails(run: LightRun, where: str, *, at: int, error: Exception) -> None:
    """A method of the learner or the engines raises at its n-th call."""
    owner: Any = run.engines if where == "broadcast" else run.learner
    method: Callable[..., Any] = getattr(owner, where)
    num_calls = 0

    def failing(*args: Any, **kwargs: Any) -> Any:
        nonlocal num_calls
        num_calls += 1
        if num_calls == at:
            raise error
        return method(*args, **kwargs)

    setattr(owner, where, failing)


@pytest.mark.parametrize(
    ("where", "error"),
    [
        ("update", LearnerError("The gradient is nan.")),
        ("update", ZeroDivisionError("a user's plug-in")),
        # The learner is then ahead of the last whole step, which the copy in memory still has.
        ("broadcast", WeightSyncError("engine-0 holds other weights.")),
    ],
)
def test_an_error_leaves_a_checkpoint_from_which_the_run_goes_on_as_if_there_were_none(
    tree, tmp_path, where, error
):
    whole = light(tree, tmp_path / "whole")
    whole.train()
    run = light(tree, tmp_path / "cut", checkpoints={"every_steps": 0})
    fails(run, where, at=4 if where == "update" else 5, error=error)
    with pytest.raises(type(error)):
        run.train()
    assert run.checkpoint_names == ["step-000003"]
    again = light(tree, tmp_path / "cut", checkpoints={"every_steps": 0})
    again.train(resume_from=newest_whole(run.run_dir)[0])
    assert lineage([run, again]) == lineage([whole])


def test_too_many_losses_leave_a_checkpoint_of_the_copy(tree, tmp_path):
    run = light(tree, tmp_path, checkpoints={"every_steps": 0})
    lose(run, "update", times=(4, 5, 6, 7))
    with pytest.raises(ActorDiedError):
        run.train()
    assert run.checkpoint_names == ["step-000003"]


@pytest.mark.parametrize("where", ["an error", "no other ranks"])
def test_a_copy_that_the_disk_refuses_leaves_nothing_of_itself(tree, tmp_path, monkeypatch, where):
    run = light(tree, tmp_path, checkpoints={"every_steps": 2, "memory_copy_share": 0.5})
    if where == "an error":
        fails(run, "broadcast", at=5, error=LearnerError("The gradient is nan."))
    else:
        processes = lose(run, "update", times=(4,))
        processes.failures = [LearnerLostError("learner-rank-1.1 died.")] * 3
    copied = checkpoints.copied

    def refused(*args: Any) -> Any:
        with files_of_at_most(0):
            return copied(*args)

    monkeypatch.setattr(checkpoints, "copied", refused)
    with pytest.raises(LearnerError if where == "an error" else LearnerLostError):
        run.train()
    said = " ".join(run.console.getvalue().split())
    assert said.endswith("warning: no checkpoint was written: [Errno 27] File too large")
    assert [one.name for one in (run.run_dir / "checkpoints").iterdir()] == ["step-000002"]


def test_an_error_right_after_a_checkpoint_leaves_it_as_it_is(tree, tmp_path):
    run = light(tree, tmp_path, checkpoints={"every_steps": 2})
    fails(run, "update", at=3, error=LearnerError("The gradient is nan."))
    saves: list[Path] = []
    save = run.learner.save_states

    def noted(directory: Path, *args: Any, **kwargs: Any) -> bool:
        saves.append(directory)
        return save(directory, *args, **kwargs)

    run.learner.save_states = noted  # type: ignore[method-assign]
    with pytest.raises(LearnerError):
        run.train()
    assert run.checkpoint_names == ["step-000002"]
    assert sum("checkpoints" in str(one) for one in saves) == 1


# --- the copies ---


def test_a_run_leaves_no_copy_behind(tree, tmp_path, memory):
    run = light(tree, tmp_path)
    run.train()
    assert not any(memory.iterdir())


def test_copies_of_killed_processes_are_removed_and_others_are_not(memory):
    gone, here = (memory / f"{last_step.PREFIX}{name}" for name in ("gone", "here"))
    for folder in (gone, here, memory / "another"):
        folder.mkdir()
    (gone / OWNER_FILE).write_text(f"{machine()} {2**22 + 1} 1.00")
    mark_owner(here)
    with last_step.LastStep(0.05):
        assert not gone.exists() and here.exists() and (memory / "another").exists()


def test_copies_that_memory_does_not_hold_are_not_made_and_it_is_said(tree, tmp_path, memory):
    run = light(tree, tmp_path)
    run.learner.state_bytes = lambda: 2**50  # type: ignore[method-assign]
    processes = lose(run, "update", times=(6,))
    run.train()
    assert "no copies of the last step" in run.console.getvalue()
    (state,) = processes.states
    assert state is not None and state.parent.name == "step-000004"
    assert len(read_metrics(run.run_dir)) == STEPS


def test_a_copy_that_memory_refuses_is_said_and_the_run_goes_on(tree, tmp_path, memory):
    run = light(tree, tmp_path, checkpoints={"every_steps": 0})
    fails(run, "save_states", at=2, error=RunDirectoryError("No space left on device."))
    run.train()
    said = run.console.getvalue()
    assert said.count("could not be copied: No space left on device.") == 1
    assert not any(memory.iterdir())


def test_copies_keep_to_their_share_of_the_time(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(last_step, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    with last_step.LastStep(0.05) as copy:
        assert copy.is_due  # the first one measures
        copy.seconds, copy.ended = 2.0, 100.0
        clock[0] = 137.0
        assert not copy.is_due
        clock[0] = 138.0
        assert copy.is_due
    with last_step.LastStep(0.0) as none:
        assert not none.is_due
    with last_step.LastStep(1.0) as each:
        each.seconds, each.ended = 1000.0, clock[0]
        assert each.is_due


@pytest.mark.parametrize(("other_s", "times"), [(30.0, 1), (50.0, 0)])
def test_copies_that_take_much_of_the_time_are_said_once(
    tree, tmp_path, monkeypatch, other_s: float, times: int
) -> None:
    clock = [0.0]
    monkeypatch.setattr(last_step, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    run = light(tree, tmp_path)
    update, save_states = run.learner.update, run.learner.save_states

    def updates(*args: Any, **kwargs: Any) -> Any:
        clock[0] += other_s
        return update(*args, **kwargs)

    def copies(*args: Any, **kwargs: Any) -> bool:
        clock[0] += 5.0
        return save_states(*args, **kwargs)

    monkeypatch.setattr(run.learner, "update", updates)
    monkeypatch.setattr(run.learner, "save_states", copies)
    run.train()
    said = " ".join(run.console.getvalue().split())
    assert said.count("copies of the last step take 14% of the time (5 s each)") == times
