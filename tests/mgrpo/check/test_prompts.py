"""What `mgrpo check` says of a chat template, its prompts, and where completions end."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from mgrpo.check.model import look_at_model
from mgrpo.config import RunConfig
from mgrpo.data.problems import LoadedData
from mgrpo.findings import CheckLine
from mgrpo.models.catalog import SHIPPED_DEFAULT_DIR
from mgrpo.types import Problem

PROBLEM = Problem(problem_id="1", question="What is 3 + 4?", answer="7")
TURNS = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + "
    "'<|im_end|>\\n' }}{% endfor %}"
)
HEAD = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
OPENED = HEAD.replace("assistant\\n", "assistant\\n<think>\\n")
SILENT = OPENED.replace("<think>\\n", "<think>\\n\\n</think>\\n\\n")
THINK = {"terms": [{"check": "math_answer"}, {"check": "format", "settings": {"think_tags": True}}]}


@pytest.fixture
def lines(tree: dict[str, Any], tmp_path: Path) -> Any:
    """The check's lines for the shipped model with another template."""

    def of(template: str = TURNS + HEAD, **keys: Any) -> list[CheckLine]:
        folder = tmp_path / "model"
        if not folder.is_dir():
            shutil.copytree(SHIPPED_DEFAULT_DIR, folder)
        (folder / "chat_template.jinja").write_text(template)
        tree["model"] = {"path": str(folder), **keys.pop("model", {})}
        config = RunConfig.model_validate({**tree, **keys})
        return look_at_model(config, {"data.train": LoadedData(problems=[PROBLEM])})[0]

    return of


def of(found: list[CheckLine], name: str) -> tuple[str, str]:
    """(status, detail) of the only line of a name."""
    (line,) = [line for line in found if line.name == name]
    return line.status, line.detail


def test_a_plain_template_passes_and_the_end_of_turns_is_shown(lines) -> None:
    found = lines()
    assert {line.status for line in found} == {"ok"}
    assert of(found, "stop tokens") == ("ok", "turns end with <|im_end|> (2)")
    assert not any(line.name == "template" for line in found)


def test_ends_that_only_other_files_list_are_shown_beside_the_templates(lines, tmp_path) -> None:
    lines()
    (tmp_path / "model" / "generation_config.json").write_text('{"eos_token_id": [0, 7]}')
    status, detail = of(lines(), "stop tokens")
    assert status == "ok"
    assert detail.startswith("turns end with <|im_end|> (2); completions also end with <|pad|> (0)")


def test_turns_that_end_in_plain_text_are_a_warning(lines) -> None:
    status, detail = of(lines(TURNS.replace("<|im_end|>", "\\n###") + HEAD), "stop tokens")
    assert status == "warn"
    assert "model.stop_tokens" in detail


def test_a_recipes_own_stop_tokens_are_shown(lines) -> None:
    found = lines(model={"stop_tokens": ["<|im_start|>"]})
    assert of(found, "stop tokens")[1].startswith("<|im_start|> (1), <|im_end|> (2)")


def test_a_template_that_opens_the_thought_is_said(lines) -> None:
    status, detail = of(lines(TURNS + OPENED, rewards=THINK), "template")
    assert status == "ok"
    assert "'<think>\\n'" in detail


def test_a_users_own_check_is_warned_of_an_opened_thought(lines) -> None:
    rewards = {"terms": [{"check": "my_rewards:tags"}]}
    status, detail = of(lines(TURNS + OPENED, rewards=rewards), "template")
    assert status == "warn"
    assert "my_rewards:tags does not find that in the completion" in detail


def test_paying_for_tags_that_the_prompt_writes_is_a_warning(lines) -> None:
    found = lines(TURNS + SILENT, rewards=THINK)
    assert ("warn", "template") in {(line.status, line.name) for line in found}
    # As DeepSeek-V3.1 without thinking: every turn begins behind a thought that never was.
    ended = TURNS.replace(
        "m['content']", "('</think>' if m['role'] == 'assistant' else '') + m['content']"
    )
    status, detail = of(
        lines(ended + HEAD.replace("\\n' }}", "\\n</think>' }}"), rewards=THINK), "template"
    )
    assert status == "warn"
    assert "already close the thinking block" in detail


def test_tags_that_no_check_gets_to_read_are_refused(lines, tmp_path) -> None:
    from transformers import AutoTokenizer

    lines()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    tokenizer.add_special_tokens({"pad_token": "</think>"})
    tokenizer.save_pretrained(tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    found = [line for line in lines(rewards=THINK) if line.name == "template"]
    assert config["vocab_size"] == 512
    assert [line.status for line in found] == ["fail"]
    assert "</think>" in found[0].detail


def test_arguments_of_the_template_reach_the_prompts(lines) -> None:
    template = TURNS + "{% if not thinking %}" + SILENT + "{% else %}" + HEAD + "{% endif %}"
    assert any(line.status == "warn" for line in lines(template, rewards=THINK))
    found = lines(template, rewards=THINK, model={"chat_template_kwargs": {"thinking": True}})
    assert not any(line.name == "template" for line in found)


def test_an_argument_that_the_template_does_not_use_is_refused(lines) -> None:
    found = lines(model={"chat_template_kwargs": {"enable_thinkin": False}})
    status, detail = of(found, "model")
    assert status == "fail"
    assert "'enable_thinkin'" in detail


def test_a_template_that_loses_the_question_is_refused(lines) -> None:
    status, detail = of(lines("{{ '<|im_start|>user\\n<|im_end|>\\n' }}" + HEAD), "prompts")
    assert status == "fail"
    assert "drops or changes the question" in detail


def test_a_template_without_a_generation_prompt_is_refused(lines) -> None:
    status, detail = of(lines(TURNS), "prompts")
    assert status == "fail"
    assert "no generation prompt" in detail
    assert "'<|im_start|>assistant'" in detail


def test_a_template_that_refuses_a_system_turn_says_what_to_set(lines) -> None:
    refusal = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    )
    status, detail = of(lines(refusal + TURNS + HEAD), "prompts")
    assert status == "fail"
    assert 'system_prompt: ""' in detail


def test_todays_date_in_the_prompt_is_a_warning_until_it_is_given(lines) -> None:
    dated = "{{ date if date is defined else strftime_now('%d %b %Y') }}" + TURNS + HEAD
    status, detail = of(lines(dated), "template")
    assert status == "warn"
    assert "today's date" in detail
    found = lines(dated, model={"chat_template_kwargs": {"date": "1 May 2026"}})
    assert not any(line.name == "template" for line in found)


def test_a_first_token_that_stands_twice_is_refused(lines, tmp_path) -> None:
    lines()
    file = tmp_path / "model" / "tokenizer_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "bos_token": "<|pad|>"}))
    assert not any(line.status == "fail" for line in lines("{{ bos_token }}" + TURNS + HEAD))
    status, detail = of(lines("{{ bos_token + bos_token }}" + TURNS + HEAD), "template")
    assert status == "fail"
    assert "<|pad|> twice" in detail
