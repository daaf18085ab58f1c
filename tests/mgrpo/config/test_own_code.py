"""Users' own files are used, whatever they are called, and ours stay ours."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from mgrpo.check import check_recipe
from mgrpo.config.load import load_recipe, save_recipe
from mgrpo.config.own_code import import_own
from mgrpo.config.rewards import CheckTerm, RewardsConfig
from mgrpo.errors import RewardError
from mgrpo.plugin import find_plugin
from mgrpo.rooms import ROOMS, ROOT, CurrentFolderLast
from mgrpo.types import Problem
from rewards.pool import RewardPool
from rewards.registry import load_check

CHECK = "def good(completion, problem):\n    return completion == 'good'\n"
SEVEN = Problem(problem_id="seven", question="3 + 4?", answer="7")


@pytest.fixture(autouse=True)
def paths(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test adds to the path of modules is gone after it."""
    monkeypatch.setattr(sys, "path", list(sys.path))


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's current folder."""
    folder = tmp_path / "mine"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize("name", [*ROOMS[1:], "yaml", "my_checks", "json"])
def test_a_file_of_any_name_in_the_current_folder_is_the_users(mine: Path, name: str):
    (mine / f"{name}.py").write_text(CHECK)
    before = {room: sys.modules.get(room) for room in (*ROOMS, "yaml", "json")}
    assert load_check(f"{name}:good")("good", None) is True
    assert load_check(f"./{name}.py:good")("bad", None) is False
    assert {room: sys.modules.get(room) for room in before} == before


@pytest.mark.parametrize("form", ["rewards:good", "./rewards.py:good", "rewards.py:good"])
def test_reward_processes_use_the_users_file(mine: Path, form: str):
    (mine / "rewards.py").write_text(CHECK)
    config = RewardsConfig(terms=[CheckTerm(check=form)], num_processes=1)
    with RewardPool(config) as pool:
        rewards = pool.score_blocking(SEVEN, ["good", "bad"])
    assert [reward.correct for reward in rewards] == [True, False]


def test_a_file_may_import_its_neighbours_and_define_dataclasses(mine: Path):
    (mine / "sub").mkdir()
    (mine / "sub" / "neighbour.py").write_text("ANSWER = 42\n")
    (mine / "sub" / "part.py").write_text(
        "from __future__ import annotations\nfrom dataclasses import dataclass\n"
        "import neighbour\n\n@dataclass\nclass Point:\n    x: int = neighbour.ANSWER\n"
    )
    assert import_own("sub/part.py").Point().x == 42
    assert import_own("sub/part.py") is import_own(str(mine / "sub" / "part.py"))


def test_a_package_and_a_nested_module_are_found(mine: Path):
    (mine / "learner").mkdir()
    (mine / "learner" / "__init__.py").write_text("from .inner import good\n")
    (mine / "learner" / "inner.py").write_text(CHECK)
    assert load_check("learner:good")("good", None) is True
    assert load_check("learner.inner:good")("good", None) is True


def test_a_module_that_is_found_by_name_keeps_its_name(mine: Path):
    (mine / "checks_of_my_own.py").write_text(CHECK)
    assert import_own("checks_of_my_own").__name__ == "checks_of_my_own"
    assert import_own("json.decoder") is sys.modules["json.decoder"]


def test_a_file_that_breaks_while_it_is_imported_can_be_mended(mine: Path):
    (mine / "rewards.py").write_text("1 / 0\n")
    with pytest.raises(RewardError, match="ZeroDivisionError"):
        load_check("rewards:good")
    (mine / "rewards.py").write_text(CHECK)
    assert load_check("rewards:good")("good", None) is True


def test_a_file_that_is_not_there_is_named(mine: Path):
    with pytest.raises(RewardError, match=r"there is no file .*mine/nothing\.py"):
        load_check("./nothing.py:good")


