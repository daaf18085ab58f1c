import dataclasses
import math

import pytest

from learner.batch import build_batch
from learner.plugin import LearnerPlugin
from mgrpo.config import ObjectiveConfig
from mgrpo.errors import LearnerError
from tests.learner.builders import (
    attempts,
    completion,
    corrections,
    layer,
    long,
    random_completions,
    solve_layer,
    with_status,
)

EXACT = {"ddof": 0, "epsilon": 0.0}


def objective(kl_weight=0.0):
    return ObjectiveConfig(kl={"weight": kl_weight})


def batch_of(completions, kl_weight=0.0, first=None, advantage_config=None, **settings):
    return build_batch(
        completions,
        [
            first or solve_layer(advantage=EXACT),
            layer(**{"advantage": {**EXACT, **(advantage_config or {})}, **settings}),
        ],
        objective(kl_weight),
    )


def correction_advantages(**settings):
    batch = batch_of([*attempts(), *corrections()], **settings)
    return [selection.advantage for selection in batch.selections[4:]]


def total_loss(batch, token_losses):
    """The step's loss from one loss per token, as the learner adds it up."""
    return sum(
        row.token_weights[0] * sum(losses)
        for row, losses in zip(batch.rows, token_losses, strict=True)
    )


def test_first_attempts_of_the_worked_example():
    batch = batch_of(attempts())
    assert [selection.advantage for selection in batch.selections] == pytest.approx([1, -1, -1, 1])
    assert all(selection.selected for selection in batch.selections)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (
            {"advantage_config": EXACT},
            [0.707107, 0.707107, -1.414214, 1.414214, -0.707107, -0.707107, *[0] * 6],
        ),
        (
            {"advantage_config": {"ddof": 1, "epsilon": 1e-6}},
            [0.577349, 0.577349, -1.154699, 1.154699, -0.577349, -0.577349, *[0] * 6],
        ),
        ({"group_by": "query"}, [1, 1, -1, 1, -1, -1, -1, -1, -1, 1, 1, 1]),
        ({"advantage": "improvement"}, [0, 0, -1, 1, 0, 0, 0, 0, 0, 0, 0, 0]),
        ({"advantage": "const_positive"}, [1, 1, 0, 1, 0, 0, 0, 0, 0, 1, 1, 1]),
    ],
)
def test_correction_advantages_of_the_worked_example(settings, expected):
    assert correction_advantages(**settings) == pytest.approx(expected, abs=1e-6)


def test_groups_with_success_keeps_nine_of_which_six_carry_gradient():
    batch = batch_of([*attempts(), *corrections()], select="groups_with_success")
    kept = [selection for selection in batch.selections[4:] if selection.selected]
    assert len(kept) == 9
    assert len([row for row in batch.rows if row.layer == 2]) == 6
    assert batch.metrics["layer2/selected_fraction"] == (9.0, 12.0)
    assert batch.metrics["layer2/zero_variance_fraction"] == (2.0, 4.0)
    assert batch.metrics["layer2/advantage_abs_mean"] == (pytest.approx(5.656854), 9.0)


def test_rows_without_advantage_are_computed_only_for_a_kl_penalty():
    plain = batch_of([*attempts(), *corrections()])
    with_kl = batch_of([*attempts(), *corrections()], kl_weight=0.01)
    assert len(plain.rows) == 4 + 6 and len(with_kl.rows) == 4 + 9
    weights = {row.completion_id: row.token_weights[0] for row in with_kl.rows}
    assert all(weights[row.completion_id] == row.token_weights[0] for row in plain.rows)


def test_success_only_after_normalising_keeps_the_baseline_of_the_whole_group():
    batch = batch_of([*attempts(), *corrections()], select="success_only_post_norm")
    kept = [selection.advantage for selection in batch.selections[4:] if selection.selected]
    assert kept == pytest.approx([0.707107, 0.707107, 1.414214, 0, 0, 0], abs=1e-6)
    assert batch.notes == []


def test_success_only_before_normalising_takes_the_training_signal_away_and_warns():
    batch = batch_of([*attempts(), *corrections()], select="success_only_pre_norm")
    kept = [selection.advantage for selection in batch.selections[4:] if selection.selected]
    assert kept == [0.0] * 6
    assert len(batch.notes) == 1 and "all with advantage 0" in batch.notes[0]


def test_a_strict_fix_keeps_one_correction():
    batch = batch_of(
        [*attempts(), *corrections()], select="success_only_post_norm", success="strict_fix"
    )
    kept = [selection.completion_id for selection in batch.selections[4:] if selection.selected]
    assert kept == ["q/2/1"]


