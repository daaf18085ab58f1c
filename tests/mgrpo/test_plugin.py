"""Plug-ins by name: found, validated, and refused with the reason."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from actors.plugin import RolloutPlugin
from learner.plugin import LearnerPlugin
from mgrpo.config import RunConfig
from mgrpo.config.base import StrictConfig
from mgrpo.config.load import load_recipe
from mgrpo.errors import ConfigError, ConfigProblem
from mgrpo.plugin import Plugin, find_plugin, load_plugins
from mgrpo.registry import declared


class Strength(StrictConfig):
    strength: float = 1.0


class Both(RolloutPlugin, LearnerPlugin):
    """Works in both places."""

    Settings = Strength

    def annotate(self, tools: Any, completion: Any) -> Any:
        return completion


@pytest.fixture(autouse=True)
def own_module(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user's module, importable."""
    module = ModuleType("somebodys_parts")
    module.Both, module.NotOne = Both, dict  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "somebodys_parts", module)


def load(tree: dict[str, Any], *entries: dict[str, Any], kind: type[Plugin] = Plugin) -> list[Any]:
    return load_plugins(RunConfig.model_validate({**tree, "plugins": list(entries)}), kind)


def problems(tree: dict[str, Any], *entries: dict[str, Any]) -> list[ConfigProblem]:
    with pytest.raises(ConfigError) as refused:
        load(tree, *entries)
    return refused.value.problems


def problem(tree: dict[str, Any], use: str, *others: str, **settings: Any) -> ConfigProblem:
    entries = [{"use": use, "settings": settings}, *({"use": other} for other in others)]
    (found,) = problems(tree, *entries)
    return found


def test_each_of_ours_is_a_plugin_that_says_what_it_does() -> None:
    for name in declared("PLUGINS"):
        kind = find_plugin(name)
        assert issubclass(kind, Plugin) and kind.__doc__
        assert issubclass(kind, RolloutPlugin) != issubclass(kind, LearnerPlugin)


def test_they_work_on_all_layers_or_on_those_named(tree):
    everywhere, corrections = load(
        tree, {"use": "step_spans"}, {"use": "step_spans", "layers": ["correct"]}
    )
    assert everywhere.layers == {1, 2} and corrections.layers == {2}


def test_each_place_gets_its_own_kind_in_the_recipes_order(tree):
    entries = [
        {"use": "reflection_span"},
        {"use": "span_credit"},
        {"use": "somebodys_parts:Both", "settings": {"strength": 2}},
        {"use": "step_spans"},
    ]
    names = [type(one).__name__ for one in load(tree, *entries, kind=RolloutPlugin)]
    assert names == ["ReflectionSpan", "Both", "StepSpans"]
    learners = load(tree, *entries, kind=LearnerPlugin)
    assert [type(one).__name__ for one in learners] == ["SpanCredit", "Both"]
    assert learners[1].settings.strength == 2.0


def test_a_class_says_which_hooks_are_its_own():
    assert Both.overrides("annotate", RolloutPlugin)
    assert not Both.overrides("after_sampling", RolloutPlugin)


@pytest.mark.parametrize(
    ("use", "reason"),
    [
        ("entropy_advantag", "Did you mean entropy_advantage?"),
        ("nothing_like_it", "your own is named package.module:Class"),
        ("no_such_module:Part", "No module named 'no_such_module'"),
        ("somebodys_parts:Missing", "cannot be imported"),
        ("somebodys_parts:NotOne", "is not a class that derives"),
    ],
)
def test_a_name_that_is_no_plugin_is_refused(tree, use: str, reason: str):
    (found,) = problems(tree, {"use": use})
    assert (found.path, found.value) == ("plugins.0.use", use)
    assert reason in found.reason


@pytest.mark.parametrize(
    ("layers", "reason"),
    [
        (["solve", "corect"], "there is no layer 'corect'. Layers: solve, correct."),
        ([], "names no layer, so it would do nothing"),
    ],
)
def test_layers_that_the_chain_has_not_are_refused(tree, layers: list[str], reason: str):
    (found,) = problems(tree, {"use": "step_spans", "layers": layers})
    assert found.path == "plugins.0.layers" and reason in found.reason


def test_a_misspelt_setting_is_refused_with_the_nearest(tree):
    found = problem(tree, "step_spans", splt="newline")
    assert found.path == "plugins.0.settings.splt"
    assert found.suggestion == "Did you mean split?"


def test_a_setting_of_the_wrong_kind_is_refused_with_what_would_do(tree):
    found = problem(tree, "step_spans", split="word")
    assert found.path == "plugins.0.settings.split" and "newline" in found.suggestion


def test_every_problem_of_every_entry_is_told_at_once(tree):
    found = problems(tree, {"use": "nothing"}, {"use": "step_spans", "settings": {"a": 1, "b": 2}})
    assert [one.path for one in found] == [
        "plugins.0.use",
        "plugins.1.settings.a",
        "plugins.1.settings.b",
    ]


