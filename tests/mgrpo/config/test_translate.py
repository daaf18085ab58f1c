"""Recipes of before slots."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mgrpo.config import RunConfig
from mgrpo.config.load import load_recipe
from mgrpo.config.translate import LAYER_KEYS, OBJECTIVE_KEYS, main, translate
from mgrpo.config.yaml_core import dump_yaml, parse_yaml
from mgrpo.errors import ConfigError
from mgrpo.plugin import Plugin, load_plugins

OLD_LAYER = {
    "parents": "best",
    "parents_k": 2,
    "tie_break": "first",
    "quote": "answer_only",
    "guidance": {"draw": "fixed", "fixed_index": 3},
}
NEW_LAYER = {
    "parents": {"type": "best", "k": 2, "tie_break": "first"},
    "layout": {"quote": "answer_only"},
    "guidance": {"draw": {"type": "fixed", "index": 3}},
}


def test_keys_of_before_come_into_the_slots_that_have_them_now(tree: dict[str, Any]):
    name = tree["layers"][1]
    old = {**tree, "layers": [tree["layers"][0], {**name, **OLD_LAYER}]}
    new = translate(old)
    assert new["layers"][1] == {**name, **NEW_LAYER}
    assert old["layers"][1]["parents_k"] == 2, "the given tree stays as it is"
    RunConfig.model_validate(new)
    assert translate(new) == new


def test_settings_of_the_objective_come_into_their_slots(tree: dict[str, Any]):
    old = {
        "clip_high": 0.3,
        "importance": {"mode": "off"},
        "advantage": {"scale_by_std": False},
        "updates_per_rollout": 2,
    }
    new = translate({**tree, "objective": old})
    assert new["objective"] == {
        "loss": {"clip_high": 0.3},
        "importance": "none",
        "updates_per_rollout": 2,
    }
    assert [layer["advantage"] for layer in new["layers"]] == [{"scale_by_std": False}] * 2
    RunConfig.model_validate(new)


@pytest.mark.parametrize(
    ("entries", "advantage", "objective"),
    [
        ([{"use": "rloo"}, {"use": "reinforce"}], "rloo", {"loss": "reinforce"}),
        (
            [{"use": "gspo", "settings": {"clip_low": 0.1}}],
            None,
            {"loss": {"type": "gspo", "clip_low": 0.1}},
        ),
        ([{"use": "disco"}], "none", {"loss": "disco"}),
        (
            [{"use": "dagrpo", "settings": {"gamma": 0.2, "threshold": 0.3}}],
            {"type": "dagrpo", "threshold": 0.3},
            {"loss": {"type": "shaped_probability", "gamma": 0.2}},
        ),
        (
            [{"use": "raft", "settings": {"variant": "reinforce_rej", "reward_map": "zero_one"}}],
            {"type": "raft", "reward_map": "zero_one", "keep": "mixed_groups"},
            None,
        ),
        ([{"use": "mismatch_correction"}], None, {"importance": "mismatch_correction"}),
    ],
)
def test_plug_ins_that_fill_a_slot_now_are_put_into_it(
    tree: dict[str, Any], entries: list[dict[str, Any]], advantage: Any, objective: Any
):
    new = translate({**tree, "plugins": [*entries, {"use": "lambda_grpo"}]})
    assert new["plugins"] == [{"use": "lambda_grpo"}]
    assert [layer.get("advantage") for layer in new["layers"]] == [advantage] * 2
    assert new.get("objective") == objective
    RunConfig.model_validate(new)


BUFFER = {"capacity": 4}
OLD_DEFAULTS = {
    "objective": {
        "update_order": "joint",
        "rollout_policy": "auto",
        "error_pool": {"capacity": 2048},
        "correction_buffer": None,
        "preferences": {"pairs_per_step": 32},
        "train_on": "rollouts",
    },
    "sampling": {"dynamic": None},
}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (OLD_DEFAULTS, {"objective": {"update_order": "joint"}}),
        ({"sampling": {"dynamic": {}}}, {"source": {"type": "dynamic"}}),
        (
            {"objective": {"update_order": "pooled_errors", "error_pool": {"capacity": 8}}},
            {"source": {"type": "error_pool", "capacity": 8}},
        ),
        (
            {
                "objective": {"update_order": "preference_phases", "correction_buffer": BUFFER},
                "sampling": {"dynamic": {"max_rounds": 3}, "temperature": 0.8},
            },
            {
                "source": {
                    "type": "correction_buffer",
                    "capacity": 4,
                    "above": {"type": "preferences", "above": {"type": "dynamic", "max_rounds": 3}},
                },
                "sampling": {"temperature": 0.8},
            },
        ),
        (
            {"objective": {"update_order": "sequential", "rollout_policy": "snapshot"}},
            {"objective": {"update_order": {"type": "sequential", "rollout_policy": "snapshot"}}},
        ),
        (
            {"extends": "methods/scrpo", "objective": {"error_pool": {"capacity": 8}}},
            {"extends": "methods/scrpo", "source": {"capacity": 8}},
        ),
    ],
)
def test_what_a_step_trains_on_is_a_source_now(tree: dict[str, Any], old: Any, new: Any):
    assert translate({"steps": 3, **old}) == {"steps": 3, **new}
    if "extends" not in new:
        RunConfig.model_validate({**tree, **new})


def test_the_robust_sampler_is_a_sampler_now():
    assert translate({"data": {"robust": {"radius": 0.1}}}) == {
        "data": {"sampler": {"type": "robust", "radius": 0.1}}
    }


def test_a_phase_of_pairs_changes_its_source():
    phase = {"name": "pairs", "from_step": 1, "changes": {"objective": {"train_on": "pairs"}}}
    objective = {"update_order": "preference_phases"}
    new = translate({"objective": objective, "phases": [phase]})
    assert new["phases"][0]["changes"] == {"source": {"train_on": "pairs"}}
    new = translate({"objective": {**objective, "correction_buffer": {}}, "phases": [phase]})
    assert new["phases"][0]["changes"] == {"source": {"above": {"train_on": "pairs"}}}


@pytest.mark.parametrize(
    ("old", "now"),
    [
        ("objective.update_order=pooled_errors", "source: error_pool"),
        ("objective.error_pool.capacity=3", "source: {type: error_pool}"),
        ("objective.train_on=pairs", "source.train_on"),
        ("objective.rollout_policy=snapshot", "objective.update_order.rollout_policy"),
        ("sampling.dynamic={}", "source: {type: dynamic}"),
        ("data.robust={}", "data.sampler: {type: robust}"),
    ],
)
def test_an_old_key_of_a_source_is_told_what_it_is_now(old: str, now: str):
    with pytest.raises(ConfigError) as error:
        load_recipe("quickstart", [old])
    assert any(f"It is {now} now" in one.suggestion for one in error.value.faults)


def test_a_slots_plug_in_among_plugins_is_told_where_it_belongs(tree: dict[str, Any]):
    tree["plugins"] = [{"use": "gspo"}]
    with pytest.raises(ConfigError, match=r"gspo belongs to objective.loss: \{type: gspo\}"):
        load_plugins(RunConfig.model_validate(tree).method_view, Plugin)


def test_changes_by_name_and_in_phases_are_translated_too():
    changes = {"layers": {"correct": {"parents_k": 3, "max_quote_tokens": None}}}
    expected = {"layers": {"correct": {"parents": {"k": 3}}}}
    assert translate(changes) == expected
    phases = {"phases": [{"name": "later", "from_step": 1, "changes": changes}]}
    assert translate(phases)["phases"][0]["changes"] == expected


@pytest.mark.parametrize(("old", "now"), [*OBJECTIVE_KEYS.items(), ("advantage.ddof", "")])
def test_an_old_key_of_the_objective_is_told_what_it_is_now(
    tree: dict[str, Any], tmp_path: Path, old: str, now: str
):
    file = tmp_path / "old.yaml"
    file.write_text(dump_yaml(tree))
    with pytest.raises(ConfigError) as error:
        load_recipe(file, [f"objective.{old}=0"])
    wanted = f"objective.{now}" if now else "layers.N.advantage"
    assert any(f"It is {wanted}" in one.suggestion for one in error.value.faults)


@pytest.mark.parametrize(("old", "now"), LAYER_KEYS.items())
def test_an_old_key_is_told_what_it_is_now(
    tree: dict[str, Any], tmp_path: Path, old: str, now: str
):
    file = tmp_path / "old.yaml"
    file.write_text(dump_yaml(tree))
    with pytest.raises(ConfigError) as error:
        load_recipe(file, [f"layers.correct.{old}=1"])
    (fault,) = error.value.faults
    assert fault.path == f"layers.1.{old}"
    assert f"It is layers.1.{now} now" in fault.suggestion


def test_the_command_writes_a_recipe_that_loads(
    tree: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    tree["layers"][1] |= OLD_LAYER
    file = tmp_path / "old.yaml"
    file.write_text(dump_yaml(tree))
    assert main([str(file)]) == 0
    new = parse_yaml(capsys.readouterr().out)
    assert new["layers"][1]["parents"] == NEW_LAYER["parents"]


@pytest.mark.parametrize(
    ("text", "said"),
    [(None, "cannot be read"), ("a: [", "is not YAML"), ("3", "a map of sections")],
)
def test_the_command_says_what_is_wrong_with_a_file(
    text: str | None, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    file = tmp_path / "old.yaml"
    if text is not None:
        file.write_text(text)
    assert main([str(file)]) == 2
    printed = capsys.readouterr()
    assert not printed.out and said in printed.err and str(file) in printed.err


def test_the_command_has_a_help_text(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0 and "earlier form" in capsys.readouterr().out