def test_a_file_with_one_of_our_names_that_is_not_there_is_told_from_our_package(mine: Path):
    with pytest.raises(RewardError, match=r"mgrpo's own package; there is no rewards\.py in"):
        load_check("rewards:good")


def test_a_plug_in_may_be_a_file(mine: Path):
    (mine / "learner.py").write_text(
        "from learner.plugin import LearnerPlugin\n\nclass Mine(LearnerPlugin):\n    pass\n"
    )
    for name in ("learner:Mine", "./learner.py:Mine"):
        assert find_plugin(name).__name__ == "Mine"


def test_files_beside_the_recipe_are_found_from_another_folder(mine: Path, tmp_path: Path, tree):
    beside = tmp_path / "recipes of mine"
    beside.mkdir()
    (beside / "rewards.py").write_text(CHECK)
    tree["rewards"] = {"terms": [{"check": "rewards:good"}, {"check": "./rewards.py:good"}]}
    (beside / "small.yaml").write_text(yaml.safe_dump(tree))
    config = load_recipe(beside / "small.yaml")
    for term in config.rewards.terms:
        assert load_check(term.check)("good", None) is True
    save_recipe(config, mine / "saved.yaml")  # as a run's own recipe is, for its resumption
    assert load_recipe(mine / "saved.yaml").rewards == config.rewards
    (mine / "rewards.py").write_text(CHECK.replace("==", "!="))  # the current folder comes first
    (first, _) = load_recipe(beside / "small.yaml").rewards.terms
    assert load_check(first.check)("good", None) is False


# --- whole commands, in a folder whose files are called like our packages ---


def run_here(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120
    )


def test_python_m_works_beside_files_with_our_names(mine: Path):
    for name in (*ROOMS[1:], "yaml", "datasets"):
        (mine / f"{name}.py").write_text("raise RuntimeError('the wrong file')\n")
    done = run_here(mine, "-m", "mgrpo", "check", "nothing_of_this_name")
    assert (done.returncode, "no such recipe" in done.stderr) == (2, True), done.stderr
    script = (
        "from mgrpo.config.rewards import RewardsConfig\n"
        "from mgrpo.types import Problem\n"
        "from rewards.pool import RewardPool\n"
        "if __name__ == '__main__':\n"
        "    with RewardPool(RewardsConfig(num_processes=1)) as pool:\n"
        "        problem = Problem(problem_id='', question='', answer='7')\n"
        "        print(pool.score_blocking(problem, ['\\\\boxed{7}'])[0].value)\n"
    )
    (mine / "script.py").write_text(script)
    (mine / "datasets.py").unlink()  # a script of one's own has its folder first, as Python does
    (mine / "yaml.py").unlink()
    done = run_here(mine, "script.py")
    assert done.stdout == "1.0\n", done.stderr


def test_the_check_of_a_recipe_uses_the_users_rewards(mine: Path, tree, tiny_model: Path):
    (mine / "rewards.py").write_text(
        "def one(completion, problem):\n    return '5' in completion\n"
    )
    tree["model"]["path"] = str(tiny_model)
    tree["cluster"] = {"device": "cpu"}
    tree["rewards"] = {"terms": [{"check": "rewards:one"}]}
    (mine / "mine.yaml").write_text(yaml.safe_dump(tree))
    report = check_recipe(load_recipe(mine / "mine.yaml"))
    assert report.failures == []
    assert "1 for 'The result is \\boxed{5}', 0 for" in "".join(
        line.detail for line in report.lines if line.name == "rewards"
    )


def test_a_worker_of_ray_puts_the_current_folder_last(mine: Path, monkeypatch):
    monkeypatch.setattr(sys, "path", [str(mine), "a", "b"])
    CurrentFolderLast.find_spec("numpy")
    assert sys.path == [str(mine), "a", "b"]
    CurrentFolderLast.find_spec("cluster")
    assert sys.path == ["a", "b", str(mine)]
