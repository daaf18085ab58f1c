"""Which types the learner and the probe take, by recipe and device."""

from __future__ import annotations

import pytest

from learner.deepspeed_config import is_bfloat16
from mgrpo.config.load import load_recipe
from mgrpo.training.launcher import coarsest_dtype, max_draft_tokens


@pytest.mark.parametrize(
    ("overrides", "device", "learner_is_bf16", "coarsest"),
    [
        (["model.dtype=float32"], "cpu", False, "float32"),
        (["model.dtype=float32"], "cuda", False, "tf32"),  # the quickstart on a GPU
        (["model.dtype=float32", "learner.dtype=bfloat16"], "cuda", True, "bfloat16"),
        (["model.dtype=float32", "engines.dtype=float16"], "cuda", False, "bfloat16"),
        (["model.dtype=bfloat16"], "cuda", True, "bfloat16"),
        (["model.dtype=bfloat16"], "cpu", False, "bfloat16"),
        (["model.dtype=bfloat16", "learner.dtype=float32"], "cuda", False, "bfloat16"),
    ],
)
def test_the_learner_computes_in_the_policys_type_and_the_probe_allows_for_the_coarsest(
    overrides: list[str], device: str, learner_is_bf16: bool, coarsest: str
) -> None:
    config = load_recipe("quickstart", overrides)
    assert is_bfloat16(config.learner.dtype, config.model.dtype, device) is learner_is_bf16
    found = coarsest_dtype(
        model=config.model.dtype,
        engines=config.engines.dtype,
        learner=config.learner.dtype,
        device=device,
    )
    assert found == coarsest


def test_an_engine_drafts_as_long_as_any_layer_that_it_serves() -> None:
    layers = load_recipe("mgrpo_three_layers").layers
    longest = {"max_draft_tokens": 5}, {"max_draft_tokens": 9}
    own = [
        type(layer).model_validate({**layer.model_dump(), "speculation": speculation})
        for layer, speculation in zip(layers, (None, *longest), strict=True)
    ]
    assert [max_draft_tokens(own, (number,)) for number in (1, 2, 3)] == [0, 5, 9]
    assert max_draft_tokens(own, (1, 2, 3)) == 9
