"""Steps are sampled while others train: the invariant, whatever ends the run.

Every problem that is drawn trains exactly once, in the step that it was drawn for, or is counted as
dropped; its completions are no older than the bound; a run that is resumed goes on as one that was
never interrupted.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from learner.scripted import Update
from mgrpo.config import RunConfig
from mgrpo.errors import LearnerError, RunInterrupted
from mgrpo.metrics.log import read_metrics
from mgrpo.storage.checkpoints import newest_whole, read_state
from mgrpo.training.sources.sample_ahead import FILE, Drawn, lines_of, with_lines
from mgrpo.training.sources.source import Work
from mgrpo.types import Replayed
from tests.learner.builders import completion
from tests.mgrpo.training.light_run import TOKENIZER, LightRun

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


BOUNDS = [
    {"max_staleness_steps": bound, "new_weights": when}
    for bound in (1, 2, 3)
    for when in ("between_groups", "in_flight")
]
BY_BOUND = pytest.mark.parametrize(
    "pipeline", BOUNDS, ids=lambda one: "-".join(str(value) for value in one.values())
)


def slow_now_and_then(run: LightRun, seed: int) -> None:
    """Answers take a random while, so that steps meet in every order."""
    rng = random.Random(seed)
    run.engine.pause_s = lambda prompt: rng.choice((0.0, 0.0, 0.002, 0.01))


def ages(run: LightRun) -> list[int]:
    """Of each update, how many updates older its oldest token is."""
    return [
        update.step - min(one.oldest_version for one in update.completions)
        for update in run.learner.updates
    ]


@BY_BOUND
def test_no_token_is_older_than_the_bound_and_the_problems_are_the_same(tree, tmp_path, pipeline):
    waits = ahead(tree, tmp_path / "a", pipeline={"max_staleness_steps": None})
    waits.train()
    run = ahead(tree, tmp_path / "b", pipeline=pipeline)
    slow_now_and_then(run, seed=1)
    rows = run.train()
    assert [trained(one).problems for one in run.learner.updates] == [
        trained(one).problems for one in waits.learner.updates
    ]
    assert all(0 <= age <= pipeline["max_staleness_steps"] for age in ages(run))
    assert [row["pipeline/staleness_max"] for row in rows] == ages(run)
    assert run.engines.versions == list(range(STEPS + 1))


def test_several_steps_are_sampled_while_one_trains(tree, tmp_path):
    run = ahead(tree, tmp_path, pipeline=BOUNDS[-1])
    update, a_step = run.learner.update_beside, 2 * (1 + 4)

    async def late(completions: Any, parents: Any, step: int, *rest: Any) -> Any:
        while len(run.engine.prompts) < a_step * min(step + 4, STEPS):  # else this never ends
            await asyncio.sleep(0.001)
        return await update(completions, parents, step, *rest)

    run.learner.update_beside = late  # type: ignore[method-assign]
    run.train()
    assert len(run.engine.prompts) == a_step * STEPS


@pytest.mark.parametrize("bound", [1, 2])
def test_the_completions_of_a_prompt_are_of_one_policy_unless_asked_otherwise(
    tree, tmp_path, bound
):
    run = ahead(
        tree, tmp_path, pipeline={"max_staleness_steps": bound, "new_weights": "between_groups"}
    )
    slow_now_and_then(run, seed=2)
    at_broadcast: list[int] = []
    broadcast = run.engines.broadcast

    def noted(policy_version: int) -> Any:
        at_broadcast.append(run.engine.num_inflight)
        return broadcast(policy_version)

    run.engines.broadcast = noted  # type: ignore[method-assign]
    run.train()
    assert set(at_broadcast) == {0}
    for update in run.learner.updates:
        versions: dict[str, set[int]] = {}
        for one in update.completions:
            versions.setdefault(one.group_key, set()).add(one.oldest_version)
        assert {len(found) for found in versions.values()} == {1}


def test_weights_may_change_in_the_midst_of_completions(tree, tmp_path):
    run = ahead(
        tree, tmp_path, pipeline={"max_staleness_steps": 1, "new_weights": "in_flight"}, steps=3
    )
    run.engine.pause_s = lambda prompt: 0.02
    at_broadcast: list[int] = []
    broadcast = run.engines.broadcast

    def noted(policy_version: int) -> Any:
        at_broadcast.append(run.engine.num_inflight)
        return broadcast(policy_version)

    run.engines.broadcast = noted  # type: ignore[method-assign]
    run.train()
    assert max(at_broadcast) > 0


def test_a_step_trains_without_its_slowest_problems_where_asked(tree, tmp_path):
    run = ahead(
        tree,
        tmp_path,
        pipeline={
            "max_staleness_steps": 1,
            "new_weights": "in_flight",
            "min_done_fraction": 0.5,
        },
    )
    slow = "q1"  # never done
    run.engine.pause_s = lambda ids: 3600.0 if slow in TOKENIZER.decode(ids) else 0.0
    rows = run.train()
    dropped = [row.get("pipeline/dropped_problems", 0) for row in rows]
    names = [set(trained(one).problems) for one in run.learner.updates]
    assert all("p1" not in found for found in names)
    assert [len(found) + missing for found, missing in zip(names, dropped, strict=True)] == [2] * 6
    assert sum(dropped) == 3  # six steps of two ask each of four problems three times


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


@BY_BOUND
@pytest.mark.parametrize("seed", range(6))
def test_a_kill_at_a_random_moment_loses_and_doubles_nothing(tree, tmp_path, pipeline, seed):
    whole = ahead(tree, tmp_path / "whole", pipeline=pipeline)
    whole.train()
    rng = random.Random(seed)
    lives = []
    for _ in range(2):
        run = ahead(tree, tmp_path / "cut", pipeline=pipeline)
        slow_now_and_then(run, seed)
        kill_at(run, rng.randint(2, 75))
        lives.append(run)
        try:
            run.train(resume_from=newest_whole(run.run_dir)[0])
        except Killed:
            continue
    lives.append(resumed(tree, tmp_path / "cut", pipeline=pipeline))
    assert [one.problems for one in lineage(lives)] == [
        trained(one).problems for one in whole.learner.updates
    ]
    assert all(age <= pipeline["max_staleness_steps"] for run in lives for age in ages(run))


@pytest.mark.parametrize("seed", range(6))
def test_a_kill_counts_each_problem_that_trains_without(tree, tmp_path, seed):
    """Drawn is trained or counted as dropped, in the step that it was drawn for."""
    waits = ahead(tree, tmp_path / "whole", pipeline={"max_staleness_steps": None})
    waits.train()
    pipeline = {"max_staleness_steps": 2, "new_weights": "in_flight", "min_done_fraction": 0.5}
    rng, lives = random.Random(seed), []
    for kills in (True, True, False):
        run = ahead(tree, tmp_path / "cut", pipeline=pipeline)
        run.engine.pause_s = lambda ids: 3600.0 if "q1" in TOKENIZER.decode(ids) else 0.0
        if kills:
            kill_at(run, rng.randint(2, 50))
        lives.append(run)
        try:
            run.train(resume_from=newest_whole(run.run_dir)[0])
        except Killed:
            continue
    rows = read_metrics(lives[-1].run_dir)
    drawn = [trained(one).problems for one in waits.learner.updates]
    for names, one, row in zip(drawn, lineage(lives), rows, strict=True):
        assert set(one.problems) == {*names} - {"p1"}
        assert row.get("pipeline/dropped_problems", 0) == names.count("p1")


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
    (drawn,) = read_state(folder)["sources"]["ahead"]
    assert len(drawn["work"]["problems"]) == 2  # to be sampled again
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


def test_what_an_engine_spoilt_is_not_kept_but_sampled_again(tree, tmp_path):
    """Its update fails; kept, it would fail after every resume."""
    whole = ahead(tree, tmp_path / "whole")
    whole.train()
    completions = [one for update in whole.learner.updates for one in update.completions]
    num_groups = len({one.group_key for one in completions})
    run = ahead(tree, tmp_path / "spoilt", checkpoints={"every_steps": 1, "keep": 9})
    generate, update, calls = run.engine.generate, run.learner.update, 0
    beside = run.learner.update_beside

    async def spoil_one(*args: Any, **keys: Any) -> Any:
        nonlocal calls
        calls += 1
        first, *others = await generate(*args, **keys)
        if calls == num_groups // 2:
            first = replace(first, logprobs=first.logprobs * np.nan)
        return [first, *others]

    def refuse(completions: Any, *args: Any, **keys: Any) -> Any:
        if not all(np.isfinite(one.rollout_logprobs).all() for one in completions):
            raise LearnerError("The loss is nan.")
        return update(completions, *args, **keys)

    async def late(*args: Any) -> Any:
        await asyncio.sleep(0.2)  # what is sampled meanwhile is done, and kept
        return await beside(*args)

    run.engine.generate = spoil_one  # type: ignore[method-assign]
    run.learner.update = refuse  # type: ignore[method-assign]
    run.learner.update_beside = late  # type: ignore[method-assign]
    with pytest.raises(LearnerError, match="nan"):
        run.train()
    again = resumed(tree, tmp_path / "spoilt", checkpoints={"every_steps": 1, "keep": 9})
    assert 0 < len(run.learner.updates) < STEPS
    after = [one for update in again.learner.updates for one in update.completions]
    assert all(np.isfinite(one.rollout_logprobs).all() for one in after)
    assert [one.problems for one in lineage([run, again])] == [
        one.problems for one in lineage([whole])
    ]


def test_a_drawn_step_comes_back_from_a_file_as_it_was():
    again = Replayed(completion=completion("q/1/1", 1.0), advantage=0.5, weight=0.25)
    work = Work(ready=[completion("q/1", 1.0)], parents=[completion("q/2", 0.0)], replayed=[again])
    nothing = Work(ready=[], parents=[], replayed=[])
    drawn = [Drawn(step=3, work=work), Drawn(step=4, work=None), Drawn(step=5, work=nothing)]
    lines = [line for one in drawn for line in lines_of(one)]
    empty = [one if one.work is None else replace(one, work=Work()) for one in drawn]
    assert with_lines(empty, lines) == drawn
