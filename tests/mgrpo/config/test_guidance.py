"""Kinds of guidance: how they are written, and what is refused."""

import pytest
from pydantic import ValidationError

from mgrpo.config import CheckGuidance, CorrectLayer, PhraseGuidance
from mgrpo.config.load import load_recipe
from mgrpo.errors import ConfigError


def layer(**keys):
    return CorrectLayer.model_validate({"name": "correct", "group_size": 2, **keys})


@pytest.mark.parametrize(
    "written", ["check", {"from": "check"}, {"type": "check"}, {"from": "check", "draw": "fixed"}]
)
def test_the_check_is_named_by_from_or_type_or_alone(written):
    assert isinstance(layer(guidance=written).guidance, CheckGuidance)


@pytest.mark.parametrize("written", [{}, {"phrases": ["Hm."]}, {"from": "phrases"}])
def test_phrases_are_the_default(written):
    assert isinstance(layer(guidance=written).guidance, PhraseGuidance)
    assert layer().guidance == PhraseGuidance()


def test_what_is_written_out_reads_back():
    told = layer(guidance={"from": "check", "max_tokens": 9, "template": "{feedback}"})
    assert CorrectLayer.model_validate(told.model_dump(mode="json")) == told
    assert (told.guidance.feedback_tokens, layer().guidance.feedback_tokens) == (9, 0)


@pytest.mark.parametrize("template", ["Think.", "{feedback} {feedback}"])
def test_a_template_has_the_feedback_once(template):
    with pytest.raises(ValidationError, match="expected once"):
        layer(guidance={"from": "check", "template": template})


def test_a_quoting_template_must_have_a_place_for_it():
    keys = {"layout": "user_quote", "user_template": "{problem} {attempt}"}
    assert layer(**keys)
    with pytest.raises(ValidationError, match=r"\{guidance\}"):
        layer(**keys, guidance={"from": "check"})


@pytest.mark.parametrize(
    ("override", "path"),
    [
        ("layers.correct.guidance={from: check, max_tokens: 0}", "layers.1.guidance.max_tokens"),
        ("layers.correct.guidance={from: judge}", "layers.1.guidance"),
        ("layers.correct.guidance={max_tokens: 5}", "layers.1.guidance.max_tokens"),
    ],
)
def test_errors_name_the_key(override, path):
    with pytest.raises(ConfigError) as error:
        load_recipe("quickstart", [override])
    assert path in str(error.value)


def test_a_phase_cannot_change_what_the_context_was_measured_for():
    told = "layers.correct.guidance={from: check}"
    changes = "{layers: {correct: {guidance: {max_tokens: 999}}}}"
    later = f"phases=[{{name: later, from_step: 2, changes: {changes}}}]"
    with pytest.raises(ConfigError, match=r"guidance\.max_tokens"):
        load_recipe("quickstart", [told, later])
