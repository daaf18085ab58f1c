"""The next step is sampled while this one trains: the invariant, whatever ends the run.

Every problem that is drawn trains exactly once, in the step that it was drawn for, on completions
that are at most one step old; a run that is resumed goes on as one that was never interrupted.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from learner.scripted import Update
from mgrpo.config import RunConfig
from mgrpo.errors import LearnerError, RunInterrupted
from mgrpo.storage.checkpoints import newest_whole, read_state
from mgrpo.training.sources.sample_ahead import FILE, lines_of, with_lines
from mgrpo.training.sources.source import Work
from mgrpo.types import Replayed
from tests.learner.builders import completion
from tests.mgrpo.training.light_run import LightRun

STEPS = 6


def ahead(tree: dict[str, Any], folder: Path, **changes: Any) -> LightRun:
    given = {
        "checkpoints": {"every_steps": 2, "keep": 9},
        "pipeline": {"max_staleness_steps": 1},
        "steps": STEPS,
        "output": {"report": False},
        **changes,
    }
    return LightRun(RunConfig.model_validate({**tree, **given}), folder / "run")


@dataclass(frozen=True)
class Trained:
    """What of an update must not depend on interruptions."""

    step: int
    problems: list[str]
    completions: list[tuple[str, bytes, int]]  # id, token ids, version of the oldest token


def trained(update: Update) -> Trained:
    return Trained(
        step=update.step,
        problems=list(dict.fromkeys(one.problem_id for one in update.completions)),
        completions=[
            (one.completion_id, one.token_ids.tobytes(), one.oldest_version)
            for one in update.completions
        ],
    )


def resumed(tree: dict[str, Any], folder: Path, **changes: Any) -> LightRun:
    """The same run again, from its newest checkpoint; from its beginning if there is none."""
    run = ahead(tree, folder, **changes)
    run.train(resume_from=newest_whole(run.run_dir)[0])
    return run


def lineage(lives: list[LightRun]) -> list[Trained]:
    """Updates that are part of the policy that the last life ends with."""
    kept: list[Trained] = []
    for run in lives:
        updates = [trained(one) for one in run.learner.updates]
        if updates:
            kept = [one for one in kept if one.step < updates[0].step] + updates
    return kept


# --- order ---


def test_an_update_trains_what_was_sampled_before_the_one_before_it(tree, tmp_path):
    run = ahead(tree, tmp_path)
    rows = run.train()
    versions = [{one.oldest_version for one in u.completions} for u in run.learner.updates]
    assert versions == [{0}, {0}, {1}, {2}, {3}, {4}]
    assert [row["pipeline/staleness_max"] for row in rows] == [0, 1, 1, 1, 1, 1]
    assert run.engines.versions == list(range(STEPS + 1))
    assert [update.step for update in run.learner.updates] == list(range(STEPS))


def test_it_draws_the_problems_of_a_run_that_waits(tree, tmp_path):
    waits = ahead(tree, tmp_path / "a", pipeline={"max_staleness_steps": None})
    waits.train()
    overlaps = ahead(tree, tmp_path / "b")
    overlaps.train()
    assert [trained(one).problems for one in waits.learner.updates] == [
        trained(one).problems for one in overlaps.learner.updates
    ]


def test_the_engines_work_while_the_learner_does(tree, tmp_path):
    run = ahead(tree, tmp_path, steps=2)
    events: list[str] = []
    update, generate = run.learner.update_beside, run.engine.generate

    async def noted_update(*args: Any) -> Any:
        events.append("update begins")
        await asyncio.sleep(0.05)
        events.append("update ends")
        return await update(*args)

    async def noted_generate(*args: Any, **keys: Any) -> Any:
        events.append("sample")
        return await generate(*args, **keys)

    run.learner.update_beside = noted_update  # type: ignore[method-assign]
    run.engine.generate = noted_generate  # type: ignore[method-assign]
    run.train()
    first = events[events.index("update begins") : events.index("update ends")]
    assert first.count("sample") == 2 + 2 * 4
    assert events[-2:] == ["update begins", "update ends"]  # nothing is drawn beyond the last step


# --- interrupted ---


class Killed(Exception):
    """Stands for the end of the process."""


def kill_at(run: LightRun, moment: int) -> None:
    """End the run at its `moment`-th call of engines, learner or checkpoints."""
    count = 0

    def tick() -> None:
        nonlocal count
        count += 1
        if count == moment:
            raise Killed

    def before(original: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **keys: Any) -> Any:
            tick()
            return original(*args, **keys)

        return wrapped

    for owner, name in (
        (run.engine, "generate"),
        (run.learner, "update"),
        (run.learner, "save_states"),
        (run.engines, "broadcast"),
    ):
        setattr(owner, name, before(getattr(owner, name)))


@pytest.mark.parametrize("seed", range(12))
def test_a_run_that_was_killed_at_a_random_moment_goes_on_as_if_it_had_not_been(
    tree, tmp_path, seed
):
    whole = ahead(tree, tmp_path / "whole")
    whole.train()
    rng = random.Random(seed)
    lives = []
    for _ in range(2):
        run = ahead(tree, tmp_path / "cut")
        kill_at(run, rng.randint(2, 75))
        lives.append(run)
        try:
            run.train(resume_from=newest_whole(run.run_dir)[0])
        except Killed:
            continue
    lives.append(resumed(tree, tmp_path / "cut"))
    assert lineage(lives) == [trained(one) for one in whole.learner.updates]


@pytest.mark.parametrize("seed", range(8))
def test_a_signal_at_a_random_moment_loses_and_doubles_nothing(tree, tmp_path, seed):
    whole = ahead(tree, tmp_path / "whole")
    whole.train()
    moment = random.Random(seed).randint(1, 2 * STEPS * (2 + 8))
    run = ahead(tree, tmp_path / "cut")
    generate, asked = run.engine.generate, 0

    async def interrupted(*args: Any, **keys: Any) -> Any:
        nonlocal asked
        asked += 1
        if asked == moment:
            run.signals.receive(15, None)
        await asyncio.sleep(0.002)
        return await generate(*args, **keys)

    run.engine.generate = interrupted  # type: ignore[method-assign]
    try:
        run.train()
    except RunInterrupted:
        lives = [run, resumed(tree, tmp_path / "cut")]
    else:
        lives = [run]
    problems = [one.problems for one in lineage(lives)]
    assert problems == [trained(one).problems for one in whole.learner.updates]
    oldest = [min(version for *_, version in one.completions) for one in lineage(lives)]
    assert all(step - 1 <= version <= step for step, version in enumerate(oldest))


def test_a_signal_ends_the_sampling_once_the_update_is_done(tree, tmp_path):
    run = ahead(tree, tmp_path, checkpoints={"every_steps": 0})
    update, pause_s = run.learner.update_beside, 60.0

    async def interrupted(completions: Any, parents: Any, step: int, *rest: Any) -> Any:
        if step == 2:
            run.engine.pause_s = lambda prompt: pause_s  # nobody waits for these
            await asyncio.sleep(0.01)
            run.signals.receive(15, None)
        return await update(completions, parents, step, *rest)

    run.learner.update_beside = interrupted  # type: ignore[method-assign]
    with pytest.raises(RunInterrupted):
        run.train()
    folder = run.run_dir / "checkpoints" / "step-000003"
    assert read_state(folder)["sources"]["ahead"]["is_sampled"] is False
    again = resumed(tree, tmp_path)
    whole = ahead(tree, tmp_path / "whole")
    whole.train()
    assert [one.problems for one in lineage([run, again])] == [
        trained(one).problems for one in whole.learner.updates
    ]


def test_what_is_sampled_ahead_trains_also_where_the_resumed_run_waits(tree, tmp_path):
    whole = ahead(tree, tmp_path / "whole")
    whole.train()
    folder = whole.run_dir / "checkpoints" / "step-000004"
    assert (folder / FILE).is_file()
    waits = ahead(tree, tmp_path / "cut", pipeline={"max_staleness_steps": None})
    waits.train(resume_from=folder)
    expected = [trained(one) for one in whole.learner.updates[4:]]
    found = [trained(one) for one in waits.learner.updates]
    assert found[0] == expected[0]
    assert found[1].problems == expected[1].problems


def test_a_learner_that_fails_ends_the_run_with_its_own_error(tree, tmp_path):
    run = ahead(tree, tmp_path)

    async def fails(*args: Any) -> Any:
        raise LearnerError("no more memory")

    run.learner.update_beside = fails  # type: ignore[method-assign]
    with pytest.raises(LearnerError, match="no more memory"):
        run.train()


def test_a_drawn_step_comes_back_from_a_file_as_it_was():
    again = Replayed(completion=completion("q/1/1", 1.0), advantage=0.5, weight=0.25)
    work = Work(ready=[completion("q/1", 1.0)], parents=[completion("q/2", 0.0)], replayed=[again])
    assert with_lines(Work(), iter(lines_of(work))) == work
