"""GSPO, CISPO, GMPO, REINFORCE and KL-Cov's objective, as micro-batches put them into the loss."""

import dataclasses
import math

import pytest
import torch
from torch.testing import assert_close

from learner.batch import build_batch
from learner.plugin import LearnerPlugin
from mgrpo.check.plugin_warnings import plugin_warnings
from mgrpo.config import ObjectiveConfig
from mgrpo.errors import ConfigError
from mgrpo.plugin import load_plugins
from tests.learner.builders import long, plugin, run_config, solve_layer
from tests.learner.exact import UNCORRECTED, exact_loss, floats

CUT = [[0, 4], [1, 3], [2, 5]]
"""Two groups of three, each over three micro-batches."""
LENGTHS = [2, 3, 1, 4, 2, 3]
REWARDS = [1.0, 0.0, 0.25, 0.0, 1.0, 1.0]
SETTINGS = ObjectiveConfig(**UNCORRECTED)


def one_row(advantage, num_tokens, **settings):
    """A completion whose reward is its advantage."""
    solve = solve_layer(advantage="raw_reward", **settings)
    return build_batch([long("q/1", advantage, num_tokens)], [solve], SETTINGS).rows


def objective_and_gradient(rows, moved, *plugins, start=None):
    """J and its gradient by log-probability, `moved` nats from the policy that sampled."""
    old = floats(*([-1.0] * len(moved))) if start is None else floats(*start)
    logprobs = (old + floats(*moved)).requires_grad_()
    objective = -exact_loss(rows, logprobs, old, plugins=plugins)
    objective.backward()
    return objective.item(), logprobs.grad.tolist()


def two_groups():
    """Rows, and [M] log-probabilities and those of the policy that sampled."""
    names = ["q/1", "q/2", "q/3", "r/1", "r/2", "r/3"]
    completions = [long(*one) for one in zip(names, REWARDS, LENGTHS, strict=True)]
    rows = build_batch(completions, [solve_layer()], SETTINGS).rows
    generator = torch.Generator().manual_seed(3)
    old = -2 * torch.rand(sum(LENGTHS), generator=generator, dtype=torch.float64)
    moved = torch.randn(sum(LENGTHS), generator=generator, dtype=torch.float64)
    return rows, (old + 0.4 * moved).requires_grad_(), old


def by_row(values):
    return values.split(LENGTHS)


def same_as_direct(direct, *plugins):
    """The loss of the cut rows and its gradient are those of differentiating the definition."""
    rows, logprobs, old = two_groups()
    advantages = [row.advantages[0] for row in rows]
    exact_loss(rows, logprobs, old, plugins=plugins, cuts=CUT).backward()
    found = logprobs.grad.clone()
    loss = exact_loss(rows, logprobs, old, plugins=plugins, cuts=CUT)
    logprobs.grad = None
    expected = -sum(
        direct(own, before, advantage)
        for own, before, advantage in zip(by_row(logprobs), by_row(old), advantages, strict=True)
    ) / len(rows)
    expected.backward()
    assert_close(found, logprobs.grad, rtol=0, atol=1e-15)
    assert_close(loss, expected, rtol=1e-12, atol=1e-15)
    assert logprobs.grad.abs().sum() > 0


# --- GSPO ---


def test_gspo_reweights_a_completion_by_the_geometric_mean_of_its_ratios():
    value, gradient = objective_and_gradient(one_row(1.0, 2), [0.1, -0.3], plugin("gspo"))
    assert value == pytest.approx(0.904837, abs=1e-6)
    assert gradient == pytest.approx([0.904837 / 2] * 2, abs=1e-6)


def test_gspo_clips_whole_completions():
    value, gradient = objective_and_gradient(one_row(-1.0, 2), [0.1, -0.3], plugin("gspo"))
    assert value == pytest.approx(-0.9997, abs=1e-9)
    assert gradient == [0.0, 0.0]


@pytest.mark.parametrize("clip", [(3e-4, 4e-4), (0.1, 0.15), (0.9, 9.0)])
def test_gspo_with_cut_groups_is_its_definition(clip):
    low, high = clip

    def direct(own, old, advantage):
        ratio = (own - old).mean().exp()
        return torch.minimum(ratio * advantage, ratio.clamp(1 - low, 1 + high) * advantage)

    same_as_direct(direct, plugin("gspo", clip_low=low, clip_high=high))


def test_gspo_lets_advantages_differ_between_tokens():
    (row,) = one_row(1.0, 2)
    row = dataclasses.replace(row, advantages=[1.0, -2.0])
    wide = plugin("gspo", clip_low=0.5, clip_high=0.5)
    value, gradient = objective_and_gradient([row], [0.1, -0.3], wide)
    assert value == pytest.approx(0.904837 * (1 - 2) / 2, abs=1e-6)
    assert gradient == pytest.approx([0.904837 / 2, -0.904837], abs=1e-6)


def test_tokens_without_loss_are_not_in_a_completions_ratio():
    solve = solve_layer(advantage="raw_reward")
    masked = long("q/1", 1.0, 3, train_mask=[True, False, True])
    rows = build_batch([masked], [solve], SETTINGS).rows
    value, gradient = objective_and_gradient(rows, [0.1, 5.0, -0.3], plugin("gspo"))
    assert value == pytest.approx(0.904837, abs=1e-6)
    assert gradient[1] == 0.0


# --- GMPO ---


