"""RLTF-SD: corrections as answers to the problem alone, by hand."""

from __future__ import annotations

from typing import Any

import pytest

from learner.batch import build_batch, with_added
from learner.other_prompts import as_answer_to
from mgrpo.config import ObjectiveConfig
from mgrpo.config.load import load_recipe
from mgrpo.errors import ConfigError, LearnerError
from mgrpo.plugin import Plugin, load_plugins
from mgrpo.types import Completion
from tests.learner.builders import completion, layer, long, plugin, solve_layer, with_status

CHAIN = [solve_layer(), layer(select="none")]
FAMILY = [
    *(completion(f"q/{number}", reward) for number, reward in ((1, 1.0), (2, 0.0), (3, 0.0))),
    completion("q/4", 0.0),
    long("q/2/1", 1.0, 2, prompt=[1, 2, 9]),
    long("q/2/2", 0.0, 4, prompt=[1, 2, 9]),
]


def batch_of(completions: list[Completion], **settings: Any) -> Any:
    own = plugin("self_distillation", **settings)
    every = with_added(completions, (), [own])
    return every, build_batch(every, CHAIN, ObjectiveConfig(), plugins=[own])


def test_a_correction_is_worth_what_it_is_better_than_the_mean_first_attempt() -> None:
    """Attempts 1, 0, 0, 0, corrections 1, 0: advantages 1 - 1/4 and 0 - 1/4."""
    every, batch = batch_of(FAMILY)
    assert [one.completion_id for one in every[6:]] == ["q/2/1#-1", "q/2/2#-1"]
    rows = {row.completion_id: row for row in batch.all_rows}
    right, wrong = rows["q/2/1#-1"], rows["q/2/2#-1"]
    assert right.advantages.tolist() == [0.75] * 2 and wrong.advantages.tolist() == [-0.25] * 4
    assert batch.metrics["self_distillation/advantage_mean"] == (0.5, 2.0)
    assert batch.metrics["self_distillation/positive_fraction"] == (1.0, 2.0)


def test_it_answers_the_problem_s_prompt_and_its_ratio_is_the_learner_s_own() -> None:
    _, batch = batch_of(FAMILY)
    rows = {row.completion_id: row for row in batch.all_rows}
    row, own = rows["q/2/1#-1"], rows["q/2/1"]
    assert row.input_token_ids.tolist() == [1, 2, 3] and own.input_token_ids.tolist() == [
        1,
        2,
        9,
        3,
    ]
    assert row.layer == 2 and not row.has_recorded_ratio.any()
    assert row.is_sampled is not None and not row.is_sampled.any()


def test_it_is_divided_by_the_corrections_that_were_sampled() -> None:
    """2 corrections: each token of a row of T has weight / 2 / T; those of the step stay as they
    are without the plug-in."""
    _, batch = batch_of(FAMILY, weight=0.5)
    plain = build_batch(FAMILY, CHAIN, ObjectiveConfig())
    rows = {row.completion_id: row.token_weights.tolist() for row in batch.all_rows}
    assert rows["q/2/1#-1"] == pytest.approx([0.5 / 2 / 2] * 2)
    assert rows["q/2/2#-1"] == pytest.approx([0.5 / 2 / 4] * 4)
    assert [row.token_weights.tolist() for row in plain.all_rows] == [
        rows[one.completion_id] for one in FAMILY
    ]
    assert batch.totals == plain.totals
    for name in ("zero_variance_fraction", "selected_fraction", "advantage_abs_mean"):
        assert batch.metrics[f"layer2/{name}"] == plain.metrics[f"layer2/{name}"]


def test_a_correction_whose_check_failed_is_not_distilled() -> None:
    failed = with_status(completion("q/2/3", 1.0), "timeout")
    every, _ = batch_of([*FAMILY, failed])
    assert len(every) == len(FAMILY) + 1 + 2


def test_tokens_without_loss_have_none_under_the_other_prompt_either() -> None:
    one = long("q/2/1", 1.0, 3, train_mask=[True, False, True])
    added = as_answer_to(FAMILY[0], one, augmented_by="x")
    assert added.is_trained.tolist() == [True, False, True] and added.counts_as == 0


def test_first_attempts_must_be_known() -> None:
    with pytest.raises(LearnerError, match="first attempt of q/2/1 was not given"):
        with_added(FAMILY[4:], (), [plugin("self_distillation")])
    added = with_added(FAMILY[4:], FAMILY[:4], [plugin("self_distillation")])
    assert [one.prompt_token_ids.tolist() for one in added[2:]] == [[1, 2], [1, 2]]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("layers.correct.denominator=per_parent", "count a problem as one more parent"),
        ("plugins.0.layers=[solve]", "none of its layers corrects"),
    ],
)
def test_what_it_cannot_work_with_is_refused(override: str, message: str) -> None:
    config = load_recipe("methods/rltf_sd", [override])
    with pytest.raises(ConfigError, match=message):
        load_plugins(config.method_view, Plugin)
