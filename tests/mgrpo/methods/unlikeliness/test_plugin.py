"""The unlikeliness reward through the learner's own seam."""

import pytest
import torch

from learner.batch import build_batch
from mgrpo.check.plugin_warnings import plugin_warnings
from mgrpo.config import ObjectiveConfig
from mgrpo.methods.unlikeliness.plugin import unlikeliness_factors
from tests.learner.builders import completion, long, plugin, run_config, solve_layer, with_status

EXACT = ObjectiveConfig()
Z_SCORE = {"epsilon": 0.0}
MEANS = [-0.2, -0.9, -0.1, -0.5]


def built(completions, logprobs, **settings):
    """A step whose tokens have these log-probabilities."""
    return build_batch(
        completions,
        [solve_layer(advantage=Z_SCORE)],
        EXACT,
        plugins=[plugin("unlikeliness", **settings)],
        measurements={"policy_logprobs": torch.tensor(logprobs, dtype=torch.float64)},
    )


def group(rewards):
    return [completion(f"q/{n}", value) for n, value in enumerate(rewards, start=1)]


def advantages(batch):
    return [row.advantages[0] for row in batch.all_rows]


def test_the_worked_group_gets_its_rewards_and_advantages():
    batch = built(group([1.0, 1.0, 0.0, 1.0]), MEANS)
    assert batch.shaped_rewards == pytest.approx([0.875, 1.0, 0.0, 0.9375])
    assert advantages(batch) == pytest.approx([0.364513, 0.629613, -1.491189, 0.497063], abs=1e-6)


def test_pass_at_n_counts_groups_that_do_not_train_too():
    """Of four problems with two completions each; checks of the last one's failed."""
    step = [
        completion(f"{name}/{n}", value)
        for name, rewards in (("q", [1.0, 0.0]), ("p", [0.0, 0.0]), ("r", [1.0, 1.0]))
        for n, value in enumerate(rewards, start=1)
    ]
    step += [with_status(completion(f"s/{n}", 0.0), "error") for n in (1, 2)]
    batch = built(step, [-1.0] * len(step))
    assert batch.metrics["unlikeliness/pass_at_group"] == (2.0, 3.0)


def test_strength_zero_is_grpo():
    batch = built(group([1.0, 1.0, 0.0, 1.0]), MEANS, strength=0)
    assert advantages(batch) == pytest.approx([0.5, 0.5, -1.5, 0.5])


def test_of_equally_likely_completions_the_earlier_counts_as_likelier():
    found = unlikeliness_factors(torch.tensor([-1.0, -1.0, -1.0, -1.0]), strength=0.4)
    assert found.tolist() == pytest.approx([0.7, 0.8, 0.9, 1.0])


def test_ranks_are_by_the_mean_token_or_by_the_whole_completion():
    pair = [long("q/1", 1.0, 3), long("q/2", 1.0, 1), completion("q/3", 0.0)]
    logprobs = [-0.3, -0.3, -0.3, -0.5, -2.0]  # means -0.3, -0.5, -2; sums -0.9, -0.5, -2
    by_mean = built(pair, logprobs, strength=0.3).shaped_rewards
    by_sum = built(pair, logprobs, strength=0.3, rank_by="sum").shaped_rewards
    assert by_mean == pytest.approx([0.8, 0.9, 0.0])
    assert by_sum == pytest.approx([0.9, 0.8, 0.0])


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_uniform_groups_are_left_out_although_shaping_would_make_them_differ(value):
    batch = built(group([value] * 4), MEANS)
    assert not batch.rows
    assert {one.reason for one in batch.selections} == {"its group is all right or all wrong"}


def test_uniform_groups_do_not_dilute_the_others():
    """What is dropped is in no denominator: each of the 4 rows left weighs 1/4."""
    other = [completion(f"p/{n}", 1.0) for n in range(1, 5)]
    batch = built(group([1.0, 1.0, 0.0, 1.0]) + other, MEANS * 2)
    assert [row.token_weights.tolist() for row in batch.rows] == [[0.25]] * 4


def test_uniform_groups_can_be_kept():
    batch = built(group([1.0] * 4), MEANS, drop_uniform=False)
    assert batch.shaped_rewards == pytest.approx([0.875, 1.0, 0.8125, 0.9375])
    assert len(batch.rows) == 4


def test_completions_whose_check_failed_have_no_rank():
    four = [*group([1.0, 1.0, 0.0]), with_status(completion("q/4", 0.0), "error")]
    batch = built(four, [-0.2, -0.9, -0.1, 0.0], strength=0.3)
    assert batch.shaped_rewards == pytest.approx([0.9, 1.0, 0.0, 0.0])


def test_a_filter_that_drops_what_is_unlikely_is_warned_of():
    config = run_config(plugins=[{"use": "unlikeliness"}, {"use": "desel"}])
    assert any(
        "desel leaves out unlikely completions" in one
        for one in plugin_warnings(config.method_view)
    )
