"""`mgrpo eval` around the engines: what is refused before they start, and what is written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mgrpo.cli import main
from mgrpo.commands import evaluate as evaluate_command
from mgrpo.commands.evaluate_output import Scored
from mgrpo.config import RunConfig
from mgrpo.config.yaml_core import dump_yaml
from mgrpo.evaluation.evaluate import evaluate, evaluation_row
from mgrpo.metrics.log import read_rollouts
from tests.mgrpo.evaluation.test_evaluate import PROBLEMS, rollout

Calls = list[tuple[RunConfig, Path | None]]


@pytest.fixture
def recipe(tree: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipe with held-out problems, in the folder that the commands run in."""
    monkeypatch.chdir(tmp_path)
    tree["data"]["heldout"] = tree["data"]["train"]
    path = tmp_path / "small.yaml"
    path.write_text(dump_yaml(tree))
    return path


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """Scripted engines in the place of real ones; records what was to be evaluated."""
    calls: Calls = []

    def run_evaluation(config: RunConfig, run_dir: Path | None) -> Scored:
        calls.append((config, run_dir))
        evaluation, seconds = evaluate(
            rollout(seed=config.seed), PROBLEMS, config.evaluation, key="eval"
        )
        row = evaluation_row(
            evaluation, step=0, label="eval", seconds=seconds, layers=config.layers
        )
        return Scored(config.model.path, evaluation, row)

    monkeypatch.setattr(evaluate_command, "run_evaluation", run_evaluation)
    return calls


@pytest.fixture
def other_model(tmp_path: Path) -> Path:
    folder = tmp_path / "other"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    return folder


def evaluated(*arguments: str) -> int:
    return main(["eval", "default", "--recipe", "small.yaml", *arguments])


def test_settings_of_the_command_line_reach_the_evaluation(recipe: Path, engines: Calls):
    arguments = ["--decoding", "sampled", "--samples", "4", "--temperature", "0.6"]
    arguments += ["--guidance", "0,1", "--pass-k", "1,4", "--seed", "9", "--problems", "5"]
    assert evaluated(*arguments) == 0
    [(config, run_dir)] = engines
    settings = config.evaluation
    assert (settings.decoding, settings.samples_per_problem, settings.temperature) == (
        "sampled",
        4,
        0.6,
    )
    assert (settings.guidance, settings.ks, settings.max_problems) == ([0, 1], [1, 4], 5)
    assert (config.seed, config.model.path, run_dir) == (9, "default", None)


@pytest.mark.parametrize(("option", "expected"), [([], True), (["--no-feedback"], False)])
def test_feedback_is_read_unless_it_is_switched_off(
    recipe: Path, engines: Calls, option: list[str], expected: bool
):
    told = "extends: small.yaml\nname: told\nlayers: {correct: {guidance: {from: check}}}\n"
    Path("told.yaml").write_text(told)
    assert main(["eval", "default", "--recipe", "told.yaml", *option]) == 0
    [(config, _)] = engines
    assert config.evaluation.feedback is expected


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--decoding", "sampled", "--pass-k", "2"], "pass@2 needs 2 samples"),
        (["--samples", "2"], "greedy decoding gives the same completion"),
        (["--guidance", "0,7"], "layers.1 (correct) has only 7 phrases"),
        (["--guidance", "often"], "is not a choice of phrases"),
        (["--temperature", "0.5"], "no effect with decoding: greedy"),
        (["--decoding", "sampled", "--temperature", "0"], "evaluation.temperature = 0.0"),
        (["--no-feedback"], "no layer of the recipe has guidance: {from: check}"),
        (["--output", "nowhere/out.json"], "there is no folder nowhere"),
        (["--save-completions", "."], "is a folder"),
        (["--against", "no/such/model"], "no/such/model"),
    ],
)
def test_impossible_requests_are_refused_before_engines_start(
    recipe: Path, engines: Calls, capsys, arguments: list[str], expected: str
):
    assert evaluated(*arguments) == 2
    assert engines == []
    message = capsys.readouterr().err
    assert message.startswith("error: ") and expected in message


@pytest.mark.parametrize(
    "arguments",
    [["--guidance", "0,x"], ["--pass-k", "1,,2"], ["--json", "--markdown"], ["--samples", "0"]],
)
def test_what_is_no_argument_shows_the_usage(recipe: Path, capsys, arguments: list[str]):
    with pytest.raises(SystemExit) as ended:
        evaluated(*arguments)
    assert ended.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_a_recipe_without_held_out_problems_is_refused(
    recipe: Path, tree: dict[str, Any], engines: Calls, capsys
):
    del tree["data"]["heldout"]
    recipe.write_text(dump_yaml(tree))
    assert evaluated() == 2
    assert "data.heldout" in capsys.readouterr().err
    assert engines == []


def test_the_default_is_a_table(recipe: Path, engines: Calls, capsys):
    assert evaluated() == 0
    text = capsys.readouterr().out
    assert "First attempt, Acc@t1'" in text and "wrong at turn 1" in text


