from __future__ import annotations

import pytest
import yaml

from mgrpo.config.yaml_core import dump_yaml, parse_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("off", "off"),  # YAML 1.1 says False
        ("no", "no"),
        ("true", True),
        ("5e-7", 5e-7),  # YAML 1.1 says "5e-7"
        ("1e3", 1000.0),
        ("-0.5", -0.5),
        ("12", 12),
        ("010", "010"),  # YAML 1.1 says 8
        ("1:30", "1:30"),  # YAML 1.1 says 90
        ("2024-05-01", "2024-05-01"),  # YAML 1.1 says a date
        ("1_000", "1_000"),
        ("null", None),
        ("[1, two]", [1, "two"]),
    ],
)
def test_words_and_numbers_mean_what_they_look_like(text: str, value: object):
    parsed = parse_yaml(text)
    assert parsed == value
    assert type(parsed) is type(value)


def test_what_is_dumped_is_read_back_equal():
    value = {"a": ["off", "1e3", 1e-6, "true", True, None, "", "12", 12, "a: b", "010"]}
    assert parse_yaml(dump_yaml(value)) == value


def test_a_key_given_twice_is_refused_with_its_place():
    with pytest.raises(yaml.MarkedYAMLError, match="'steps' is given twice") as error:
        parse_yaml("steps: 1\nname: x\nsteps: 2\n")
    assert error.value.problem_mark.line == 2


def test_an_anchored_section_may_be_merged_and_changed():
    parsed = parse_yaml("a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\n")
    assert parsed["b"] == {"x": 1, "y": 3}


def test_python_objects_are_never_built():
    with pytest.raises(yaml.YAMLError):
        parse_yaml("!!python/object/apply:os.system ['true']")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[" * 100_000, "more than 64 values inside each other"),  # libyaml's stack would overflow
        ("- " * 100_000, "more than 64 values inside each other"),
        ("- &a [*a]", "more than 64 inside each other"),
        ("a: \ud800", "half a character"),
        ('a: "\\ud800"', "invalid Unicode character"),
        ("? [a]\n: 1", "unhashable key"),
        ("a: 1\n---\nb: 2", "single document"),
    ],
    ids=["flow", "block", "itself", "surrogate", "escape", "key", "documents"],
)
def test_hostile_text_is_an_error_of_yaml(text: str, reason: str):
    with pytest.raises(yaml.YAMLError, match=reason):
        parse_yaml(text)
