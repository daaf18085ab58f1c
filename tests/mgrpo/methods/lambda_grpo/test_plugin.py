"""λ-GRPO through the learner's own seam."""

import pytest

from learner.batch import build_batch
from learner.plugin import LearnerPlugin
from mgrpo.config import ObjectiveConfig
from mgrpo.errors import ConfigError
from mgrpo.plugin import load_plugins
from tests.learner.builders import completion, layer, plugin, run_config, solve_layer, with_status

EXACT = ObjectiveConfig()
Z_SCORE = {"epsilon": 0.0}
TOKENS = ([5, 6, 7], [5, 6, 8, 9], [5, 4])
THIRD, HALF = 1 / 3, 1 / 2
FACTORS = [[THIRD, HALF, 1], [THIRD, HALF, 1, 1], [THIRD, 1]]


def tokens(name, reward, token_ids, **changes):
    return completion(
        name, reward, token_ids=token_ids, rollout_logprobs=[-1.0] * len(token_ids), **changes
    )


def worked_group():
    return [
        tokens(f"q/{number}", reward, ids)
        for number, (reward, ids) in enumerate(zip([1.0, 0.0, 0.0], TOKENS, strict=True), start=1)
    ]


def objective_value(rows):
    """J where every ratio is 1."""
    return sum(
        a * w for row in rows for a, w in zip(row.advantages, row.token_weights, strict=True)
    )


def built(completions, *, plugins=True, objective=EXACT, **settings):
    parts = [plugin("lambda_grpo")] if plugins else []
    return build_batch(
        completions, [solve_layer(**{"advantage": Z_SCORE, **settings})], objective, plugins=parts
    )


def test_the_worked_group_gets_its_advantages_and_factors():
    rows = built(worked_group()).all_rows
    plain = built(worked_group(), plugins=False).all_rows
    assert [row.advantages[0] for row in rows] == pytest.approx([1.154701, -0.577350, -0.577350])
    for row, base, factors in zip(rows, plain, FACTORS, strict=True):
        assert row.token_weights == pytest.approx(
            [w * f for w, f in zip(base.token_weights, factors, strict=True)]
        )


@pytest.mark.parametrize(
    ("aggregation", "plain", "expected"),
    [("token_mean", 0.0, -0.032075), ("seq_mean", 0.0, -0.029402)],
)
def test_the_worked_objective(aggregation, plain, expected):
    without = objective_value(built(worked_group(), plugins=False, aggregation=aggregation).rows)
    assert without == pytest.approx(plain, abs=1e-6)
    found = objective_value(built(worked_group(), aggregation=aggregation).rows)
    assert found == pytest.approx(expected, abs=1e-6)


def test_the_kl_term_is_divided_too():
    """Its factor multiplies token_weights, which both terms share."""
    objective = ObjectiveConfig(kl={"weight": 0.1})
    (row, *_) = built(worked_group(), objective=objective).rows
    assert row.kl_weight == 0.1
    assert row.token_weights[2] == pytest.approx(3 * row.token_weights[0])


def test_different_first_tokens_leave_grpo_as_it_is():
    apart = [tokens(f"q/{n}", float(n == 1), [n, 9]) for n in (1, 2, 3)]
    assert built(apart).all_rows == built(apart, plugins=False).all_rows


def test_completions_whose_check_failed_are_in_no_set():
    group = worked_group()
    group[2] = with_status(group[2], "timeout")
    rows = built(group).all_rows
    plain = built(group, plugins=False).all_rows
    factor = rows[0].token_weights[0] / plain[0].token_weights[0]
    assert factor == pytest.approx(1 / 2)


def test_beginnings_of_different_prompts_are_different():
    """Corrections of one problem are compared with each other but read different attempts."""
    chain = [
        solve_layer(advantage=Z_SCORE),
        layer(advantage=Z_SCORE, group_by="query", select="none"),
    ]
    rows = build_batch(
        [
            tokens("q/1/1", 1.0, [5, 6], prompt=[1]),
            tokens("q/2/1", 0.0, [5, 6], prompt=[2]),
        ],
        chain,
        EXACT,
        plugins=[plugin("lambda_grpo")],
    ).rows
    assert [row.token_weights.tolist() for row in rows] == [[0.25, 0.25], [0.25, 0.25]]


def test_another_layer_is_left_alone():
    found = build_batch(
        worked_group(),
        [solve_layer(advantage=Z_SCORE), layer(advantage=Z_SCORE)],
        EXACT,
        plugins=[plugin("lambda_grpo", 2)],
    )
    assert found.all_rows == built(worked_group(), plugins=False).all_rows


@pytest.mark.parametrize("other", ["gspo", "gmpo"])
def test_it_is_refused_beside_ratios_of_whole_completions(other):
    config = run_config(plugins=[{"use": "lambda_grpo"}], objective={"loss": other})
    with pytest.raises(ConfigError, match=f"lambda_grpo or {other}"):
        load_plugins(config.method_view, LearnerPlugin)
