"""`mgrpo init`: recipes that pass the check."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mgrpo.cli import main
from mgrpo.config.load import load_recipe


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def said(capsys) -> str:
    captured = capsys.readouterr()
    return captured.out + captured.err


def test_from_nothing_it_writes_a_task_that_passes_the_check(capsys) -> None:
    assert main(["init", "sums"]) == 0
    names = {"sums.yaml", "data.jsonl", "heldout.jsonl", "reward.py", "mgrpo.schema.json"}
    assert {file.name for file in Path().iterdir()} == names
    first = Path("sums.yaml").read_text().splitlines()[0]
    assert first == "# yaml-language-server: $schema=mgrpo.schema.json"
    assert main(["check", "sums", "cluster.device=cpu"]) == 0
    text = said(capsys)
    assert "mgrpo train sums" in text
    assert "No fault found." in text


@pytest.mark.parametrize(
    ("rows", "question", "check"),
    [
        ([{"problem": "3 + 4?", "solution": "so #### 7"}, {"problem": "1?", "solution": "#### 1"}],
         "problem", "math_answer"),
        ([{"prompt": "Capital of Peru?", "meta": {"answer": "Lima"}}], "prompt", None),
        ([{"prompt": "Capital of Peru?", "answer": "Lima"}], "prompt", "./reward.py:exact"),
    ],
)  # fmt: skip
def test_own_data_gets_its_columns_and_a_check(rows, question, check, capsys) -> None:
    Path("own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = [] if check else ["--answer", "meta.answer"]
    assert main(["init", "mine", "--data", "own.jsonl", *options]) == 0
    config = load_recipe("mine")
    assert config.data.train.question_field == question
    assert config.rewards.terms[0].check == (check or "./reward.py:exact")
    overrides = ["prompts_per_step=1", "cluster.device=cpu"]
    assert main(["check", "mine", *overrides]) == 0, said(capsys)


def test_columns_without_a_usual_name_are_asked_for(capsys) -> None:
    Path("own.csv").write_text("frage,antwort\nWas ist 3 + 4?,7\n")
    assert main(["init", "mine", "--data", "own.csv"]) == 2
    assert "--question. Columns: frage, antwort" in said(capsys)
    command = ["init", "--data", "own.csv", "--question", "frage", "--answer", "antwort"]
    assert main(command) == 0
    assert load_recipe("own").name == "own"  # the file's name, where none is given


def test_nothing_is_written_over(capsys) -> None:
    Path("reward.py").write_text("mine = 1\n")
    assert main(["init", "sums"]) == 2
    assert "reward.py: would be written over" in said(capsys)
    assert [file.name for file in Path().iterdir()] == ["reward.py"]


@pytest.mark.parametrize(
    "argv",
    [["init", "../up"], ["init", "x", "--question", "q"], ["init"], ["init", "--data", "*.csv"]],
)
def test_arguments_that_cannot_be_are_refused(argv: list[str], capsys) -> None:
    assert main(argv) == 2
    assert not list(Path().iterdir())


def test_a_reward_of_ones_own_is_the_recipes_check(capsys) -> None:
    Path("own.jsonl").write_text(json.dumps({"prompt": "3 + 4?", "label": {"value": 7}}) + "\n")
    Path("judge.py").write_text("def right(completion, problem):\n    return True\n")
    command = ["init", "mine", "--data", "own.jsonl", "--answer", "label.value"]
    assert main([*command, "--reward", "judge.py:wrong-name"]) == 2
    assert main([*command, "--reward", "no.py:right"]) == 2
    assert "names no function of a file here" in said(capsys)
    assert main([*command, "--reward", "judge.py:right"]) == 0
    assert load_recipe("mine").rewards.terms[0].check == "./judge.py:right"
    assert load_recipe("mine").layers[0].system_prompt == ""
