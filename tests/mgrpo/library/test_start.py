"""`mgrpo.train` up to the loop: the recipe that its arguments make, and what it refuses."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import mgrpo
from mgrpo.config.load import save_recipe
from mgrpo.errors import ConfigError, RunDirectoryError
from mgrpo.library.start import CheckFailed
from tests.mgrpo.models.hub_cache import NEW, OLD, contents, publish

ROWS = [{"question": f"What is {n} + 4?", "answer": str(n + 4)} for n in range(8)]


@pytest.fixture
def trained(monkeypatch, tmp_path: Path) -> list[Any]:
    """Stands in for mgrpo.training.run; the recipes that it is asked to run, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    found: list[Any] = []

    def run_training(config: Any, run_dir: Path, *, resume_from: Path | None = None) -> None:
        asyncio.run(asyncio.sleep(0))  # as sampling does
        found.append(config)
        (run_dir / "metrics.jsonl").write_text('{"step": 0, "layer1/accuracy": 0.5}\n')

    module = ModuleType("mgrpo.training.run")
    module.run_training = run_training
    monkeypatch.setitem(sys.modules, "mgrpo.training.run", module)
    return found


@pytest.fixture
def recipe(tree: dict[str, Any], tiny_model: Path) -> dict[str, Any]:
    tree["model"]["path"] = str(tiny_model)
    tree["cluster"] = {"device": "cpu"}
    return tree


def test_overrides_data_and_reward_become_keys(recipe, trained) -> None:
    def exact(completion: str, problem: Any) -> bool:
        return problem.answer in completion

    run = mgrpo.train(
        recipe,
        data=ROWS[2:],
        heldout=ROWS[:2],
        reward=[exact, {"check": "format", "weight": 0.1}],
        name="own",
        layers={"correct": {"group_size": 3}},
        **{"data.max_prompt_tokens": 200},
    )
    (config,) = trained
    assert (config.name, config.layers[1].group_size) == ("own", 3)
    assert config.data.max_prompt_tokens == 200
    assert config.data.train.path == "runs/own.inputs/train.jsonl"
    assert config.data.heldout.path == "runs/own.inputs/heldout.jsonl"
    assert [term.check for term in config.rewards.terms] == [
        "runs/own.inputs/exact.py:exact",
        "format",
    ]
    assert run.name == "own"
    assert run.metrics().loc[0, "layer1/accuracy"] == 0.5


def test_a_recipe_in_the_call_may_extend_another(trained, tiny_model: Path) -> None:
    mgrpo.train({"extends": "quickstart", "name": "x", "cluster": {"device": "cpu"}}, steps=3)
    assert (trained[0].name, trained[0].steps) == ("x", 3)


def test_a_recipe_in_the_call_needs_no_data_of_its_own(recipe, trained) -> None:
    del recipe["data"]
    mgrpo.train(recipe, data=ROWS, **{"data.max_prompt_tokens": 300})
    assert trained[0].data.train.path == "runs/small.inputs/train.jsonl"


def test_other_data_leaves_the_recipe_s_held_out_problems_out(trained) -> None:
    mgrpo.train("quickstart", data=ROWS, prompts_per_step=4, **{"cluster.device": "cpu"})
    assert trained[0].data.heldout is None


def test_it_trains_inside_an_event_loop_as_in_a_notebook(recipe, trained) -> None:
    async def cell() -> None:
        mgrpo.train(recipe)
        await asyncio.sleep(0)  # the loop around it goes on

    asyncio.run(cell())
    assert len(trained) == 1


def test_new_processes_do_not_run_the_calling_script_and_it_is_as_before(
    recipe, trained, monkeypatch
) -> None:
    from multiprocessing.spawn import get_preparation_data

    main: Any = sys.modules["__main__"]
    before = dict(vars(main))
    seen: list[dict[str, Any]] = []
    inner = sys.modules["mgrpo.training.run"].run_training

    def run_training(*given: Any, **keys: Any) -> None:
        seen.append(get_preparation_data("reward"))
        inner(*given, **keys)

    monkeypatch.setattr(sys.modules["mgrpo.training.run"], "run_training", run_training)
    mgrpo.train(recipe)
    assert not [key for key in seen[0] if key.startswith("init_main")]
    assert vars(main) == before


def test_what_is_wrong_is_an_error_that_says_so(recipe, trained) -> None:
    with pytest.raises(ConfigError, match="stepz"):
        mgrpo.train(recipe, stepz=3)
    with pytest.raises(ConfigError, match="the list has no entry 'third'"):
        mgrpo.train(recipe, layers={"third": {"group_size": 3}})
    with pytest.raises(CheckFailed, match=r"context: .* too few"):
        mgrpo.train(recipe, engines={"max_model_len": 100})
    mgrpo.train(recipe)
    with pytest.raises(RunDirectoryError, match="already holds a run"):
        mgrpo.train(recipe)
    assert len(trained) == 1


def test_a_run_that_was_killed_before_its_first_checkpoint_begins_again(
    recipe, trained, capsys
) -> None:
    run = mgrpo.train(recipe)
    save_recipe(trained[0], run.path / "config.yaml")
    mgrpo.train(recipe)
    assert len(trained) == 2
    assert "begins again: after 1 steps" in capsys.readouterr().out


def test_the_check_before_a_resume_sees_the_model_of_the_run(
    recipe, trained, tiny_model: Path, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("mgrpo.library.start.resume_point", lambda run_dir, config: run_dir)
    publish(tmp_path / "hub", "someone/small", contents(tiny_model), OLD)
    publish(tmp_path / "hub", "someone/small", {"config.json": b"broken"}, NEW)
    recipe["model"]["path"] = "someone/small"
    with pytest.raises(CheckFailed, match=r"config\.json of"):
        mgrpo.train(recipe, name="mine")
    environment = tmp_path / "runs" / "mine" / "environment.json"
    environment.parent.mkdir(parents=True)
    environment.write_text(json.dumps({"hub_commits": {"model": OLD}}))
    mgrpo.train(recipe, name="mine")
    assert [config.model.revision for config in trained] == [None]  # as the recipe is saved
