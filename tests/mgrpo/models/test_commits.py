"""A run's hub models are those of one commit each, which it records and resumes with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mgrpo.config import RunConfig
from mgrpo.config.load import load_recipe
from mgrpo.errors import HubUnreachable, ModelError, RunDirectoryError
from mgrpo.models.commits import at_commits, find_commits, recorded_commits
from mgrpo.models.node_model import driver_model
from mgrpo.training import run
from tests.mgrpo.models.hub_cache import NEW, OLD, publish

POLICY, JUDGE = "someone/policy", "someone/judge"
FILES = {"config.json": b"{}", "tokenizer.json": b"{}"}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MGRPO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    for name in (POLICY, JUDGE):
        publish(tmp_path / "hub", name, FILES, OLD)
    return tmp_path / "hub"


@pytest.fixture
def config() -> RunConfig:
    terms = [{"check": "math_answer"}, {"model": JUDGE}]
    changes = {"model": {"path": POLICY}, "rewards": {"terms": terms}}
    return load_recipe("quickstart", changes=changes)


def commits_of(config: RunConfig) -> dict[str, str]:
    return find_commits(config.model, config.rewards, config.output.storage)


def test_each_hub_model_has_its_commit(hub: Path, config: RunConfig) -> None:
    publish(hub, POLICY, FILES, NEW, "v2")
    assert commits_of(config) == {"model": OLD, "rewards.terms.1": OLD}
    tagged = at_commits(config, {"model": "v2"})
    assert commits_of(tagged)["model"] == NEW
    pinned = at_commits(config, {"model": NEW, "rewards.terms.1": OLD})
    assert (pinned.model.revision, pinned.rewards.terms[1].revision) == (NEW, OLD)
    assert pinned.rewards.terms[0] == config.rewards.terms[0]
    assert commits_of(load_recipe("quickstart")) == {}


def test_a_revision_that_is_not_there_is_named_with_its_key(hub: Path, config: RunConfig) -> None:
    with pytest.raises(HubUnreachable, match=f"The model {POLICY} at v9 is not .* set model.path"):
        commits_of(at_commits(config, {"model": "v9"}))
    with pytest.raises(HubUnreachable, match=r"set rewards\.terms\.1\.model to its folder"):
        commits_of(at_commits(config, {"rewards.terms.1": "v9"}))


@pytest.mark.parametrize("path", ["default", "memory://bucket/model"])
def test_a_model_without_revisions_refuses_one(path: str, config: RunConfig) -> None:
    with pytest.raises(ModelError, match=rf"revision is v2, and {path} .*Remove model\.revision"):
        driver_model(path, config.output.storage, "v2")


class Stopped(Exception):
    """Stands for the rest of a run."""


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[RunConfig]:
    """The recipes that systems would have been started with."""
    found: list[RunConfig] = []

    def start_system(config: RunConfig, **options: Any) -> None:
        found.append(config)
        raise Stopped

    monkeypatch.setattr(run, "start_system", start_system)
    return found


def begin(config: RunConfig, run_dir: Path, **options: Any) -> None:
    with pytest.raises(Stopped):
        run.run_training(config, run_dir, **options)


def test_a_resumed_run_keeps_its_commits_when_the_hub_has_newer_ones(
    hub: Path, config: RunConfig, started: list[RunConfig], tmp_path: Path, monkeypatch
) -> None:
    run_dir = tmp_path / "run"
    begin(config, run_dir)
    found = json.loads((run_dir / "environment.json").read_text())["hub_commits"]
    assert found == recorded_commits(run_dir) == {"model": OLD, "rewards.terms.1": OLD}
    assert load_recipe(run_dir / "config.yaml") == config  # by which a resume compares recipes
    for name in (POLICY, JUDGE):
        publish(hub, name, FILES, NEW)
    monkeypatch.setattr(run, "read_state", lambda folder: {"num_steps": 1})
    begin(config, run_dir, resume_from=run_dir)
    begin(config, tmp_path / "another")
    used = [(one.model.revision, one.rewards.terms[1].revision) for one in started]
    assert used == [(OLD, OLD), (OLD, OLD), (NEW, NEW)]
    assert recorded_commits(run_dir) == found


def test_commits_stay_recorded_where_the_hub_s_models_are_away(
    hub: Path, config: RunConfig, started: list[RunConfig], tmp_path: Path
) -> None:
    begin(config, tmp_path / "run")
    before = recorded_commits(tmp_path / "run")
    hub.rename(tmp_path / "elsewhere")
    with pytest.raises(HubUnreachable):
        run.run_training(config, tmp_path / "run")
    assert recorded_commits(tmp_path / "run") == before
    assert recorded_commits(tmp_path / "no such run") == {}


@pytest.mark.parametrize("text", ["{", "[]", '{"hub_commits": 3}', '{"hub_commits": {"model": 3}}'])
def test_a_damaged_record_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "environment.json").write_text(text)
    with pytest.raises(RunDirectoryError, match=r"environment\.json cannot be read: "):
        recorded_commits(tmp_path)


def test_a_run_of_an_older_version_has_none(tmp_path: Path) -> None:
    (tmp_path / "environment.json").write_text('{"mgrpo": "0.1.0"}')
    assert recorded_commits(tmp_path) == {}
