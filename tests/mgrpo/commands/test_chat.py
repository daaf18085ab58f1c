"""Questions go through the turns of a run's policy as they do in training."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import pytest

from actors.templates import PromptBuilder
from mgrpo.cli import main, parse
from mgrpo.commands.chat import exchange, shown
from mgrpo.commands.policy_arguments import refuse_unknown_phrase
from mgrpo.config.load import load_recipe, save_recipe
from mgrpo.errors import ConfigError
from mgrpo.models.catalog import SHIPPED_DEFAULT_DIR
from mgrpo.models.turns import Asked, Turns, asked_in, final_answer
from tests.actors.byte_tokenizer import END, ByteTokenizer

TOKENIZER = ByteTokenizer()


def turns(*overrides: str) -> Turns:
    layers = load_recipe("quickstart", overrides).layers
    return Turns(PromptBuilder(TOKENIZER), layers)


def test_a_correction_reads_the_attempts_own_tokens_and_the_phrase():
    read: list[str] = []

    def write(asked: Asked) -> list[int]:
        read.append(TOKENIZER.decode(asked.prompt_ids))
        return [*TOKENIZER.encode(f"answer {len(read)}"), END]

    found = exchange(turns(), write, "What is 1 + 2?", 1)
    assert [turn.text for turn in found.turns] == ["answer 1", "answer 2"]
    phrase = found.turns[1].asked.guidance
    assert "What is 1 + 2?" in read[0] and "answer 1" not in read[0]
    assert f"answer 1\n{phrase}" in read[1]
    assert shown(found).startswith("[solve]\nanswer 1\n\n[correct · ")
    assert found.to_json()["turns"][1]["guidance"] == phrase


@pytest.mark.parametrize(
    ("verdict", "layers", "final"),
    [
        ("Yes, it stands.", ["solve", "verify"], "answer 1"),
        ("30, not 31.", ["solve", "verify", "correct"], "answer 3"),
        ("Hm.", ["solve", "verify", "correct"], "answer 3"),
    ],
)
def test_what_the_policy_s_verdict_accepts_is_its_answer(
    verdict: str, layers: list[str], final: str
):
    chain = Turns(PromptBuilder(TOKENIZER), load_recipe("methods/pag").layers)
    asked: list[str] = []

    def write(one: Asked) -> list[int]:
        asked.append(one.layer.name)
        text = verdict if one.layer.name == "verify" else f"answer {len(asked)}"
        return [*TOKENIZER.encode(text), END]

    found = exchange(chain, write, "What is 1 + 2?", 0)
    assert asked == layers
    assert final_answer(found.turns).text == final


def test_an_answer_that_runs_out_of_tokens_is_marked():
    short = turns("layers.solve.max_completion_tokens=3")
    asked = short.first(asked_in("What?"))
    assert short.answered(asked, TOKENIZER.encode("abc")).is_cut
    assert not short.answered(asked, [*TOKENIZER.encode("ab"), END]).is_cut


def test_earlier_turns_stand_before_the_question():
    problem = asked_in("And?", [{"role": "system", "content": "Be brief."}])
    prompt = TOKENIZER.decode(turns().first(problem).prompt_ids)
    assert prompt.index("Be brief.") < prompt.index("And?")


@pytest.mark.parametrize("guidance", [7, -1])
def test_an_unknown_guidance_phrase_is_refused(guidance):
    with pytest.raises(ConfigError, match="Valid: 0 to 6"):
        refuse_unknown_phrase(guidance, 7)


def test_a_temperature_below_0_is_refused(capsys):
    with pytest.raises(SystemExit):
        parse(["chat", "quickstart", "--temperature", "-1"])
    assert "must not be below 0, and is -1" in capsys.readouterr().err


def test_a_real_policy_answers_in_a_pipe(tmp_path: Path, monkeypatch, capsys):
    run_dir = tmp_path / "runs" / "wide"
    run_dir.mkdir(parents=True)
    save_recipe(load_recipe("quickstart"), run_dir / "config.yaml")
    shutil.copytree(SHIPPED_DEFAULT_DIR, run_dir / "policy")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", io.StringIO("What is 12 + 30?\n\nWhat is 20 + 31?\n"))
    assert main(["chat", "wide", "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["question"] for row in rows] == ["What is 12 + 30?", "What is 20 + 31?"]
    assert all("boxed" in turn["text"] for row in rows for turn in row["turns"])
    assert main(["chat", str(run_dir / "policy"), "--once", "What is 12 + 30?"]) == 0
    assert rows[0]["turns"][1]["text"] in capsys.readouterr().out  # greedy: the same again
