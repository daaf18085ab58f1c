"""The guide's own code, run as a reader would run it, and the numbers that the guide claims."""

from __future__ import annotations

import importlib
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from actors.plugin import RolloutPlugin
from learner.batch import build_batch
from learner.plugin import LearnerPlugin
from mgrpo.check.plugins import plugin_lines
from mgrpo.cli import main
from mgrpo.config.load import load_recipe
from mgrpo.config.pipeline import PipelineConfig
from mgrpo.methods.catalog import plugin_facts
from mgrpo.metrics.log import to_line
from mgrpo.plugin import load_plugins
from mgrpo.report.words import MINUS
from mgrpo.types import Completion, CompletionId, Reward
from tests.repository import REPOSITORY

GUIDE = REPOSITORY / "docs" / "guides" / "write_a_method.md"
LENGTHS_BEFORE_ANSWER = [0, 10, 4, 30]
IS_RIGHT = [True, True, False, False]
ANSWER = "\\boxed7"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The reader's folder, with the files that the guide writes; commands run in it."""
    (tmp_path / "my_method.py").write_text("\n".join(blocks("python")))
    (tmp_path / "brief.yaml").write_text("".join(blocks("yaml")))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    sys.modules.pop("my_method", None)
    importlib.invalidate_caches()


def group() -> list[Completion]:
    """The guide's four attempts; a token is a character, numbered as in ASCII."""
    made = []
    for place, (length, is_right) in enumerate(zip(LENGTHS_BEFORE_ANSWER, IS_RIGHT, strict=True)):
        tokens = [ord(sign) for sign in "w" * length + ANSWER]
        made.append(
            Completion(
                id=CompletionId.named(f"q#{place}"),
                problem_id="q",
                domain="sums",
                layer=1,
                parent_id=None,
                group_key="q",
                prompt=[1],
                token_ids=tokens,
                rollout_logprobs=[-1.0] * len(tokens),
                finish_reason="stop",
                version_spans=((0, 0),),
                text="".join(chr(token) for token in tokens),
                prompt_text="3 + 4?",
                reward=Reward(value=float(is_right), correct=is_right),
            )
        )
    return made


def marked(config) -> list[Completion]:
    (marker,) = load_plugins(config.method_view, RolloutPlugin)
    decode = SimpleNamespace(decode=lambda ids: "".join(chr(token) for token in ids))
    return [marker.annotate(SimpleNamespace(builder=decode), one) for one in group()]


def test_the_recipe_loads_with_both_parts_of_the_readers_file(folder: Path):
    config = load_recipe("brief.yaml")
    assert [type(one).__name__ for one in load_plugins(config.method_view, RolloutPlugin)] == [
        "MarkWorking"
    ]
    assert [type(one).__name__ for one in load_plugins(config.method_view, LearnerPlugin)] == [
        "BriefAnswers"
    ]
    assert [line.status for line in plugin_lines(config.method_view, PipelineConfig())] == ["ok"]


def test_what_stands_before_the_answer_is_marked(folder: Path):
    spans = [one.spans for one in marked(load_recipe("brief.yaml"))]
    assert spans == [{"working": [(0, length)]} for length in LENGTHS_BEFORE_ANSWER]


def test_shaped_rewards_and_advantages_are_those_of_the_guides_table(folder: Path):
    config = load_recipe("brief.yaml", ["layers.solve.advantage.scale_by_std=false"])
    plugins = load_plugins(config.method_view, LearnerPlugin)
    batch = build_batch(marked(config), config.layers, config.objective, plugins=plugins)
    assert batch.shaped_rewards == [1.5, 1.25, 0.0, 0.0]
    advantages = [selection.advantage for selection in batch.selections]
    assert advantages == pytest.approx([0.609375, 0.421875, -0.515625, -0.515625])
    text = GUIDE.read_text(encoding="utf-8")
    rows = re.findall(r"^\| \d \| \w+ \| (\d+) \| \d \| ([\d.]+) \| (\S+) \|$", text, re.MULTILINE)
    assert [int(length) for length, _, _ in rows] == LENGTHS_BEFORE_ANSWER
    assert [float(shaped) for _, shaped, _ in rows] == batch.shaped_rewards
    shown = [float(value.replace(MINUS, "-")) for _, _, value in rows]
    assert shown == [round(value, 2) for value in advantages]


def test_the_z_score_is_the_one_that_the_guide_works_out(folder: Path):
    config = load_recipe("brief.yaml")
    plugins = load_plugins(config.method_view, LearnerPlugin)
    batch = build_batch(marked(config), config.layers, config.objective, plugins=plugins)
    assert batch.selections[0].advantage == pytest.approx((1.5 - 0.6875) / 0.8004 * 0.75, abs=1e-4)
    assert round(batch.selections[0].advantage, 2) == 0.76


def test_explain_shows_these_numbers_for_recorded_rollouts(folder: Path, capsys):
    config = load_recipe("brief.yaml")
    with Path("step-000003.jsonl").open("w") as file:
        file.writelines(to_line(one.to_json()) for one in marked(config))
    assert main(["explain", "step-000003.jsonl", "--recipe", "brief.yaml", "--json"]) == 0
    explained = json.loads(capsys.readouterr().out)
    assert [one["shaped_reward"] for one in explained["completions"]] == [1.5, 1.25, 0.0, 0.0]
    assert explained["step"] == 3


def test_a_misspelt_setting_fails_the_check_in_the_guides_words(folder: Path):
    recipe = Path("brief.yaml")
    recipe.write_text(recipe.read_text().replace("bonus:", "bonnus:"))
    (line,) = plugin_lines(load_recipe("brief.yaml").method_view, PipelineConfig())
    assert line.status == "fail"
    assert f"✗ plugins: {line.detail}" in GUIDE.read_text(encoding="utf-8")


def test_a_limit_that_no_completion_reaches_is_refused(folder: Path):
    text = Path("brief.yaml").read_text().replace("max_tokens: 20", "max_tokens: 65")
    Path("brief.yaml").write_text(text)
    (line,) = plugin_lines(load_recipe("brief.yaml").method_view, PipelineConfig())
    assert "plugins.1.settings.max_tokens = 65: no completion has more than 64" in line.detail


def test_methods_shows_the_readers_docstrings(folder: Path, capsys):
    assert main(["methods", "my_method:BriefAnswers"]) == 0
    text = capsys.readouterr().out
    assert "hooks: shape_rewards, transform_advantages" in text
    assert "bonus: 0.5  Added to the reward of a right answer that nothing stands before." in text
    (marker, brief) = load_recipe("brief.yaml").plugins
    assert plugin_facts(marker.use).hooks == ["annotate"]
    assert plugin_facts(brief.use, given=brief.settings).settings[1].value == 20
