"""A run begins with another one's policy."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from mgrpo.config.load import load_recipe, save_recipe
from mgrpo.errors import ModelError, RunDirectoryError
from mgrpo.library.begin_from import begun_from
from mgrpo.models.catalog import SHIPPED_DEFAULT_DIR
from mgrpo.storage.policies import BestRecord, stepped_policy, write_best


@pytest.fixture
def run_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run of the quickstart under runs/, without a policy so far."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "runs" / "wide"
    folder.mkdir(parents=True)
    save_recipe(load_recipe("quickstart"), folder / "config.yaml")
    (folder / "metrics.jsonl").write_text('{"step": 0}\n{"step": 1}\n')
    return folder


def policy(folder: Path) -> Path:
    return Path(shutil.copytree(SHIPPED_DEFAULT_DIR, folder))


def begun(run: str | Path, *overrides: str):
    return begun_from(run, load_recipe("quickstart", ["name=next", *overrides])).model


def test_the_best_policy_comes_before_the_last_and_that_before_those_meanwhile(run_dir):
    middle = policy(stepped_policy(run_dir, 1))
    assert begun("wide").path == str(middle)
    assert begun("wide").from_run == "wide, policies/step-000001 after step 1"
    last = policy(run_dir / "policy")
    assert begun("wide").path == str(last)
    assert begun(run_dir).from_run == "wide, policy after step 2"
    best = policy(run_dir / "policy-best")
    write_best(best, BestRecord(1, "heldout/layer1/accuracy", "max", 0.5))
    assert begun("wide").path == str(best)
    assert begun("wide").from_run == "wide, policy-best after step 1"
    assert begun(run_dir / "policy").path == str(last)


def test_the_revision_of_the_recipe_s_model_is_not_the_policy_s(run_dir, monkeypatch):
    policy(run_dir / "policy")
    monkeypatch.setattr("mgrpo.library.begin_from.refuse_other_tokenizer", lambda *given: None)
    assert begun("wide", "model.path=someone/model", "model.revision=v2").revision is None


def test_a_run_without_a_policy_says_how_to_get_one(run_dir):
    with pytest.raises(ModelError, match="has saved no policy yet"):
        begun("wide")


def test_a_model_of_no_run_is_named_by_its_path(run_dir, tmp_path):
    model = policy(tmp_path / "some" / "where" / "model")
    with pytest.raises(RunDirectoryError, match=r"model\.path="):
        begun(model)


def test_a_run_cannot_take_the_folder_of_the_one_that_it_begins_from(run_dir):
    policy(run_dir / "policy")
    with pytest.raises(RunDirectoryError, match="Give it another name"):
        begun("wide", "name=wide")


def test_a_recipe_for_another_tokenizer_is_refused(run_dir, tiny_model):
    policy(run_dir / "policy")
    with pytest.raises(ModelError, match="has another vocabulary and chat template than"):
        begun("wide", f"model.path={tiny_model}")


def test_a_recipe_for_another_model_with_the_same_tokenizer_is_accepted(run_dir, tmp_path):
    policy(run_dir / "policy")
    other = policy(tmp_path / "other")
    assert begun("wide", f"model.path={other}").path == str(run_dir / "policy")
