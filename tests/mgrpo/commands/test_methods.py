from __future__ import annotations

import inspect
import json
from pathlib import Path

import pytest

from mgrpo.cli import main
from mgrpo.methods.catalog import (
    GROUPS,
    all_methods,
    first_sentence,
    leading_comment,
    method_files,
    plugin_facts,
)
from mgrpo.plugin import find_plugin
from mgrpo.registry import declared

RECIPES = sorted(method_files())


@pytest.fixture
def own_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one method of the user's own; commands run in it."""
    folder = tmp_path / "recipes" / "methods"
    folder.mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    return folder / "mine.yaml"


def output_of(capsys, *args: str) -> str:
    assert main(["methods", *args]) == 0
    return capsys.readouterr().out


def line_of(text: str, name: str) -> str:
    """The line of a list that begins with this name."""
    (line,) = [one for one in text.splitlines() if one.split()[:1] == [name]]
    return line


def test_every_recipe_of_the_folder_is_a_line_with_its_idea_name_and_paper(capsys):
    text = output_of(capsys)
    for method in all_methods():
        line = line_of(text, method.id)
        assert method.changes in line and method.name in line and method.paper in line
    assert {method.id for method in all_methods()} == set(RECIPES)


def test_methods_are_listed_by_what_they_change(capsys):
    groups = [block.splitlines() for block in output_of(capsys).split("\n\n")]
    named = {title: {line.split()[0] for line in lines} for title, *lines in groups}
    assert named[GROUPS["plain"]] == {"grpo"}
    assert {"mgrpo", "score", "scrpo"} <= named[GROUPS["chain"]]
    assert {"dapo", "robust_sampler"} <= named[GROUPS["problems"]]
    assert {"lead", "ws_grpo"} <= named[GROUPS["rewards"]]
    assert {"rloo", "edge_grpo"} <= named[GROUPS["advantages"]]
    assert {"gspo", "dr_grpo", "tis"} <= named[GROUPS["losses"]]


def test_a_method_whose_model_is_not_trained_yet_is_listed_and_says_so(capsys):
    assert "a preference model" in line_of(output_of(capsys), "ws_grpo")
    text = output_of(capsys, "ws_grpo")
    assert "Before it can train" in text
    assert "there is no scorer in this folder" in text


def test_plug_ins_that_no_method_uses_are_listed_below(capsys):
    used = {plugin.use for method in all_methods() for plugin in method.plugins}
    _, _, below = output_of(capsys).partition("Plug-ins that none of these uses")
    for name in declared("PLUGINS"):
        assert (f"  {name} " in below) == (name not in used)


def test_seams_are_the_keys_hooks_and_phases_that_a_method_has_of_its_own():
    by_id = {method.id: method for method in all_methods()}
    assert by_id["grpo"].seams == {}
    assert by_id["igrpo"].seams == {
        "chain": ["solve", "correct"],
        "layers": ["loss_weight", "parents", "select", "guidance.phrases"],
    }
    score = by_id["score"].seams
    assert score["plugins"] == ["correction_bonus (shape_rewards)"]
    assert score["phases"] == ["both turns (from step 15)"]
    assert score["objective"] == ["kl.estimator"]


def test_a_method_is_explained_with_values_defaults_meanings_and_command(capsys):
    text = output_of(capsys, "score")
    assert text.startswith("score · SCoRe · arXiv 2409.12917\n")
    assert "of which the first trains the second turn alone" in text
    assert "\nPage:   mgrpo/methods/score/README.md\n" in text
    assert "layers.solve.kl_weight: 0.1 (default: null)  This layer's factor on the KL" in text
    assert "learner.learning_rate: 5e-05 (default: 1e-06)" in text
    assert "alpha: 10  Factor on what a correction gained over its attempt." in text
    assert "Pays a correction for what it changed" in text
    assert "Phase from step 15: both turns\n  layers.solve.advantage: raw_reward" in text
    assert text.endswith("Train:  mgrpo train methods/score\n")


def test_a_value_that_a_recipe_sets_stands_beside_its_default(capsys):
    text = output_of(capsys, "ws_grpo")
    assert "split: sentence (default: newline)" in text
    assert "scorer: runs/prefix-scorer (needed)" in text


def test_a_plug_in_can_be_asked_for_alone(capsys):
    text = output_of(capsys, "entropy_advantage")
    assert text.startswith("Plug-in entropy_advantage\n")
    assert "measurements: entropies" in text
    assert "transform_advantages, weigh_entropy" in text


def test_json_holds_all_of_it(capsys):
    whole = json.loads(output_of(capsys, "--json"))
    assert sorted(method["id"] for method in whole["methods"]) == RECIPES
    one = json.loads(output_of(capsys, "edge_grpo", "--json"))
    assert one == next(method for method in whole["methods"] if method["id"] == "edge_grpo")
    assert [plugin["use"] for plugin in one["plugins"]] == [
        "guided_error_correction",
        "entropy_advantage",
    ]
    assert one["plugins"][1]["requires"] == ["entropies"]


def test_an_unknown_name_is_refused_with_what_comes_near(capsys):
    assert main(["methods", "igrp"]) == 2
    assert "Did you mean igrpo" in capsys.readouterr().err
    assert main(["methods", "no_module:Part"]) == 2
    assert "cannot be imported" in capsys.readouterr().err


def test_a_users_own_method_stands_beside_ours(own_recipe: Path, capsys):
    own_recipe.write_text("# Mine: twice as many. And more.\nextends: grpo.yaml\nmethod: Mine\n")
    assert set(method_files()) == {*RECIPES, "mine"}
    text = output_of(capsys)
    assert line_of(text, "mine").split(maxsplit=1)[1].startswith("twice as many. [Mine, ")


def test_a_recipe_that_cannot_be_read_is_listed_with_its_fault(own_recipe: Path, capsys):
    own_recipe.write_text("extends: grpo.yaml\nstepps: 3\n")
    assert "cannot be read" in line_of(output_of(capsys), "mine")


def test_a_plug_in_that_is_not_there_does_not_hide_the_method(own_recipe: Path, capsys):
    own_recipe.write_text("# Mine.\nextends: grpo.yaml\nplugins: [{use: entropy_advantag}]\n")
    assert "Mine." in line_of(output_of(capsys), "mine")
    assert "Did you mean entropy_advantage?" in output_of(capsys, "mine")


def test_the_sentence_leaves_commands_and_the_methods_name_out():
    comment = leading_comment("# XY: does a\n# thing. Then more.\n#   run it\nname: x\n# later\n")
    assert comment == "XY: does a\nthing. Then more.\n  run it"
    assert first_sentence(comment, "XY") == "does a thing."
    assert first_sentence("Dr. XY: does a thing. Then more.", "Dr. XY") == "does a thing."


def test_every_method_of_ours_has_a_sentence():
    assert [one.id for one in all_methods() if len(one.changes.split()) < 4] == []


@pytest.mark.parametrize("name", declared("PLUGINS"))
def test_every_plug_in_of_ours_says_what_it_does_and_has_a_hook(name: str):
    facts = plugin_facts(name)
    assert facts.fault == ""
    assert facts.doc == inspect.cleandoc(vars(find_plugin(name))["__doc__"])  # not inherited
    assert facts.hooks