@pytest.mark.parametrize(
    ("select", "denominator", "expected"),
    [
        ("none", "sampled", -0.070711),
        ("success_only_post_norm", "retained", -1.555635),
        ("success_only_post_norm", "sampled", -0.518545),
        ("success_only_post_norm", "per_parent", -1.555635),
    ],
)
def test_the_loss_of_one_parents_corrections(select, denominator, expected):
    """Parent 2 alone, ratios 1.1, 0.9 and 1.0 on one-token corrections."""
    children = corrections()[3:6]
    batch = batch_of(children, select=select, denominator=denominator)
    ratios = {"q/2/1": 1.1, "q/2/2": 0.9, "q/2/3": 1.0}
    losses = [[-ratios[row.completion_id] * row.advantages[0]] for row in batch.rows]
    assert total_loss(batch, losses) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        # Six corrections of 1 to 6 tokens, loss_weight 0.5, four of them right.
        ({"aggregation": "seq_mean", "denominator": "sampled"}, 0.5 / 6 / 2),
        ({"aggregation": "seq_mean", "denominator": "retained"}, 0.5 / 4 / 2),
        ({"aggregation": "token_mean", "denominator": "sampled"}, 0.5 / 21),
        ({"aggregation": "token_mean", "denominator": "retained"}, 0.5 / (1 + 2 + 4 + 6)),
        ({"aggregation": "fixed_length", "denominator": "sampled"}, 0.5 / (6 * 8)),
        ({"aggregation": "fixed_length", "denominator": "retained"}, 0.5 / (4 * 8)),
        ({"aggregation": "seq_mean", "denominator": "per_parent"}, 0.5 / 2 / 2 / 2),
        ({"aggregation": "token_mean", "denominator": "per_parent"}, 0.5 / 2 / 3),
        ({"aggregation": "fixed_length", "denominator": "per_parent"}, 0.5 / 2 / (2 * 8)),
    ],
)
def test_the_weight_of_a_two_token_row(settings, expected):
    children = [
        long("q/1/1", 1.0, 1),
        long("q/1/2", 1.0, 2),
        long("q/1/3", 0.0, 3),
        long("q/2/1", 1.0, 4),
        long("q/2/2", 0.0, 5),
        long("q/2/3", 1.0, 6),
    ]
    batch = batch_of(children, select="success_only_post_norm", loss_weight=0.5, **settings)
    weights = {row.completion_id: row.token_weights[0] for row in batch.rows}
    assert weights["q/1/2"] == pytest.approx(expected)


def test_parents_that_retain_nothing_do_not_dilute_the_mean_over_parents():
    batch = batch_of(corrections(), select="success_only_post_norm", denominator="per_parent")
    weights = {row.completion_id: row.token_weights[0] for row in batch.rows}
    assert weights["q/1/1"] == pytest.approx(1 / 3 / 2)
    assert weights["q/2/1"] == pytest.approx(1 / 3)


def test_a_failed_check_is_out_of_the_loss_and_out_of_the_groups_statistics():
    children = [with_status(completion("q/9/9", 0.0), "timeout"), *corrections()[:3]]
    children[0] = dataclasses.replace(children[0], parent_id="q/1", group_key="q/1")
    batch = batch_of(children)
    assert [v.advantage for v in batch.selections] == pytest.approx(
        [0, 0.707107, 0.707107, -1.414214], abs=1e-6
    )
    assert batch.selections[0].reason == "the check failed (timeout)"
    # Denominator "sampled" counts the three usable ones.
    assert batch.rows[0].token_weights[0] == pytest.approx(1 / 3)


def test_a_group_with_one_usable_member_gets_no_advantage():
    members = attempts([1.0, 0.0])
    members[1] = with_status(members[1], "error")
    batch = batch_of(members)
    assert batch.rows == [] and batch.selections[0].advantage == 0.0
    assert "nothing to compare it with" in batch.selections[0].reason


def test_a_group_of_equal_rewards_contributes_no_row():
    batch = batch_of(attempts([1.0, 1.0, 1.0]))
    assert batch.rows == []
    assert batch.metrics["layer1/zero_variance_fraction"] == (1.0, 1.0)
    assert all(selection.selected for selection in batch.selections)


def test_advantages_of_each_group_sum_to_zero_before_selection():
    completions = random_completions(6)
    batch = batch_of(completions, select="success_only_post_norm")
    sums: dict[str, float] = {}
    for one, selection in zip(completions, batch.selections, strict=True):
        sums[one.group_key] = sums.get(one.group_key, 0.0) + selection.advantage
    assert max(abs(value) for value in sums.values()) < 1e-6
    assert all(math.isfinite(value) for value in sums.values())


