from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from mgrpo.config import RunConfig
from mgrpo.config.explain import SYNONYMS, all_keys
from mgrpo.config.load import find_recipe, load_recipe, save_recipe
from mgrpo.config.yaml_core import dump_yaml
from mgrpo.errors import ConfigError, ConfigFault


@pytest.fixture
def recipe(tmp_path: Path, tree: dict[str, Any]) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(dump_yaml(tree))
    return path


def faults(path: Path, *overrides: str) -> dict[str, ConfigFault]:
    with pytest.raises(ConfigError) as error:
        load_recipe(path, overrides)
    return {fault.path: fault for fault in error.value.faults}


def only_fault(path: Path, *overrides: str) -> ConfigFault:
    found = faults(path, *overrides)
    assert len(found) == 1, found
    return next(iter(found.values()))


def test_a_saved_recipe_is_read_back_equal(recipe: Path, tmp_path: Path):
    config = load_recipe(
        recipe,
        [
            "learner.learning_rate=5e-7",
            "objective.importance=none",
            "layers.correct.guidance.draw=weighted",
            "layers.correct.guidance.draw.weights=[1, 0, 0, 0, 0, 0, 2.5]",
            'layers.solve.system_prompt=""',
            "description='yes: a #strange one'",
        ],
    )
    save_recipe(config, tmp_path / "saved.yaml")
    assert load_recipe(tmp_path / "saved.yaml") == config


def test_overrides_reach_layers_by_number_and_by_name(recipe: Path):
    config = load_recipe(recipe, ["layers.1.group_size=4", "layers.solve.group_size=6", "steps=9"])
    assert [layer.group_size for layer in config.layers] == [6, 4]
    assert config.steps == 9


def test_overrides_make_the_sections_they_need(recipe: Path):
    config = load_recipe(recipe, ["objective.kl.weight=1e-3", "learner.betas=[0.8, 0.9]"])
    assert config.objective.kl.weight == 0.001
    assert config.learner.betas == (0.8, 0.9)


def test_an_override_of_an_unknown_layer_names_those_that_exist(recipe: Path):
    fault = only_fault(recipe, "layers.fix.group_size=4")
    assert fault.path == "layers.fix"
    assert "solve, correct" in fault.suggestion


@pytest.mark.parametrize("override", ["steps", "=3", "steps=[1", "steps.x=3", "layers.7.name=a"])
def test_an_override_that_cannot_be_applied_is_a_config_error(recipe: Path, override: str):
    with pytest.raises(ConfigError):
        load_recipe(recipe, [override])


def test_all_faults_are_reported_at_once(recipe: Path):
    found = faults(
        recipe,
        "stepz=3",
        "layers.solve.group_size=1",
        "layers.correct.parents=wrongonly",
        "layers.nobody.name=x",
        "data.train.pth=x",
        "layers.correct.guidance.draw={type: fixed, index: 9}",
        "learner.learning_rate=fast",
    )
    assert set(found) == {
        "stepz",
        "layers.0.group_size",
        "layers.1.parents",
        "layers.nobody",
        "data.train.pth",
        "layers.1.guidance.draw.index",
        "learner.learning_rate",
    }


def test_a_misspelt_key_gets_the_nearest_valid_one(recipe: Path):
    assert "Did you mean steps?" in only_fault(recipe, "stepz=3").suggestion


def test_a_misspelt_key_inside_a_data_source_is_found_past_the_union(recipe: Path):
    fault = only_fault(recipe, "data.train.question_feild=q")
    assert fault.path == "data.train.question_feild"
    assert "question_field" in fault.suggestion


def test_a_key_in_the_wrong_section_is_shown_its_place(recipe: Path):
    assert "layers.N.group_size" in only_fault(recipe, "group_size=3").suggestion


def test_a_group_of_one_is_refused_with_the_reason_and_the_nearest_value(recipe: Path):
    fault = only_fault(recipe, "layers.solve.group_size=1")
    assert (fault.path, fault.value) == ("layers.0.group_size", "1")
    assert "one is not enough" in fault.suggestion
    assert "Nearest valid value: 2" in fault.suggestion


def test_a_wrong_choice_lists_the_choices(recipe: Path):
    fault = only_fault(recipe, "layers.correct.parents=wrong")
    assert "all, wrong_only, wrong_first, uniform_k, best" in fault.suggestion


def test_an_unknown_source_lists_the_sources(recipe: Path):
    fault = only_fault(recipe, "data.train.source=csv")
    assert fault.path == "data.train.source"
    assert "rows, reasoning_gym, mixture" in fault.suggestion


def test_an_error_of_relations_names_the_key_itself(recipe: Path):
    found = faults(
        recipe, "evaluation.samples_per_problem=4", "layers.correct.user_template=Solve it"
    )
    assert set(found) == {"evaluation.samples_per_problem", "layers.1.user_template"}


def test_infinite_and_undefined_numbers_are_refused(recipe: Path):
    assert set(faults(recipe, "learner.max_grad_norm=.inf", "objective.loss.clip_high=.nan")) == {
        "learner.max_grad_norm",
        "objective.loss.clip_high",
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("steps: [1\n", "line 2"),
        ("steps: 1\nsteps: 2\n", "'steps' is given twice"),
        ("steps: !!int \n", "this is no int"),
        ("- a\n- b\n", "must be a map"),
        ("", "must be a map"),
    ],
)
def test_a_file_that_is_no_recipe_says_where_and_why(tmp_path: Path, text: str, expected: str):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=expected):
        load_recipe(path)


def test_a_file_that_is_not_text_is_a_config_error(tmp_path: Path):
    path = tmp_path / "bad.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load_recipe(path)


