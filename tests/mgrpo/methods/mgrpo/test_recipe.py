"""MGRPO: the example of its page, by its recipe."""

import pytest

from tests.learner.builders import attempts, corrections, long
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

MGRPO = shipped("mgrpo")
STEP = [*attempts(), *corrections()]


def test_the_table_of_the_page():
    """Baselines are of a group's all corrections, before any is left out."""
    batch = built(MGRPO, STEP)
    found = list(advantages_of(batch).values())
    assert found[:4] == pytest.approx([0.866, -0.866, -0.866, 0.866], abs=1e-3)
    confirmed, repaired = [0.577, 0.577, -1.155], [1.155, -0.577, -0.577]
    assert found[4:] == pytest.approx([*confirmed, *repaired, *[0.0] * 6], abs=1e-3)
    assert selected_in(batch, 2) == [f"q/{i}/{j}" for i in (1, 2, 4) for j in (1, 2, 3)]
    # All right: selected, without a gradient.
    assert len(batch.rows) == 4 + 6


def test_both_layers_are_one_loss_and_divide_by_all_that_was_sampled():
    """On policy it is 0. A right attempt's first token of two and a repair's of four move to the
    ratio 1.1: J changes by 0.1 A, divided by their tokens and by 4 attempts and 12 corrections."""
    made = {one.completion_id: one for one in STEP}
    made |= {"q/1": long("q/1", 1.0, 2), "q/2/1": long("q/2/1", 1.0, 4)}
    rows = built(MGRPO, list(made.values())).rows
    on_policy, _ = loss_and_gradient(MGRPO, rows, [1.0] * sum(len(row.token_ids) for row in rows))
    assert on_policy == pytest.approx(0, abs=1e-9)
    ratios: list[float] = []
    for row in rows:
        first = 1.1 if row.completion_id in ("q/1", "q/2/1") else 1.0
        ratios += [first, *[1.0] * (len(row.token_ids) - 1)]
    loss, _ = loss_and_gradient(MGRPO, rows, ratios)
    assert loss == pytest.approx(-0.1 * (0.866025 / 2 / 4 + 1.154701 / 4 / 12), rel=1e-5)


def test_every_attempt_is_corrected_behind_a_phrase_that_its_corrections_share():
    found = samples(MGRPO, lambda prompt, index: f"attempt {index}")
    assert (len(found[1]), len(found[2])) == (4, 12)
    for attempt in found[1]:
        family = children_of(attempt, found[2])
        (prompt,) = {prompt_of(one) for one in family}
        (phrase,) = {one.guidance_id for one in family}
        assert len(family) == 3 and phrase is not None
        assert {one.group_key for one in family} == {attempt.completion_id}
        wording = MGRPO.layers[1].guidance.phrases[phrase]
        for part in ("Check the attempt.", "3+4?", attempt.text, wording):
            assert part in prompt
