"""One line for a data source: formats, lists, and recipes of before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mgrpo.config import MixtureSource, RowsSource, RunConfig
from mgrpo.config.data import has_one_domain
from mgrpo.config.load import load_recipe, save_recipe
from mgrpo.config.yaml_core import dump_yaml
from mgrpo.errors import ConfigError


def config_of(tree: dict[str, Any], train: object, **data: object) -> RunConfig:
    return RunConfig.model_validate({**tree, "data": {**tree["data"], "train": train, **data}})


def fault_of(tree: dict[str, Any], tmp_path: Path, train: object, **data: object) -> str:
    recipe = tmp_path / "bad.yaml"
    recipe.write_text(dump_yaml({**tree, "data": {**tree["data"], "train": train, **data}}))
    with pytest.raises(ConfigError) as error:
        load_recipe(recipe)
    (fault,) = error.value.faults
    return f"{fault.path} = {fault.value}: {fault.reason} {fault.suggestion}"


@pytest.mark.parametrize(
    ("train", "question", "answers", "kept"),
    [
        ({"path": "a.csv"}, "question", ["answer"], []),
        ({"path": "a", "format": "trl"}, "prompt", ["answer", "ground_truth", "solution"], "all"),
        ({"path": "a", "format": "trl", "answer_field": "gold"}, "prompt", ["gold"], "all"),
        ({"path": "a", "format": "verl"}, "prompt", ["reward_model.ground_truth"], "all"),
        ({"path": "a", "format": "openrlhf"}, "input", ["label"], "all"),
        ({"path": "a", "format": "messages", "metadata_fields": []}, "messages", ["answer"], []),
    ],
)
def test_a_format_gives_the_columns_that_the_recipe_does_not(tree, train, question, answers, kept):
    source = config_of(tree, train).data.train
    assert isinstance(source, RowsSource)
    assert (source.question_field, source.answer_fields) == (question, answers)
    assert source.metadata_fields == kept


@pytest.mark.parametrize(
    ("before", "now"),
    [
        ({"source": "jsonl", "path": "a"}, {"path": "a"}),
        ({"source": "huggingface", "path": "a"}, {"path": "a", "split": "train"}),
        (
            {"source": "huggingface", "path": "a", "split": "test"},
            {"path": "a", "split": "test"},
        ),
    ],
)
def test_the_sources_of_before_are_read_as_rows(tree, before, now):
    assert config_of(tree, before) == config_of(tree, now)


@pytest.mark.parametrize(
    "train",
    [
        {"path": "a", "format": "verl"},
        [{"path": "a", "weight": 2}, {"path": "b", "weight": 1, "name": "mine"}],
    ],
)
def test_what_a_format_and_a_list_stand_for_is_read_back_equal(tree, tmp_path: Path, train):
    config = config_of(tree, train)
    save_recipe(config, tmp_path / "saved.yaml")
    assert load_recipe(tmp_path / "saved.yaml") == config


@pytest.mark.parametrize("train", ["{path: own.csv}", "{format: trl, path: own.csv}"])
def test_rows_replace_generated_problems_of_an_extended_recipe(tmp_path: Path, train: str):
    (tmp_path / "own.yaml").write_text(f"extends: quickstart\ndata: {{train: {train}}}\n")
    source = load_recipe(tmp_path / "own.yaml").data.train
    assert isinstance(source, RowsSource) and source.path == "own.csv"


def test_another_path_of_an_extended_recipe_keeps_its_columns(tree, tmp_path: Path):
    tree["data"]["train"] = {"path": "a.csv", "question_field": "q"}
    (tmp_path / "base.yaml").write_text(dump_yaml(tree))
    (tmp_path / "own.yaml").write_text("extends: base.yaml\ndata: {train: {path: b.csv}}\n")
    source = load_recipe(tmp_path / "own.yaml").data.train
    assert isinstance(source, RowsSource)
    assert (source.path, source.question_field) == ("b.csv", "q")


def test_several_sources_have_names_and_weights(tree):
    source = config_of(
        tree, [{"path": "x/a.jsonl.gz", "weight": 3}, {"path": "b", "weight": 1, "name": "mine"}]
    ).data.train
    assert isinstance(source, MixtureSource)
    assert source.weights == {"a": 3, "mine": 1}
    assert not has_one_domain(source)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("data/train-*.parquet", "train"),
        ("sums/**/*.jsonl", "sums"),
        ("openai/gsm8k", "gsm8k"),
        ("x/a#1.jsonl.gz", "a_1"),
        ("*", "rows"),
    ],
)
def test_a_source_without_a_name_is_called_after_its_path(path: str, name: str):
    assert RowsSource(path=path).label == name


@pytest.mark.parametrize(
    ("train", "data", "expected"),
    [
        ([{"path": "a"}, {"path": "x/a"}], {}, "data.train.sources.1.name = a: another source has"),
        ([{"path": "a", "weight": 1}, {"path": "b"}], {}, "data.train.sources.1.weight = null"),
        ([{"path": "a", "pth": 1}], {}, "data.train.sources.0.pth = 1: there is no such key."),
        ({"path": "a", "weight": 2}, {}, "data.train.weight = 2.0: has no effect on a single"),
        (
            [{"path": "a", "weight": 1}],
            {"sampler": "robust"},
            "data.train.sources = 1.0: has no effect with sampler: robust.",
        ),
        ({"path": "a", "format": "ver"}, {}, "data.train.format = ver: not one of"),
        ({"path": "a", "user_template": "Q:"}, {}, "data.train.user_template = Q:: must match"),
        ({"path": "a"}, {"sampler": "curriculum"}, "data.sampler.by = (not given)"),
    ],
)
def test_what_has_no_meaning_is_refused(tree, tmp_path: Path, train, data, expected: str):
    if data.get("sampler") == "curriculum":
        data = {"sampler": {"type": "curriculum", "full_after_steps": 3}}
    assert expected in fault_of(tree, tmp_path, train, **data)
