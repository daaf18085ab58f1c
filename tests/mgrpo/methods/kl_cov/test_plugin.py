"""KL-Cov: which tokens it holds, and its objective."""

import dataclasses
import math

import numpy as np
import pytest

from learner.batch import build_batch, refreshed
from learner.rows import Minibatch
from mgrpo.check.plugin_warnings import plugin_warnings
from tests.learner.builders import long, plugin, run_config, solve_layer
from tests.learner.exact import floats
from tests.learner.objective_cases import SETTINGS, objective_and_gradient


def test_kl_cov_holds_the_tokens_of_highest_covariance_and_clips_nothing():
    completions = [long("q/1", 1.0, 2), long("q/2", -1.0, 2)]
    part = plugin("kl_cov", share=0.5, weight=0.1)
    measurements = {"policy_logprobs": floats(-0.1, -3, -0.1, -3)}
    solve = solve_layer(advantage="raw_reward")
    batch = build_batch(completions, [solve], SETTINGS, plugins=[part], measurements=measurements)
    assert [row.columns["kl_cov"].tolist() for row in batch.rows] == [
        [1, 0],
        [0, 1],
    ]  # 1.45 of ±1.45
    assert batch.metrics["kl_cov/held_fraction"] == (2.0, 4.0)
    value, gradient = objective_and_gradient(batch.rows, [0.5, 0.5, -0.5, -0.5], part)
    up, down = math.exp(0.5), math.exp(-0.5)
    # Rows weigh 1/2, tokens 1/2 of that; |log-ratio| 0.5 on the first and the last.
    assert value == pytest.approx((2 * up - 2 * down - 2 * 0.1 * 0.5) / 4)
    expected = [up - 0.1, up, -down, -down + 0.1]
    assert gradient == pytest.approx([slope / 4 for slope in expected])


def test_kl_cov_chooses_anew_for_each_update():
    """Covariances 0.5, 0.5, 1.5 and -0.5; what is replayed or untrained is not chosen."""
    part = plugin("kl_cov", share=0.25)
    now = floats(-1, -1, -3, -1)
    (minibatch,) = build_batch(
        [long("q/1", 1.0, 2), long("q/2", -1.0, 2)],
        [solve_layer(advantage="raw_reward")],
        SETTINGS,
        plugins=[part],
        measurements={"policy_logprobs": now},
    ).minibatches

    def chosen(*rows):
        found = refreshed(Minibatch([*rows], minibatch.batch), [part], now, now)
        return [row.columns.get("kl_cov", np.zeros(0)).tolist() for row in found]

    first, second = minibatch.rows
    assert chosen(first, second) == [[0, 0], [1, 0]]
    replayed = dataclasses.replace(second, is_replayed=True, columns={})
    assert chosen(first, second, replayed)[2] == []
    masked = dataclasses.replace(second, token_weights=[0.0, 0.25])
    assert chosen(first, masked)[1][0] == 0


def test_kl_cov_without_a_second_update_is_warned_of():
    one = run_config(objective={"loss": {"type": "kl_cov", "share": 1}})
    two = run_config(objective={"loss": {"type": "kl_cov", "share": 1}, "updates_per_rollout": 2})
    assert "its penalty has no gradient" in "".join(plugin_warnings(one.method_view))
    assert plugin_warnings(two.method_view) == []
