"""Critique-GRPO: the group of attempts and a refinement, and what its tokens earn, by hand."""

from __future__ import annotations

import pytest
import torch

from learner.batch import TrainingBatch, build_batch, with_added
from learner.objective import microbatch_loss
from learner.packing import collate
from learner.plugin import LearnerPlugin
from mgrpo.config import MethodView
from mgrpo.config.load import load_recipe
from mgrpo.errors import ConfigError, LearnerError
from mgrpo.plugin import Plugin, load_plugins
from mgrpo.types import Completion
from tests.learner.builders import completion, long, with_status

REFINED = "q/2/1#-1"
FAMILY = [
    *(completion(f"q/{number}", float(number == 3)) for number in range(1, 8)),
    long("q/1/1", 0.0, 2, prompt=[1, 2, 9]),
    long("q/2/1", 1.0, 3, prompt=[1, 2, 9]),
    long("q/3/1", 1.0, 4, prompt=[1, 2, 9]),
]


def method(*overrides: str) -> MethodView:
    return load_recipe("methods/critique_grpo", list(overrides)).method_view


def built(completions: list[Completion], *overrides: str) -> TrainingBatch:
    view = method(*overrides)
    plugins = load_plugins(view, LearnerPlugin)
    every = with_added(completions, (), plugins)
    return build_batch(every, view.layers, view.objective, plugins=plugins)


def test_the_first_right_refinement_joins_the_group_and_its_baseline() -> None:
    """Rewards 0, 0, 1, 0, 0, 0, 0 and 1 for the refinement: mean 2/8, advantages 3/4 and -1/4."""
    batch = built(FAMILY)
    rows = {row.completion_id: row for row in batch.all_rows}
    assert [name for name in rows if "#" in name] == [REFINED]
    assert rows[REFINED].advantages.tolist() == [0.75] * 3
    assert rows["q/3"].advantages.tolist() == [0.75]
    assert rows["q/1"].advantages.tolist() == [-0.25]
    assert batch.metrics["refined_group/right_fraction"] == (1.0, 1.0)
    assert batch.metrics["refined_group/rescued_fraction"] == (0.0, 0.0)


def test_it_answers_the_problem_s_prompt_as_one_of_eight() -> None:
    """Losses are divided by the 8 rows and the length limit of 64, whatever their own length."""
    batch = built(FAMILY)
    row = next(row for row in batch.rows if row.completion_id == REFINED)
    assert row.input_token_ids.tolist() == [1, 2, 3, 3] and row.layer == 1
    assert row.is_sampled is not None and not row.is_sampled.any()
    assert row.token_weights.tolist() == pytest.approx([1 / 8 / 64] * 3)
    assert {row.layer for row in batch.rows} == {1}, "refinements train under no other prompt"
    assert batch.totals[1] == 8 * 64


def test_where_every_attempt_is_wrong_a_right_refinement_teaches() -> None:
    """Seven wrong attempts and a right refinement: 7/8 and -1/8."""
    failed = [completion(f"q/{number}", 0.0) for number in range(1, 8)]
    batch = built([*failed, completion("q/4/1", 1.0)])
    found = {one.completion_id: one.advantage for one in batch.selections}
    assert found["q/1"] == -0.125 and found["q/4/1#-1"] == 0.875
    assert batch.metrics["refined_group/rescued_fraction"] == (1.0, 1.0)


def test_of_wrong_refinements_the_best_joins_and_is_pushed_down() -> None:
    """Attempts 1, 0; refinements 0 and 0.5, neither right: rewards 1, 0, 0.5, mean 0.5."""
    made = [completion("q/1", 1.0), completion("q/2", 0.0)]
    batch = built([*made, completion("q/1/1", 0.0), completion("q/2/1", 0.5)])
    found = {one.completion_id: one.advantage for one in batch.selections}
    assert found["q/2/1#-1"] == 0.0 and found["q/1"] == 0.5 and "q/1/1#-1" not in found


def test_several_may_join() -> None:
    batch = built(FAMILY, "plugins.0.settings={per_problem: 2}")
    added = [one.completion_id for one in batch.selections if "#" in one.completion_id]
    assert added == [REFINED, "q/3/1#-1"]


def test_a_refinement_whose_check_failed_does_not_join() -> None:
    made = [completion("q/1", 1.0), completion("q/2", 0.0)]
    batch = built([*made, with_status(completion("q/1/1", 1.0), "timeout")])
    assert [one.completion_id for one in batch.selections] == ["q/1", "q/2", "q/1/1"]


def test_unlikely_tokens_of_a_right_refinement_train_most() -> None:
    """Probabilities 0.1 and 0.9 with gamma 0.1: A γp/(p+γ)² is 0.25 A and 0.09 A. Two attempts of
    reward 0: A = 2/3, and each of the 3 rows is divided by 3 · 64."""
    made = [completion("q/1", 0.0), completion("q/2", 0.0)]
    made.append(long("q/1/1", 1.0, 2, prompt=[1, 2, 9]))
    row = next(row for row in built(made).rows if row.completion_id == "q/1/1#-1")
    view = method()
    piece = collate([row], merge_prefixes=False)
    own = torch.tensor([0.1, 0.9]).log().requires_grad_()
    parts = load_plugins(view, LearnerPlugin)
    never_read = torch.full((2,), float("nan"))
    microbatch_loss(piece, own, never_read, None, own * 0, view.objective, parts).backward()
    assert own.grad is not None
    expected = [-2 / 3 * value / 3 / 64 for value in (0.25, 0.09)]
    assert own.grad.tolist() == pytest.approx(expected, rel=1e-5)


def test_first_attempts_must_be_known() -> None:
    with pytest.raises(LearnerError, match="first attempt of q/2/1 was not given"):
        built([completion("q/2/1", 1.0)])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["plugins.0.layers=[solve]"], "among first attempts"),
        (["plugins.0.layers=[correct]"], "among first attempts"),
        (["objective.update_order=sequential"], "those of one layer"),
        (["plugins=[{use: refined_group}, {use: self_distillation}]"], "the same corrections"),
    ],
)
def test_what_it_cannot_work_with_is_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_plugins(method(*overrides), Plugin)