def test_a_name_is_looked_up_in_recipes_here_first(tmp_path: Path, tree, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "mine.yaml").write_text(dump_yaml(tree))
    assert find_recipe("mine") == Path("recipes/mine.yaml")
    assert load_recipe("mine").name == "small"


def test_a_shipped_recipe_is_found_from_any_folder(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_recipe("grpo").method == "GRPO"
    assert find_recipe("qwen2.5_math_7b").name == "qwen2.5_math_7b.yaml"


def test_an_unknown_recipe_lists_near_names():
    with pytest.raises(ConfigError, match="success_only"):
        load_recipe("sucess_only")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("paper_literal", "success_only"),
        ("methods/paper_literal", "methods/success_only"),
        ("recipes/methods/paper_literal.yaml", "methods/success_only"),
        ("recipes/quickstart.yaml", "quickstart"),
        ("../grpo.yaml", "grpo"),
    ],
)
def test_a_recipe_by_its_old_name_says_the_new_one(old: str, new: str):
    with pytest.raises(ConfigError, match=f"Use {new}\\."):
        load_recipe(old)
    load_recipe(new)


def test_a_file_of_ones_own_may_have_an_old_name(tree, tmp_path: Path):
    own = tmp_path / "paper_literal.yaml"
    own.write_text(dump_yaml(tree))
    assert find_recipe(own) == own


def test_a_recipe_may_extend_another(recipe: Path, tmp_path: Path):
    (tmp_path / "wide.yaml").write_text(
        "extends: small.yaml\nname: wide\nobjective: {kl: {weight: 0.5}}\n"
        "layers: {correct: {group_size: 8}}\n"
        "data: {train: {source: reasoning_gym, size: 9, tasks: [{name: chain_sum}]}}\n"
    )
    base, wide = load_recipe(recipe), load_recipe(tmp_path / "wide.yaml")
    assert wide.name == "wide"
    assert wide.layers[0] == base.layers[0]
    assert (wide.layers[1].group_size, wide.layers[1].max_completion_tokens) == (8, 60)
    assert wide.data.train.source == "reasoning_gym"  # replaced whole: jsonl's path is gone
    assert wide.data.max_prompt_tokens == base.data.max_prompt_tokens


@pytest.mark.parametrize("name", ["", ".", "/"])
def test_a_recipe_may_not_extend_nothing(name: str, recipe: Path, tmp_path: Path):
    child = tmp_path / "child.yaml"
    child.write_text(dump_yaml({"extends": name}))
    assert only_fault(child).reason == "this names no recipe."


def test_infinite_numbers_are_refused_also_where_any_value_may_stand(recipe: Path):
    found = only_fault(recipe, "plugins=[{use: dpo, settings: {beta: 1e999}}]")
    assert (found.path, found.reason) == ("plugins.0.settings.beta", "this is no finite number.")
    found = only_fault(recipe, "engines.extra_args={max_logprobs: [1, .nan]}")
    assert found.path == "engines.extra_args.max_logprobs.1"


def test_a_format_that_is_no_name_is_refused(recipe: Path):
    assert "data.train.format" in str(faults(recipe, "data.train={format: [verl], path: a.jsonl}"))


def test_a_recipe_may_not_extend_itself(tmp_path: Path):
    (tmp_path / "a.yaml").write_text("extends: b.yaml\n")
    (tmp_path / "b.yaml").write_text("extends: a.yaml\n")
    with pytest.raises(ConfigError, match="extends itself"):
        load_recipe(tmp_path / "a.yaml")


def test_extending_with_an_unknown_layer_is_refused(recipe: Path, tmp_path: Path):
    (tmp_path / "wide.yaml").write_text("extends: small.yaml\nlayers: {fix: {group_size: 8}}\n")
    with pytest.raises(ConfigError, match=r"layers\.fix"):
        load_recipe(tmp_path / "wide.yaml")


def test_every_key_of_a_recipe_has_a_type_that_survives_saving(recipe: Path):
    config = load_recipe(recipe)
    assert RunConfig.model_validate(config.model_dump(mode="json")) == config


@pytest.mark.parametrize(
    ("override", "path"),
    [
        (f"seed={2**67}", "seed"),
        (f"seed={2**32}", "seed"),
        ("seed=-1", "seed"),
        ("sampling.temperature=0.001", "sampling.temperature"),
        ("evaluation.temperature=0.001", "evaluation.temperature"),
        ("engines.max_num_seqs=100000", "engines.max_num_seqs"),
        ("model.chat_template_kwargs={tokenize: true}", "model.chat_template_kwargs"),
    ],
)
def test_what_an_engine_would_refuse_late_or_change_is_refused_at_once(
    recipe: Path, override: str, path: str
):
    assert only_fault(recipe, override).path.startswith(path)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("learner.lr=1e-5", "learner.learning_rate"),
        ("num_epochs=2", "one epoch is the number of rows / prompts_per_step"),
        ("batch_size=8", "prompts_per_step"),
        ("sampling.top_p=0.9", "There is none: tokens that are never sampled"),
        ("layers.solve.max_new_tokens=9", "layers.N.max_completion_tokens"),
    ],
)
def test_keys_of_other_systems_are_answered_with_ours(override: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(expected)):
        load_recipe("quickstart", [override])


def test_the_keys_that_synonyms_name_exist() -> None:
    keys = set(all_keys(RunConfig))
    named = {
        path
        for said in SYNONYMS.values()
        if not said.endswith(".")
        for path in re.findall(r"[a-z]+(?:\.(?:N|[a-z_]+))+", said)
    }
    assert named and named <= keys
