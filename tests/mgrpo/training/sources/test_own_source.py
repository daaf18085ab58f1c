"""A user's own source, named in the recipe by its class."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mgrpo.check.plugins import plugin_lines
from mgrpo.config import RunConfig
from mgrpo.config.pipeline import PipelineConfig
from mgrpo.errors import LearnerError
from mgrpo.methods.catalog import plugin_facts
from mgrpo.storage.checkpoints import checkpoints, read_state
from tests.mgrpo.training.light_run import LightRun

MINE = '''
from pydantic import PositiveInt

from mgrpo.config.base import StrictConfig
from mgrpo.training.sources.source import SourcePlugin, Work
from mgrpo.types import Completion


class Settings(StrictConfig):
    """Keys of Again."""

    every_steps: PositiveInt = 2
    """Every so many steps train again on what the step before sampled."""


class Again(SourcePlugin):
    """Trains on a step's completions a second time."""

    Settings = Settings
    kept = ()

    def next(self, step, workers, sums):
        if step % self.settings.every_steps:
            return Work(ready=self.kept)
        return self.inner.next(step, workers, sums)

    def observe(self, step, completions, sums):
        self.kept = [one for one in completions if one.layer == 1]
        self.inner.observe(step, completions, sums)

    def state_dict(self):
        return [one.to_json() for one in self.kept]

    def load_state_dict(self, state):
        self.kept = [Completion.from_json(one) for one in state]
'''


@pytest.fixture
def own_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    (tmp_path / "mine.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    yield f"{tmp_path}/mine.py:Again"


def config(tree: dict[str, Any], use: str, **sections: Any) -> RunConfig:
    source = {"type": use, "every_steps": 2}
    given = {**tree, "source": source, "steps": 4, "checkpoints": {"every_steps": 3}}
    return RunConfig.model_validate({**given, **sections})


def test_it_stands_above_the_others_and_keeps_its_state(tree, tmp_path, own_file):
    run = LightRun(config(tree, own_file), tmp_path / "run")
    run.train()
    first, second, third, fourth = run.learner.updates
    attempts = [one.completion_id for one in first.completions if one.layer == 1]
    assert [one.completion_id for one in second.completions] == attempts
    assert third.completions[0].completion_id.startswith("s2p0#")
    assert len(run.engine.asked) == 2 * (2 + 8)  # two of the four steps sample
    state = read_state(checkpoints(run.run_dir)[0])
    assert len(state["sources"]["plugin/Again"]) == len(fourth.completions)

    resumed = LightRun(config(tree, own_file), tmp_path / "run")
    resumed.train(resume_from=checkpoints(run.run_dir)[0])
    (again,) = resumed.learner.updates
    kept = [one.completion_id for one in fourth.completions]
    assert [one.completion_id for one in again.completions] == kept


def test_an_order_that_samples_by_itself_refuses_its_completions(tree, tmp_path, own_file):
    sequential = config(tree, own_file, objective={"update_order": "sequential"})
    with pytest.raises(LearnerError, match=r"gave 8 completions .* Use update_order: joint"):
        LightRun(sequential, tmp_path / "run").train()


def test_it_is_checked_and_described_like_any_plug_in(tree, own_file):
    (line,) = plugin_lines(config(tree, own_file).method_view, PipelineConfig())
    assert line.status == "ok"
    facts = plugin_facts(own_file)
    assert facts.doc == "Trains on a step's completions a second time."
    assert facts.hooks == ["next", "observe"]
