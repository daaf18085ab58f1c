"""MGRPO of three layers: what the third one corrects and how it trains, by the recipe."""

import pytest

from tests.learner.builders import attempts, completion
from tests.mgrpo.methods.shipped import (
    advantages_of,
    built,
    children_of,
    loss_and_gradient,
    prompt_of,
    samples,
    selected_in,
    shipped,
)

THREE = shipped("mgrpo_three_layers")
STEP = [
    *attempts([1, 0, 0, 1]),
    *(completion("q/1/1", 1.0), completion("q/1/2", 0.0)),
    *(completion("q/2/1", 0.0), completion("q/2/2", 0.0)),
    *(completion("q/1/1/1", 0.0), completion("q/1/1/2", 1.0)),
    *(completion("q/2/1/1", 1.0), completion("q/2/1/2", 1.0)),
    *(completion("q/2/2/1", 0.0), completion("q/2/2/2", 0.0)),
]


def script(prompt: str, number: int) -> str:
    """Says which turn it is."""
    turn = "third" if "second" in prompt else "second" if "first" in prompt else "first"
    return f"{turn} {number}"


def test_layer_three_reads_a_correction_of_layer_two_and_not_the_attempt_before_it():
    found = samples(THREE, script)
    assert [len(found[layer]) for layer in (1, 2, 3)] == [4, 8, 16]
    for correction in found[2]:
        family = children_of(correction, found[3])
        (prompt,) = {prompt_of(one) for one in family}
        (phrase,) = {one.guidance_id for one in family}
        assert len(family) == 2 and phrase is not None
        assert {one.group_key for one in family} == {correction.completion_id}
        for part in ("3+4?", correction.text, THREE.layers[2].guidance.phrases[phrase]):
            assert part in prompt
        assert "first" not in prompt


def test_a_group_of_two_has_one_size_of_advantage_in_every_layer():
    batch = built(THREE, STEP)
    found = list(advantages_of(batch).values())
    size = 0.707107
    assert found[4:8] == pytest.approx([size, -size, 0, 0], abs=1e-5)
    assert found[8:] == pytest.approx([-size, size, 0, 0, 0, 0], abs=1e-5)


def test_corrections_of_corrections_train_where_one_of_their_group_is_right():
    batch = built(THREE, STEP)
    assert selected_in(batch, 2) == ["q/1/1", "q/1/2"]
    assert selected_in(batch, 3) == ["q/1/1/1", "q/1/1/2", "q/2/1/1", "q/2/1/2"]


def test_the_loss_has_all_three_each_over_what_it_sampled():
    """One right answer of each layer moves to the ratio 1.1; 4, 4 and 6 are sampled."""
    rows = built(THREE, STEP).rows
    moved = ("q/1", "q/1/1", "q/1/1/2")
    ratios = [1.1 if row.completion_id in moved else 1.0 for row in rows]
    loss, _ = loss_and_gradient(THREE, rows, ratios)
    expected = 0.1 * (0.866025 / 4 + 0.707107 / 4 + 0.707107 / 6)
    assert loss == pytest.approx(-expected, rel=1e-5)