def test_groups_of_different_parents_never_mix():
    """Changing one parent's corrections leaves the advantages of all others as they were."""
    before = correction_advantages()
    changed = [*attempts(), *corrections([[0, 0, 1], [1, 0, 0], [0, 0, 0], [1, 1, 1]])]
    after = [selection.advantage for selection in batch_of(changed).selections[4:]]
    assert after[3:] == before[3:] and after[:3] != before[:3]


def test_only_the_correction_trains_and_its_prompt_is_the_layer_two_prompt():
    child = long("q/1/1", 1.0, 5)
    child = dataclasses.replace(child, prompt=[1, 2, 9, 9, 7])
    batch = batch_of([child, long("q/1/2", 0.0, 2)])
    row = batch.rows[0]
    assert row.prompt_token_ids.tolist() == [1, 2, 9, 9, 7]
    assert len(row.token_ids) == 5 and row.num_input_tokens == 9


def test_a_parents_stored_logprobs_do_not_touch_the_layer_two_loss():
    parents = attempts()
    moved = [dataclasses.replace(one, rollout_logprobs=[-9.0]) for one in parents]
    rows = [
        [row for row in batch_of([*which, *corrections()]).rows if row.layer == 2]
        for which in (parents, moved)
    ]
    assert rows[0] == rows[1]


def test_context_parents_are_compared_with_but_do_not_train():
    layers = [solve_layer(), layer(advantage="improvement", select="none")]
    batch = build_batch(corrections(), layers, objective(), context=attempts())
    assert {row.completion_id for row in batch.rows} == {"q/1/3", "q/2/1"}
    assert len(batch.selections) == 12


def test_a_layer_with_loss_weight_zero_adds_no_row():
    batch = batch_of(
        [*attempts(), *corrections()], first=solve_layer(advantage=EXACT, loss_weight=0.0)
    )
    assert {row.layer for row in batch.rows} == {2}
    assert batch.selections[0].advantage == pytest.approx(1.0)


def test_verdicts_keep_the_order_of_the_completions():
    completions = [*corrections(), *attempts()]
    names = [selection.completion_id for selection in batch_of(completions).selections]
    assert names == [one.completion_id for one in completions]


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ([completion("q/1", 1.0), completion("q/1", 0.0)], "q/1 was given twice"),
        ([completion("q/1/2/3", 1.0)], "is of layer 3; the chain has 2"),
        ([completion("q/1", 1.0, rollout_logprobs=[])], "1 tokens but 0 rollout"),
        ([completion("q/1", 1.0, prompt=[])], "empty prompt"),
        ([completion("q/1", math.nan)], "has reward nan"),
    ],
)
def test_inconsistent_completions_are_refused_by_name(broken, message):
    with pytest.raises(LearnerError, match=message):
        batch_of(broken)


def test_tokens_that_may_not_train_have_no_weight():
    mask = [True, False, True]
    rows = [long("q/1", 1.0, 3, train_mask=mask), long("q/2", 0.0, 3)]
    batch = batch_of(rows, first=solve_layer(aggregation="token_mean"))
    masked, whole = (list(row.token_weights) for row in batch.rows)
    assert masked == pytest.approx([1 / 5, 0, 1 / 5])  # five tokens train in all
    assert whole == pytest.approx([1 / 5] * 3)


class TenTimes(LearnerPlugin):
    """Multiplies every reward by ten, of all layers."""

    def shape_rewards(self, batch, rewards):
        return rewards * 10


def test_shaped_rewards_stay_on_the_plug_ins_own_layers():
    part = TenTimes(LearnerPlugin.Settings(), frozenset({2}))
    given = [*attempts(), *corrections()]
    batch = build_batch(given, [solve_layer(), layer()], objective(), plugins=[part])
    plain = [one.reward.value for one in given]
    assert batch.shaped_rewards == plain[:4] + [10 * value for value in plain[4:]]


@pytest.mark.parametrize(("own", "expected"), [(None, 0.5), (0.0, 0.0), (0.25, 0.25)])
def test_a_layers_own_kl_weight_comes_before_the_objectives(own, expected):
    chain = [solve_layer(), layer(kl_weight=own)]
    batch = build_batch([*attempts(), *corrections()], chain, objective(kl_weight=0.5))
    weights = {row.layer: row.kl_weight for row in batch.rows}
    assert weights == {1: 0.5, 2: expected}
