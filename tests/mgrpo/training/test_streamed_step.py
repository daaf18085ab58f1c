"""A step whose problems train while others are sampled, on light twins."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from mgrpo.config import RunConfig
from mgrpo.errors import ConfigError, LearnerError
from mgrpo.metrics.log import read_rollouts, rollout_paths
from mgrpo.training.sources.source import Work
from mgrpo.training.tree_feed import TreeFeed
from mgrpo.training.workers import RunWorkers
from mgrpo.types import CompletionId
from tests.learner.builders import completion
from tests.mgrpo.training.light_run import LightRun


def streamed(tree: dict[str, Any], folder: Path, **changes: Any) -> LightRun:
    given = {
        "checkpoints": {"every_steps": 0},
        "pipeline": {"max_staleness_steps": 0},
        "steps": 2,
        **changes,
    }
    return LightRun(RunConfig.model_validate({**tree, **given}), folder / "run")


@pytest.fixture(autouse=True)
def every_tree_is_worth_it(monkeypatch):
    monkeypatch.setattr(RunWorkers, "least_tokens", 1)


def slow_for_one(run: LightRun) -> None:
    """The engine takes its time for the first problem of a step alone."""
    seen: list[int] = []

    def pause_s(prompt: list[int]) -> float:
        seen.append(len(prompt))
        return 0.2 if len(seen) == 1 else 0.0

    run.engine.pause_s = pause_s


def test_a_tree_trains_while_another_is_sampled(tree, tmp_path):
    run = streamed(tree, tmp_path, steps=1)
    slow_for_one(run)
    run.train()
    problems = [{name.partition("#")[0] for name in chunk} for chunk in run.learner.chunks]
    assert problems == [{"s0p1"}, {"s0p0"}]


def test_it_is_one_update_of_what_a_waiting_step_would_train_on(tree, tmp_path):
    waiting = streamed(tree, tmp_path / "a", pipeline={"max_staleness_steps": None})
    streams = streamed(tree, tmp_path / "b")
    rows = [run.train() for run in (waiting, streams)]
    assert not waiting.learner.chunks
    assert streams.engines.versions == waiting.engines.versions == [0, 1, 2]
    for one, other in zip(waiting.learner.updates, streams.learner.updates, strict=True):
        assert {c.completion_id for c in one.completions} == {
            c.completion_id for c in other.completions
        }
    names = {"reward_mean", "layer1/reward_mean", "transition/wrong_to_right"}
    for one, other in zip(*rows, strict=True):
        assert {key: one[key] for key in names & one.keys()} == {
            key: other[key] for key in names & other.keys()
        }
        assert "pipeline/hidden_update_s" in other


def test_recorded_rollouts_hold_what_was_decided(tree, tmp_path):
    run = streamed(tree, tmp_path, steps=1, output={"rollouts_per_step": 2, "report": False})
    run.train()
    kept = read_rollouts(rollout_paths(run.run_dir)[0])
    assert len(kept) == 2 * (4 + 4 * 2)
    assert all(one.advantage is not None for one in kept)
    assert {one.selected for one in kept} == {True, False}


def test_a_learner_that_fails_ends_the_step_with_its_own_error(tree, tmp_path):
    run = streamed(tree, tmp_path)
    slow_for_one(run)

    async def fails(*args: Any) -> Any:
        raise LearnerError("no more memory")

    run.learner.add_trees = fails  # type: ignore[method-assign]
    with pytest.raises(LearnerError, match="no more memory"):
        run.train()
    assert run.learner.policy_version == 0


def test_a_recipe_that_cannot_stream_says_why(tree, tmp_path):
    run = streamed(tree, tmp_path, objective={"updates_per_rollout": 2})
    with pytest.raises(ConfigError, match="updates_per_rollout: 2 goes over the whole step again"):
        run.train()


def test_auto_waits_for_the_step_on_a_cpu(tree, tmp_path):
    run = streamed(tree, tmp_path, pipeline={"max_staleness_steps": "auto"})
    run.train()
    assert not run.learner.chunks


def test_trees_wait_until_they_are_worth_a_pass():
    class Learner:
        given: list[list[str]] = []  # noqa: RUF012

        async def add_trees(self, step: int, completions: Any, parents: Any) -> list[Any]:
            self.given.append([one.completion_id for one in completions])
            return []

    learner: Any = Learner()
    attempt = completion("s0p3#0", 1.0)
    ready = Work(ready=[completion("s0p3#0", 1.0)], parents=[completion("s0p4#0", 0.0)])
    feed = TreeFeed(learner, 0, ready, least_tokens=3)

    async def sampling() -> list[Any]:
        done = []
        for number in range(5):
            tree = [completion(f"s0p{number}#{k}", 1.0) for k in (1, 2)]
            feed.put(CompletionId(0, number), tree)
            done += tree
            await asyncio.sleep(0.01)
        return done

    done = asyncio.run(feed.beside(sampling()))
    assert len(done) == 10
    sizes = [len(names) for names in learner.given]
    assert sizes == [4, 5, 2]  # of two problems, of two and a ready attempt, and what was left
    assert attempt.completion_id in learner.given[1]