def test_json_is_one_object_on_standard_output(recipe: Path, engines: Calls, capsys):
    assert evaluated("--json") == 0
    whole = json.loads(capsys.readouterr().out)
    assert (whole["model"], whole["acc"]) == ("default", [0.5, 0.5])


@pytest.mark.parametrize(
    ("name", "check"),
    [
        ("out.json", lambda text: json.loads(text)["acc"] == [0.5, 0.5]),
        ("out.md", lambda text: text.startswith("**default**\n\n| Turn |")),
        ("out.txt", lambda text: "First attempt, Acc@t1'" in text and "|" not in text),
    ],
)
def test_a_file_gets_the_form_of_its_ending(
    recipe: Path, engines: Calls, capsys, name: str, check: Callable[[str], bool]
):
    assert evaluated("--output", name) == 0
    assert check(Path(name).read_text(encoding="utf-8"))
    assert capsys.readouterr().out == ""


def test_two_policies_are_scored_alike_and_compared(
    recipe: Path, engines: Calls, other_model: Path, capsys
):
    assert evaluated("--against", str(other_model), "--json", "--seed", "3") == 0
    (a, _), (b, _) = engines
    assert (a.model.path, b.model.path) == ("default", str(other_model))
    assert a.model_copy(update={"model": b.model}) == b
    whole = json.loads(capsys.readouterr().out)
    assert set(whole) == {"a", "b", "comparison"}
    assert whole["comparison"]["turns"][0]["p_value"] == 1.0  # the script plays both


def test_a_comparison_is_shown_after_both_policies(
    recipe: Path, engines: Calls, other_model: Path, capsys
):
    assert evaluated("--against", str(other_model)) == 0
    assert "A: default against B: " in capsys.readouterr().out
    assert evaluated("--against", str(other_model), "--markdown") == 0
    assert "| exact McNemar |" in capsys.readouterr().out


def test_completions_are_saved_as_rollouts_are(
    recipe: Path, engines: Calls, other_model: Path, capsys
):
    arguments = ["--save-completions", "all.jsonl", "--against", str(other_model)]
    assert evaluated(*arguments, "--json") == 0
    for name in ("all.jsonl", "all.against.jsonl"):
        completions = read_rollouts(Path(name))
        assert len(completions) == 4 + 8
        assert {c.layer for c in completions} == {1, 2}


def test_a_run_is_scored_by_its_own_recipe_and_its_saved_policy(
    recipe: Path, tree: dict[str, Any], engines: Calls, capsys
):
    run = Path("runs/mine")
    (run / "policy").mkdir(parents=True)
    (run / "policy" / "config.json").write_text("{}")
    (run / "config.yaml").write_text(dump_yaml({**tree, "name": "mine"}))
    assert main(["eval", str(run), "--json"]) == 0
    [(config, run_dir)] = engines
    assert (config.name, config.model.path, run_dir) == ("mine", str(run / "policy"), run)

    # As the second policy it is scored by the first one's recipe, and the difference is named.
    tree["layers"][1]["system_prompt"] = "Look again."
    recipe.write_text(dump_yaml(tree))
    assert evaluated("--against", str(run), "--json") == 0
    assert engines[-1][0].layers[1].system_prompt == "Look again."
    assert "was trained by a recipe with other layers" in capsys.readouterr().err


def test_a_run_is_scored_by_a_suite_with_its_own_prompts(
    recipe: Path, tree: dict[str, Any], engines: Calls, capsys
):
    run = Path("runs/mine")
    (run / "policy").mkdir(parents=True)
    (run / "policy" / "config.json").write_text("{}")
    tree["layers"][0]["system_prompt"] = "As in training."
    (run / "config.yaml").write_text(dump_yaml({**tree, "name": "mine"}))
    assert main(["eval", "mine", "--suite", "math500", "evaluation.max_problems=2", "--json"]) == 0
    [(config, run_dir)] = engines
    assert (config.layers[0].system_prompt, run_dir) == ("As in training.", run)
    assert config.data.heldout.path == "HuggingFaceH4/MATH-500"
    assert (config.evaluation.guidance, config.evaluation.max_problems) == ("random", 2)
    shown = capsys.readouterr()
    assert json.loads(shown.out)["guidance"] == "random"
    assert "published: deepseek-ai/DeepSeek-R1-Distill-Qwen-7B 92.8 %" in shown.err

    # A model that is no run gets the prompts that fit every suite.
    assert main(["eval", "default", "--suite", "gpqa", "--json"]) == 0
    assert "Reason step by step" in engines[-1][0].layers[0].system_prompt
    assert main(["eval", "default", "--suite", "gqpa"]) == 2
    assert "Did you mean gpqa?" in capsys.readouterr().err


def test_a_revision_is_of_a_target_of_the_hub_and_never_of_a_rival(
    recipe: Path, engines: Calls, other_model: Path
):
    rival = ["--against", "someone/rival", "model.revision=v2"]
    assert main(["eval", "someone/model", "--recipe", "small.yaml", *rival]) == 0
    assert evaluated("model.revision=v2") == 0
    models = [(config.model.path, config.model.revision) for config, _ in engines]
    assert models == [("someone/model", "v2"), ("someone/rival", None), ("default", None)]
