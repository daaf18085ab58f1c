"""Entities of a problem travel with its completions."""

from __future__ import annotations

import dataclasses

import pytest

from actors.plugin import RolloutPlugin
from mgrpo.errors import ConfigError, DataError
from mgrpo.plugin import load_plugins
from mgrpo.types import Completion
from tests.actors.plugins.scripted_rollout import PROBLEM, plugin, rollout, sampled
from tests.learner.builders import run_config


def entities(problem=PROBLEM, **settings):
    parts = rollout(lambda prompt, index: "7", [plugin("problem_entities", **settings)])
    return [one.metadata["entities"] for one in sampled(parts, problem)]


def annotated(value, key="entities"):
    return dataclasses.replace(PROBLEM, metadata={key: value})


def test_annotated_entities_reach_every_completion():
    assert entities(annotated(["Ada", "Kiel"])) == [["Ada", "Kiel"]] * 4


def test_a_pattern_takes_them_from_the_question_after_the_annotated_ones():
    assert entities(annotated(["4", "Ada"]), pattern="[0-9]")[0] == ["4", "Ada", "3"]


def test_another_key_of_the_metadata_can_be_named():
    assert entities(annotated(["Ada"], key="names"), key="names")[0] == ["Ada"]


def test_without_annotations_there_are_none():
    assert entities() == [[]] * 4


@pytest.mark.parametrize("value", ["Ada", [1, 2]])
def test_an_annotation_of_another_kind_is_refused(value):
    with pytest.raises(DataError, match="must be a list of texts"):
        entities(annotated(value))


def test_a_broken_pattern_is_refused_before_anything_starts():
    config = run_config(plugins=[{"use": "problem_entities", "settings": {"pattern": "["}}])
    with pytest.raises(ConfigError, match="is no regular expression"):
        load_plugins(config.method_view, RolloutPlugin)


def test_recorded_completions_keep_them():
    parts = rollout(lambda prompt, index: "7", [plugin("problem_entities", pattern="[0-9]")])
    one = sampled(parts)[0]
    assert Completion.from_json(one.to_json()).metadata == {"entities": ["3", "4"]}
