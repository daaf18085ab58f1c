"""Plug-ins by name: found, validated, and refused with the reason."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from pydantic import ValidationError

from actors.plugin import RolloutPlugin
from learner.plugin import LearnerPlugin
from mgrpo.config import RunConfig
from mgrpo.config.base import StrictConfig
from mgrpo.errors import ConfigError, ConfigFault
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
    return load_plugins(
        RunConfig.model_validate({**tree, "plugins": list(entries)}).method_view, kind
    )


def faults(tree: dict[str, Any], *entries: dict[str, Any]) -> list[ConfigFault]:
    with pytest.raises(ConfigError) as refused:
        load(tree, *entries)
    return refused.value.faults


def fault(tree: dict[str, Any], use: str, *others: str, **settings: Any) -> ConfigFault:
    entries = [{"use": use, "settings": settings}, *({"use": other} for other in others)]
    (found,) = faults(tree, *entries)
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
        ("nothing_like_it", "or your own as package.module:Class"),
        ("no_such_module:Part", "No module named 'no_such_module'"),
        ("somebodys_parts:Missing", "cannot be imported"),
        ("somebodys_parts:NotOne", "is not a class that derives"),
    ],
)
def test_a_name_that_is_no_plugin_is_refused(tree, use: str, reason: str):
    (found,) = faults(tree, {"use": use})
    assert (found.path, found.value) == ("plugins.0.use", use)
    assert reason in found.reason


@pytest.mark.parametrize(
    ("layers", "reason"),
    [
        (["solve", "corect"], "there is no layer 'corect'. Layers: solve, correct."),
        ([], "is empty. Omit `layers`"),
    ],
)
def test_layers_that_the_chain_has_not_are_refused(tree, layers: list[str], reason: str):
    (found,) = faults(tree, {"use": "step_spans", "layers": layers})
    assert found.path == "plugins.0.layers" and reason in found.reason


def test_a_misspelt_setting_is_refused_with_the_nearest(tree):
    found = fault(tree, "step_spans", splt="newline")
    assert found.path == "plugins.0.settings.splt"
    assert found.suggestion == "Did you mean split?"


def test_a_setting_of_the_wrong_kind_is_refused_with_what_would_do(tree):
    found = fault(tree, "step_spans", split="word")
    assert found.path == "plugins.0.settings.split" and "newline" in found.suggestion


def test_every_fault_of_every_entry_is_told_at_once(tree):
    found = faults(tree, {"use": "nothing"}, {"use": "step_spans", "settings": {"a": 1, "b": 2}})
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
        ({"answer_sentence": "Wrong."}, "answer_sentence", "must match"),
    ],
)
def test_guided_error_correction(tree, settings: dict[str, Any], path: str, reason: str):
    found = fault(tree, "guided_error_correction", **settings)
    assert found.path == f"plugins.0.settings.{path}" and reason in found.reason


def test_supervised_injections_go_with_the_repairs_that_want_them(tree):
    repair = {"use": "guided_error_correction", "settings": {"offpolicy": "sft_loss"}}
    (found,) = faults(tree, repair)
    assert found.suggestion == "Add supervised_injections to plugins."
    assert len(load(tree, repair, {"use": "supervised_injections"})) == 2


def test_a_ratio_that_stays_one_needs_one_update_per_rollout(tree):
    tree["objective"] = {"updates_per_rollout": 2}
    found = fault(tree, "guided_error_correction", offpolicy="ratio_one")
    assert "would never be clipped" in found.reason
    repair = {"use": "guided_error_correction", "settings": {"offpolicy": "mask_injected"}}
    assert len(load(tree, repair)) == 1


def test_a_bonus_for_corrections_needs_corrections(tree):
    assert len(load(tree, {"use": "correction_bonus"})) == 1
    del tree["layers"][1]
    assert "none of its layers corrects" in fault(tree, "correction_bonus").reason


def test_credit_for_a_span_needs_somebody_who_marks_it(tree):
    found = fault(tree, "span_credit", "entropy_advantage")
    assert found.path == "plugins.0.use"
    assert found.suggestion == "Add reflection_span to plugins or step_spans to plugins."
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
    assert fault(tree, "entropy_advantage", **settings).path == f"plugins.0.settings.{path}"


def test_a_preference_needs_a_scorer_and_steps(tree, tmp_path: Path):
    found = faults(tree, {"use": "prefix_preference", "settings": {"scorer": "nowhere"}})
    assert [one.path for one in found] == ["plugins.0.use", "plugins.0.settings.scorer"]
    assert "mgrpo scorer train" in found[1].suggestion
    (tmp_path / "config.json").write_text("{}")
    settings = {"scorer": str(tmp_path), "step_range": [6, 3]}
    found = faults(tree, {"use": "step_spans"}, {"use": "prefix_preference", "settings": settings})
    assert [one.path for one in found] == ["plugins.1.settings.step_range"]


def test_what_fills_a_slot_is_no_plug_in_and_the_other_way_round(tree) -> None:
    found = fault(tree, "gpg")
    assert "gpg belongs to layers.N.advantage: {type: gpg}" in found.reason
    tree["objective"] = {"loss": "somebodys_parts:Both"}
    (found,) = faults(tree)
    assert (found.path, found.reason) == (
        "objective.loss",
        "belongs to plugins, as its class says.",
    )


def test_layers_with_equal_advantages_share_one_estimator(tree) -> None:
    for layer in tree["layers"]:
        layer["advantage"] = "rloo"
    (shared,) = load(tree)
    assert shared.layers == {1, 2}
    tree["layers"][1]["advantage"] = {"type": "rloo", "normalise": True}
    assert [one.layers for one in load(tree)] == [{1}, {2}]


def test_slots_work_before_plug_ins_and_the_importance_correction_behind(tree) -> None:
    tree["layers"][0]["advantage"] = "gpg"
    tree["objective"] = {"loss": "reinforce", "importance": "mismatch_correction"}
    names = [type(one).__name__ for one in load(tree, {"use": "lambda_grpo"})]
    assert names == ["Gpg", "Reinforce", "LambdaGrpo", "MismatchCorrection"]


@pytest.mark.parametrize("loss", ["gspo", "gmpo", "disco"])
def test_a_loss_of_whole_completions_refuses_factors_on_tokens(tree, loss) -> None:
    tree["objective"] = {"loss": loss}
    every = faults(tree, {"use": "lambda_grpo"})
    (found,) = (one for one in every if one.path == "objective.loss")
    assert found.value == loss
    assert found.reason.startswith("has one value for a whole completion")


def test_what_a_slot_holds_cannot_change_in_a_phase(tree) -> None:
    changes = {"objective": {"loss": "gspo"}}
    tree["phases"] = [{"name": "later", "from_step": 1, "changes": changes}]
    with pytest.raises(ValidationError, match=r"objective\.loss = gspo: cannot change"):
        RunConfig.model_validate(tree)


def in_phases(tree: dict[str, Any], *temperatures: float) -> RunConfig:
    phases = [
        {"name": f"at {one:g}", "from_step": n, "changes": {"sampling": {"temperature": one}}}
        for n, one in enumerate(temperatures, start=1)
    ]
    tree |= {"steps": 9, "phases": phases, "plugins": [{"use": "greedy_anchor"}]}
    return RunConfig.model_validate(tree)


def test_what_a_plugin_cannot_work_with_in_a_phase_is_refused_before_the_run(tree):
    with pytest.raises(ConfigError) as refused:
        load_plugins(in_phases(tree, 1.0, 0.7).method_view, Plugin)
    (found,) = refused.value.faults
    assert (found.path, found.value) == ("sampling.temperature", "0.7")
    assert found.reason.startswith("in phase 'at 0.7' likelihoods at it cannot be compared")


def test_what_is_wrong_in_every_phase_is_told_once(tree):
    tree["sampling"] = {"temperature": 0.7}
    with pytest.raises(ConfigError) as refused:
        load_plugins(in_phases(tree, 0.7).method_view, Plugin)
    assert len(refused.value.faults) == 1
    del tree["sampling"]
    assert len(load_plugins(in_phases(tree, 1.0).method_view, Plugin)) == 1


def test_a_hook_by_its_old_name_is_refused_and_the_new_one_named() -> None:
    with pytest.raises(TypeError, match=r"Old\.problems: this hook is called faults now"):
        type("Old", (LearnerPlugin,), {"__qualname__": "Old", "problems": None})
