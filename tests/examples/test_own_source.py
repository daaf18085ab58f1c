"""The example of a source: what it asks again, when, and after a resume."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mgrpo.config import RunConfig
from mgrpo.config.load import load_recipe
from mgrpo.storage.checkpoints import checkpoints
from tests.contracts.sources import ROOT
from tests.mgrpo.training.light_run import PROBLEMS, LightRun

EXAMPLE = ROOT / "examples" / "own_source" / "second_chance.yaml"


def recipe(tmp_path: Path) -> RunConfig:
    config = load_recipe(
        EXAMPLE,
        ["steps=6", "prompts_per_step=2", "layers.solve.group_size=3", "data.heldout=null"],
    )
    return config.model_copy(
        update={"checkpoints": config.checkpoints.model_copy(update={"every_steps": 3, "keep": 9})}
    )


def only_the_first_is_solved(prompt: str, index: int) -> str:
    return "0"


def asked(run: LightRun) -> list[list[str]]:
    return [
        list(dict.fromkeys(one.problem_id for one in update.completions))
        for update in run.learner.updates
    ]


def test_unsolved_problems_come_back_and_solved_ones_do_not(tmp_path: Path) -> None:
    run = LightRun(recipe(tmp_path), tmp_path / "run", only_the_first_is_solved)
    rows = run.train()
    steps = asked(run)
    assert set(steps[0] + steps[1]) == {one.problem_id for one in PROBLEMS}
    for number, names in enumerate(steps[:4]):
        again = [name for name in names if name != "p0"]
        assert all(name in steps[number + 2] for name in again)
    assert [row["second_chance/asked_again"] for row in rows[:2]] == [0, 0]
    unsolved = [sum(name != "p0" for name in names) for names in steps]
    assert [row["second_chance/asked_again"] for row in rows[2:]] == unsolved[:4]


def test_a_resumed_run_asks_the_same(tmp_path: Path) -> None:
    whole = LightRun(recipe(tmp_path), tmp_path / "run", only_the_first_is_solved)
    whole.train()
    cut = LightRun(recipe(tmp_path), tmp_path / "run", only_the_first_is_solved)
    cut.train(resume_from=checkpoints(whole.run_dir)[0])
    assert asked(cut) == asked(whole)[3:]


def test_the_page_names_every_method_of_the_class() -> None:
    page = (EXAMPLE.parent / "README.md").read_text(encoding="utf-8")
    source = (EXAMPLE.parent / "second_chance.py").read_text(encoding="utf-8")
    named: Any = set(re.findall(r"`(\w+)`", page))
    assert set(re.findall(r"    def (\w+)\(", source)) <= named
