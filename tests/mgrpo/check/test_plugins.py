from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from mgrpo.check import check_recipe
from mgrpo.check.plugins import plugin_lines
from mgrpo.cli import main
from mgrpo.config import RunConfig
from mgrpo.config.yaml_core import dump_yaml

OVERLONG = {"max_tokens": 50, "buffer_tokens": 10}

SPANS_UNREAD = (
    "plugins.0 (step_spans): no part of the recipe reads its output. Add prefix_preference or "
    "span_credit."
)


def lines(tree: dict[str, Any], *entries: dict[str, Any]) -> list[tuple[str, str]]:
    config = RunConfig.model_validate({**tree, "plugins": list(entries)})
    return [
        (line.status, line.detail) for line in plugin_lines(config.method_view, config.pipeline)
    ]


def test_without_plug_ins_there_is_nothing_to_say(tree):
    assert lines(tree) == []


def test_sound_plug_ins_are_named(tree):
    entries = [{"use": "lambda_grpo"}, {"use": "overlong_penalty", "settings": OVERLONG}]
    assert lines(tree, *entries) == [("ok", "lambda_grpo, overlong_penalty")]


def test_what_does_nothing_is_a_warning_beside_them(tree):
    assert lines(tree, {"use": "step_spans"}) == [
        ("ok", "step_spans"),
        ("warn", SPANS_UNREAD),
    ]


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        (
            {"use": "entropy_advantage", "settings": {"clmap": [0.1, 10]}},
            "plugins.0.settings.clmap = [0.1, 10]: there is no such key. Did you mean clamp?",
        ),
        ({"use": "entropy_advantag"}, "is not a plug-in. Did you mean entropy_advantage?"),
        ({"use": "no_such_module:Part"}, "cannot be imported: ModuleNotFoundError"),
        ({"use": "json:JSONDecoder"}, "is not a class that derives from LearnerPlugin"),
        ({"use": "step_spans", "layers": ["solv"]}, "there is no layer 'solv'. Layers: solve,"),
    ],
)
def test_what_cannot_be_loaded_fails_with_its_place_and_reason(tree, entry, expected: str):
    ((status, detail),) = lines(tree, entry)
    assert status == "fail"
    assert expected in detail


def test_every_problem_is_a_line(tree):
    found = lines(tree, {"use": "one"}, {"use": "step_spans"}, {"use": "two"})
    assert [detail[:14] for _, detail in found] == ["plugins.0.use ", "plugins.2.use "]


def test_ws_grpo_without_a_scorer_says_how_to_train_one(tree, monkeypatch, tmp_path: Path):
    monkeypatch.chdir(tmp_path)
    scorer = {"use": "prefix_preference", "settings": {"scorer": "runs/none"}}
    ((status, detail),) = lines(tree, {"use": "step_spans"}, scorer)
    assert status == "fail"
    assert "plugins.1.settings.scorer = runs/none: there is no scorer in this folder" in detail
    assert "mgrpo scorer train" in detail


def test_the_check_reports_it_and_training_does_not_start(
    tree, tiny_model: Path, tmp_path: Path, monkeypatch, capsys
):
    def run_training(*_: Any) -> None:
        raise AssertionError("training started")

    loop = ModuleType("mgrpo.training.run")
    loop.run_training = run_training
    monkeypatch.setitem(sys.modules, "mgrpo.training.run", loop)
    monkeypatch.chdir(tmp_path)
    tree["model"]["path"] = str(tiny_model)
    tree["cluster"] = {"device": "cpu"}
    tree["plugins"] = [{"use": "correction_bonus", "settings": {"alfa": 3}}]
    report = check_recipe(RunConfig.model_validate(tree))
    assert [line.name for line in report.failures] == ["plugins"]
    Path("small.yaml").write_text(dump_yaml(tree))
    assert main(["train", "small.yaml"]) == 2
    assert "Did you mean alpha?" in capsys.readouterr().err
    assert not Path("runs").exists()


def test_a_check_of_pairs_that_cannot_be_imported_is_found_here_too(tree):
    verifier = {"consistency": "no_such_module:agrees"}
    tree["source"] = {"type": "preferences", "verifier": verifier}
    ((status, detail),) = lines(tree, {"use": "dpo"})
    assert status == "fail"
    assert "source.verifier.consistency" in detail and "cannot be" in detail
