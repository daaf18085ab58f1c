"""The evaluation section refuses what cannot be measured."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from mgrpo.config import CorrectLayer, EvaluationConfig, LayerConfig, SolveLayer
from mgrpo.config.evaluation import guidance_faults
from mgrpo.config.explain import explain
from mgrpo.errors import ConfigFault


def faults(**settings: Any) -> dict[str, ConfigFault]:
    with pytest.raises(ValidationError) as refused:
        EvaluationConfig(**settings)
    return {fault.path: fault for fault in explain(refused.value, EvaluationConfig)}


def chain(*phrases_per_layer: int) -> list[LayerConfig]:
    later = [
        {"name": f"c{n}", "group_size": 2, "guidance": {"phrases": ["Hm."] * count}}
        for n, count in enumerate(phrases_per_layer)
    ]
    first = SolveLayer(name="solve", group_size=2)
    return [first, *(CorrectLayer.model_validate(layer) for layer in later)]


def test_the_k_of_pass_at_k_are_powers_of_two_up_to_the_samples():
    assert EvaluationConfig().ks == [1]
    sampled = EvaluationConfig(decoding="sampled", samples_per_problem=6)
    assert sampled.ks == [1, 2, 4]
    assert sampled.model_copy(update={"samples_per_problem": 8}).ks == [1, 2, 4, 8]
    assert sampled.model_copy(update={"pass_at": [6, 1, 6]}).ks == [1, 6]


def test_pass_at_k_needs_k_samples():
    found = faults(decoding="sampled", samples_per_problem=4, pass_at=[1, 8])
    assert set(found) == {"pass_at"}
    assert "pass@8 needs 8 samples" in found["pass_at"].reason
    assert "samples_per_problem to 8" in found["pass_at"].suggestion
    assert set(faults(pass_at=[])) == {"pass_at"}
    assert set(faults(pass_at=[0])) == {"pass_at.0"}


def test_greedy_decoding_gives_one_sample():
    assert set(faults(samples_per_problem=2)) == {"samples_per_problem"}


@pytest.mark.parametrize("key", ["guidance", "guidance_during"])
@pytest.mark.parametrize("guidance", ["some", [], [0, 0], [-1], [True], ["0"], 3, None, {}])
def test_a_choice_of_phrases_is_a_word_or_different_numbers(key: str, guidance: Any):
    found = faults(**{key: guidance})
    assert set(found) == {key}
    assert "all, first, random" in found[key].suggestion


@pytest.mark.parametrize("guidance", ["all", "first", "random", [2], [3, 0]])
def test_sound_choices_of_phrases(guidance: Any):
    assert EvaluationConfig(guidance=guidance).guidance == guidance


def test_too_few_resamples_for_an_interval_are_refused():
    assert set(faults(bootstrap_resamples=99)) == {"bootstrap_resamples"}
    assert EvaluationConfig(bootstrap_resamples=0).bootstrap_resamples == 0


def test_every_layer_must_have_the_chosen_phrases():
    chosen = EvaluationConfig(guidance=[0, 3])
    assert guidance_faults(chosen, chain(7)) == []
    [fault] = guidance_faults(chosen, chain(7, 2))
    assert fault.path == "evaluation.guidance"
    assert "layers.2 (c1) has only 2 phrases" in fault.reason
    assert fault.suggestion == "Valid: 0 to 1."
    assert guidance_faults(EvaluationConfig(), chain(1)) == []
    [fault] = guidance_faults(EvaluationConfig(guidance_during=[2]), chain(2))
    assert fault.path == "evaluation.guidance_during"


def test_a_single_layer_has_no_phrases_to_choose():
    [fault] = guidance_faults(EvaluationConfig(guidance=[0]), chain())
    assert "one layer" in fault.reason