@pytest.mark.parametrize(
    ("advantage", "expected", "moves"),
    [(1.0, 1.051271, [False, True]), (-1.0, -1.161834, [True, True])],
)
def test_gmpo_holds_ratios_back_where_the_advantage_pushes_them(advantage, expected, moves):
    value, gradient = objective_and_gradient(one_row(advantage, 2), [0.6, -0.3], plugin("gmpo"))
    assert value == pytest.approx(expected, abs=1e-6)
    assert [slope != 0 for slope in gradient] == moves


def test_gmpo_with_cut_groups_is_its_definition():
    def direct(own, old, advantage):
        held = (own - old).clamp(max=0.3) if advantage > 0 else (own - old).clamp(min=-0.2)
        return advantage * held.mean().exp()

    same_as_direct(direct, plugin("gmpo", clip_low=0.2, clip_high=0.3))


# --- CISPO ---


def test_cispo_caps_the_weight_and_keeps_the_gradient():
    start = [math.log(0.4) - math.log(1.5)]
    value, gradient = objective_and_gradient(
        one_row(0.5, 1), [math.log(1.5)], plugin("cispo", cap=1.28), start=start
    )
    assert value == pytest.approx(-0.586426, abs=1e-6)
    assert gradient == pytest.approx([0.64])


@pytest.mark.parametrize(
    ("moved", "settings", "weight"),
    [
        (0.2, {}, math.exp(0.2)),
        (3.0, {}, 5.0),
        (-3.0, {}, math.exp(-3)),
        (-3.0, {"floor": 0.8}, 0.8),
    ],
)
def test_cispos_cap_is_the_ratio_itself_and_a_floor_is_optional(moved, settings, weight):
    _, gradient = objective_and_gradient(one_row(-1.0, 1), [moved], plugin("cispo", **settings))
    assert gradient == pytest.approx([-weight])


# --- REINFORCE ---


def test_reinforce_has_no_ratio():
    value, gradient = objective_and_gradient(
        one_row(2.0, 1), [0.7], plugin("reinforce"), start=[-1.0]
    )
    assert value == pytest.approx(2.0 * -0.3)
    assert gradient == pytest.approx([2.0])


@pytest.mark.parametrize("use", ["reinforce", "gspo", "gmpo", "cispo"])
def test_in_the_first_update_all_have_the_gradient_of_grpo(use):
    rows, _, old = two_groups()
    gradients = []
    for plugins in ([], [plugin(use)]):
        leaf = old.clone().requires_grad_()
        exact_loss(rows, leaf, old, plugins=plugins, cuts=CUT).backward()
        gradients.append(leaf.grad)
    assert_close(*gradients, rtol=0, atol=1e-15)


# --- KL-Cov ---


def test_kl_cov_holds_the_tokens_of_highest_covariance_and_clips_nothing():
    completions = [long("q/1", 1.0, 2), long("q/2", -1.0, 2)]
    part = plugin("kl_cov", share=0.5, weight=0.1)
    signals = {"policy_logprobs": floats(-0.1, -3, -0.1, -3)}
    solve = solve_layer(advantage="raw_reward")
    batch = build_batch(completions, [solve], SETTINGS, plugins=[part], signals=signals)
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
    rows = build_batch(
        [long("q/1", 1.0, 2), long("q/2", -1.0, 2)], [solve_layer(advantage="raw_reward")], SETTINGS
    ).all_rows
    part = plugin("kl_cov", share=0.25)
    now = floats(-1, -1, -3, -1)
    assert part.refresh_columns(rows, now, now)["kl_cov"].tolist() == [0, 0, 1, 0]
    replayed = [rows[0], dataclasses.replace(rows[1], is_replayed=True)]
    assert part.refresh_columns(replayed, now, now)["kl_cov"][2:].tolist() == [0, 0]
    masked = [rows[0], dataclasses.replace(rows[1], token_weights=[0.0, 0.25])]
    assert part.refresh_columns(masked, now, now)["kl_cov"][2].item() == 0


# --- what recipes cannot combine ---


def problems(use, *, solve=None, **settings):
    loss = {"type": use, **settings}
    config = run_config(layers=[solve_layer(**(solve or {}))], objective={"loss": loss})
    try:
        load_plugins(config, LearnerPlugin)
    except ConfigError as error:
        return [one.path for one in error.problems]
    return []


@pytest.mark.parametrize("use", ["gspo", "gmpo"])
def test_ratios_of_completions_need_a_mean_over_completions(use):
    assert problems(use) == []
    assert problems(use, solve={"aggregation": "token_mean"}) == ["layers.0.aggregation"]
    assert problems("cispo", solve={"aggregation": "token_mean"}) == []


@pytest.mark.parametrize("use", ["cispo", "reinforce"])
def test_a_loss_without_a_clip_range_has_no_key_of_one(use):
    assert problems(use, clip_high=0.28) == ["objective.loss.clip_high"]


def test_a_loss_among_plug_ins_is_told_where_it_belongs():
    config = run_config(plugins=[{"use": "gspo"}])
    with pytest.raises(ConfigError, match=r"objective\.loss: \{type: gspo\}"):
        load_plugins(config, LearnerPlugin)


def test_a_cap_below_one_is_taken_for_a_distance_and_refused():
    assert problems("cispo", cap=0.28) == ["objective.loss.cap"]


def test_kl_cov_without_a_second_update_is_warned_of():
    one = run_config(objective={"loss": {"type": "kl_cov", "share": 1}})
    two = run_config(objective={"loss": {"type": "kl_cov", "share": 1}, "updates_per_rollout": 2})
    assert "its penalty has no gradient" in "".join(plugin_warnings(one))
    assert plugin_warnings(two) == []
