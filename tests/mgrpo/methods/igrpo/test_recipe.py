"""iGRPO: what is refined, what the refinement reads and what trains, by its recipe."""

import re

import pytest

from mgrpo.config.load import load_recipe
from tests.learner.builders import attempts, completion, long
from tests.mgrpo.methods.shipped import (
    advantages_of,
    built,
    loss_and_gradient,
    prompt_of,
    samples,
    selected_in,
    shipped,
)
from tests.repository import REPOSITORY

IGRPO = shipped("igrpo")
REFINED = [completion(f"q/2/{n}", reward) for n, reward in enumerate([1, 1, 0, 1], start=1)]
STEP = [*attempts([0, 1, 0, 1]), *REFINED]


def drafts(right: set[int], seed: int = 0):
    """Drafts and refinements of one problem; these drafts are right."""
    answers = {True: "so 7", False: "so 8"}
    found = samples(IGRPO, lambda prompt, n: f"draft {n}: {answers[n in right]}", seed=seed)
    return found[1], found[2]


def test_a_right_draft_is_refined_and_chance_decides_which():
    chosen = set()
    for seed in range(20):
        made, refinements = drafts({1, 3}, seed)
        (parent,) = {one.parent_id for one in refinements}
        assert (len(made), len(refinements)) == (8, 8)
        chosen.add(parent)
    assert chosen == {"s0p0#1", "s0p0#3"}


def test_refinements_read_the_problem_and_that_draft_and_drafts_the_problem_alone():
    made, refinements = drafts({5})
    (prompt,) = {prompt_of(one) for one in refinements}
    for part in ("Below is the best attempt so far.", "3+4?", "draft 5: so 7", "A further idea"):
        assert part in prompt
    assert prompt.count("draft ") == 1
    assert {prompt_of(one) for one in made} == {"user: 3+4?<end>\nassistant: "}


def test_some_draft_is_refined_where_none_is_right():
    _, refinements = drafts(set())
    assert len(refinements) == 8 and len({one.parent_id for one in refinements}) == 1


def test_refinements_alone_train_compared_with_each_other():
    """Rewards 1, 1, 0, 1: mean 0.75, deviation 0.5."""
    batch = built(IGRPO, STEP)
    found = advantages_of(batch)
    assert [found[one.completion_id] for one in REFINED] == pytest.approx(
        [0.5, 0.5, -1.5, 0.5], abs=1e-5
    )
    assert selected_in(batch, 1) == []
    assert batch.selections[0].reason == "layer 'solve' has loss_weight 0"
    assert {row.layer for row in batch.rows} == {2}


def test_the_loss_is_a_mean_over_refinements_of_means_over_tokens():
    """The first of the failed one's three tokens moves to the ratio 0.9: J changes by 0.15, divided
    by three tokens and four refinements."""
    made = [long("q/2/3", 0.0, 3) if one.completion_id == "q/2/3" else one for one in STEP]
    rows = built(IGRPO, made).rows
    loss, _ = loss_and_gradient(IGRPO, rows, [1.0, 1.0, 0.9, 1.0, 1.0, 1.0])
    assert loss == pytest.approx(-0.15 / 3 / 4, abs=1e-6)


def test_a_kl_term_does_not_bring_the_drafts_back():
    with_kl = shipped("igrpo", "objective.kl.weight=0.1")
    drafts_alone = built(with_kl, STEP).all_rows[:4]
    assert loss_and_gradient(with_kl, drafts_alone, [1.1] * 4, ref_gap=1.0) == (0.0, [0.0] * 4)


def test_refinements_of_which_none_is_right_train_by_their_rewards():
    """Where rewards have parts: deviation 0.353553 of 0.5 and 0."""
    made = [*attempts([0, 0]), completion("q/1/1", 0.5), completion("q/1/2", 0.0)]
    batch = built(IGRPO, made)
    assert selected_in(batch, 2) == ["q/1/1", "q/1/2"]
    found = advantages_of(batch)
    assert [found["q/1/1"], found["q/1/2"]] == pytest.approx([0.707107, -0.707107], abs=1e-5)


@pytest.mark.parametrize(
    "name", ["methods/igrpo", f"{REPOSITORY}/benchmarks/study/recipes/igrpo.yaml"]
)
def test_its_prompt_shows_the_best_draft_without_a_doubt(name: str):
    correct = load_recipe(name).layers[1]
    assert correct.parents.type == "best"
    assert correct.system_prompt == "Below is the best attempt so far. Improve on it."
    assert len(correct.guidance.phrases) == 1
    assert not re.search("wrong|slip|verify|overlook|[Cc]heck", correct.guidance.phrases[0])
