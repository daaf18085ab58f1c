from __future__ import annotations

import pytest
from pydantic import ValidationError

from mgrpo.config.alarms import AlarmConfig, AlarmsConfig
from mgrpo.config.explain import explain

SECTIONS = {
    name: field.default
    for name, field in AlarmsConfig.model_fields.items()
    if isinstance(field.default, AlarmConfig)
}


def test_there_are_seven_alarms_and_each_only_warns_by_default():
    assert set(SECTIONS) == {
        "copying",
        "first_turn_falls",
        "no_signal",
        "entropy_collapse",
        "mismatch",
        "truncation",
        "gradient_spike",
    }
    assert {section.action for section in SECTIONS.values()} == {"warn"}


@pytest.mark.parametrize("name", SECTIONS)
def test_every_alarm_can_be_switched_off_by_a_null_threshold(name):
    config = AlarmsConfig.model_validate({name: {"threshold": None}})
    assert getattr(config, name).threshold is None
    assert "null" in (type(SECTIONS[name]).model_fields["threshold"].description or "")


@pytest.mark.parametrize("name", SECTIONS)
def test_every_key_of_an_alarm_says_what_it_means(name):
    for key, field in type(SECTIONS[name]).model_fields.items():
        assert field.description, f"{name}.{key}"


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("copying", "threshold", 1),  # nothing is above 1: null says off
        ("no_signal", "threshold", 0),  # everything would be silent
        ("truncation", "threshold", 1.5),
        ("mismatch", "threshold", 0),
        ("entropy_collapse", "fraction_of_start", 1),
        ("first_turn_falls", "window_steps", 0),
        ("copying", "patience_steps", 0),
        ("copying", "action", "explode"),
    ],
)
def test_values_that_cannot_work_are_refused_with_their_path(section, key, value):
    with pytest.raises(ValidationError) as error:
        AlarmsConfig.model_validate({section: {key: value}})
    (fault,) = explain(error.value, AlarmsConfig)
    assert fault.path == f"{section}.{key}"


def test_a_misspelt_key_is_answered_with_the_right_one():
    with pytest.raises(ValidationError) as error:
        AlarmsConfig.model_validate({"copying": {"patience": 3}})
    (fault,) = explain(error.value, AlarmsConfig)
    assert fault.suggestion == "Did you mean patience_steps?"