# --- what ours cannot work with ---


@pytest.mark.parametrize(
    ("settings", "path", "reason"),
    [
        ({"probs": [0.5, 0.5, 0.5]}, "probs", "3 chances that add to 1"),
        ({"probs": [1.5, -0.5, 0.0]}, "probs", "3 chances that add to 1"),
        ({"intervene_rate": 1.5}, "intervene_rate", "between 0 and 1"),
        ({"answer_sentence": "Wrong."}, "answer_sentence", "must contain {answer}"),
        ({"offpolicy": "sft_loss"}, "offpolicy", "needs the plug-in supervised_injections"),
    ],
)
def test_guided_error_correction(tree, settings: dict[str, Any], path: str, reason: str):
    found = problem(tree, "guided_error_correction", **settings)
    assert found.path == f"plugins.0.settings.{path}" and reason in found.reason


def test_supervised_injections_go_with_the_repairs_that_want_them(tree):
    repair = {"use": "guided_error_correction", "settings": {"offpolicy": "sft_loss"}}
    assert len(load(tree, repair, {"use": "supervised_injections"})) == 2


def test_a_ratio_that_stays_one_needs_one_update_per_rollout(tree):
    tree["objective"] = {"updates_per_rollout": 2}
    found = problem(tree, "guided_error_correction", offpolicy="ratio_one")
    assert "would never be clipped" in found.reason
    repair = {"use": "guided_error_correction", "settings": {"offpolicy": "mask_injected"}}
    assert len(load(tree, repair)) == 1


def test_a_bonus_for_corrections_needs_corrections(tree):
    assert len(load(tree, {"use": "correction_bonus"})) == 1
    del tree["layers"][1]
    assert "the chain has none" in problem(tree, "correction_bonus").reason


def test_credit_for_a_span_needs_somebody_who_marks_it(tree):
    found = problem(tree, "span_credit", "entropy_advantage")
    assert found.path == "plugins.0.settings.span" and "no token would train" in found.reason
    for marker in ("reflection_span", "step_spans", "somebodys_parts:Both"):
        assert len(load(tree, {"use": "span_credit"}, {"use": marker})) == 2
    everything = {"use": "span_credit", "settings": {"attribution": "all_tokens"}}
    assert len(load(tree, everything)) == 1


@pytest.mark.parametrize(
    ("settings", "path"),
    [
        ({"detach": False, "entropy_source": "rollout"}, "detach"),
        ({"clamp": [10, 0.1]}, "clamp"),
        ({"clamp": [-1, 1]}, "clamp"),
    ],
)
def test_entropy_advantage(tree, settings: dict[str, Any], path: str):
    assert problem(tree, "entropy_advantage", **settings).path == f"plugins.0.settings.{path}"


def test_a_preference_needs_a_scorer_and_steps(tree, tmp_path: Path):
    found = problems(tree, {"use": "prefix_preference", "settings": {"scorer": "nowhere"}})
    assert [one.path for one in found] == ["plugins.0.settings.scorer", "plugins.0.settings.span"]
    assert "mgrpo scorer train" in found[0].suggestion
    (tmp_path / "config.json").write_text("{}")
    settings = {"scorer": str(tmp_path), "step_range": [6, 3]}
    found = problems(
        tree, {"use": "step_spans"}, {"use": "prefix_preference", "settings": settings}
    )
    assert [one.path for one in found] == ["plugins.1.settings.step_range"]


def test_two_plugins_cannot_both_estimate_the_advantages() -> None:
    config = load_recipe("methods/rloo", ["plugins=[{use: rloo}, {use: gpg}, {use: reinforce}]"])
    with pytest.raises(ConfigError, match=r"plugins\.1\.use = gpg: has estimate_advantages, and"):
        load_plugins(config, Plugin)


def in_phases(tree: dict[str, Any], *temperatures: float) -> RunConfig:
    phases = [
        {"name": f"at {one:g}", "from_step": n, "changes": {"sampling": {"temperature": one}}}
        for n, one in enumerate(temperatures, start=1)
    ]
    tree |= {"steps": 9, "phases": phases, "plugins": [{"use": "greedy_anchor"}]}
    return RunConfig.model_validate(tree)


def test_what_a_plugin_cannot_work_with_in_a_phase_is_refused_before_the_run(tree):
    with pytest.raises(ConfigError) as refused:
        load_plugins(in_phases(tree, 1.0, 0.7), Plugin)
    (found,) = refused.value.problems
    assert found.path == "plugins.0.use"
    assert found.reason.startswith("in phase 'at 0.7' likelihoods at sampling.temperature 0.7")


def test_what_is_wrong_in_every_phase_is_told_once(tree):
    tree["sampling"] = {"temperature": 0.7}
    with pytest.raises(ConfigError) as refused:
        load_plugins(in_phases(tree, 0.7), Plugin)
    assert len(refused.value.problems) == 1
    del tree["sampling"]
    assert len(load_plugins(in_phases(tree, 1.0), Plugin)) == 1
