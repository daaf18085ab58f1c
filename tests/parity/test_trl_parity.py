"""Our advantages, losses and gradients are TRL's, on random groups, to 1e-6.

    make test-parity

TRL's code runs as it is (see trl_reference.py). Where the two say things differently:

- TRL adds 1e-4 to the standard deviation; ours is `epsilon` of group_z, set to that here.
- TRL averages "grpo" like our seq_mean, "dapo" and "cispo" like token_mean, and "dr_grpo" like
  fixed_length with its max_completion_length.
- TRL's `delta` bounds the ratio for both signs of the advantage before the minimum is taken; for
  negative advantages that is our dual_clip. For positive ones the clip range is below it.
- CISPO's `epsilon_high` is our `cap`, the ratio itself. TRL has no floor.
- TRL's RLOO has the ratio of the whole completion; ours is REINFORCE with fixed_length. They agree
  in the first update of a rollout, where the ratio is 1, up to the constant length.
- REINFORCE++ with a group baseline, whitened over completions, is TRL's RLOO with
  normalize_advantages: G/(G-1) cancels. TRL adds 1e-4 to the deviation, ours 1e-8 to the variance.
- TRL averages its entropy bonus over tokens, ours as the layer averages: the same with token_mean.
"""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch.testing import assert_close

pytest.importorskip("trl", reason="TRL is not in this environment; run: make test-parity")

from trl.experimental.gmpo import GMPOTrainer

from learner.batch import build_batch
from mgrpo.config import ObjectiveConfig
from tests.learner.builders import long, plugin, solve_layer
from tests.learner.exact import exact_loss, floats
from tests.parity.trl_reference import (
    trl_advantages,
    trl_loss,
    trl_mismatch_weights,
    trl_rloo_advantages,
    trl_rloo_loss,
)

GROUPS, SIZE, LONGEST = 3, 4, 8
SEEDS = range(4)
TRL_EPSILON = 1e-4
OFF = {"importance": "none"}
GROUP_Z = {"type": "group_z", "epsilon": TRL_EPSILON}


class Step:
    """Random groups, one of them with equal rewards, and log-probabilities off policy."""

    def __init__(self, seed):
        generator = torch.Generator().manual_seed(seed)

        def draw(count):
            return torch.rand(count, generator=generator, dtype=torch.float64)

        count = GROUPS * SIZE
        self.lengths = torch.randint(1, LONGEST + 1, (count,), generator=generator).tolist()
        total = sum(self.lengths)
        self.rewards = draw(count)
        self.rewards[:SIZE] = 1.0
        self.old = -3 * draw(total)
        self.policy = (self.old + draw(total) - 0.5).requires_grad_()
        self.ref = self.old + 0.4 * draw(total)
        self.entropies = 2 * draw(total)
        self.rollout = self.old.detach() + 1.6 * draw(total) - 0.8
        self.completions = [
            long(
                f"{group}/{number}",
                float(self.rewards[group * SIZE + number]),
                self.lengths[group * SIZE + number],
            )
            for group in range(GROUPS)
            for number in range(SIZE)
        ]

    def rows(self, *plugins, layer=None, objective=None, **measurements):
        """Every row, those without any advantage too: TRL keeps them."""
        keys = {"advantage": GROUP_Z, **(layer or {})}
        solve = solve_layer(max_completion_tokens=LONGEST, **keys)
        return build_batch(
            self.completions,
            [solve],
            ObjectiveConfig(**{**OFF, **(objective or {})}),
            plugins=plugins,
            measurements=measurements,
        ).all_rows

    def gradient(self, loss):
        (found,) = torch.autograd.grad(loss, self.policy, retain_graph=True)
        return found


@pytest.fixture(params=SEEDS)
def step(request):
    return Step(request.param)


def advantages_of(rows):
    return floats(*(row.advantages[0] for row in rows))


def close(one, other):
    assert_close(one, other.to(one), rtol=1e-6, atol=1e-6)


def same(step, ours, theirs):
    """Loss and gradient."""
    close(ours, theirs)
    close(step.gradient(ours), step.gradient(theirs))
    assert step.gradient(ours).abs().sum() > 1e-3


# --- advantages ---


@pytest.mark.parametrize(("scale_by_std", "scale_rewards"), [(True, "group"), (False, "none")])
def test_group_advantages(step, scale_by_std, scale_rewards):
    rows = step.rows(layer={"advantage": {**GROUP_Z, "scale_by_std": scale_by_std}})
    theirs = trl_advantages(step.rewards, step.lengths, SIZE, scale_rewards=scale_rewards)
    close(advantages_of(rows), theirs)
    assert theirs.abs().max() > 0.1


@pytest.mark.parametrize("normalise", [False, True])
def test_rloo_advantages(step, normalise):
    part = plugin("rloo", normalise=normalise, epsilon=TRL_EPSILON)
    theirs = trl_rloo_advantages(step.rewards, step.lengths, SIZE, normalize_advantages=normalise)
    close(advantages_of(step.rows(part)), theirs)


def test_rloo_advantages_with_the_kl_in_the_reward(step):
    policy = step.policy.detach()
    parts = [plugin("kl_in_reward", weight=0.05), plugin("rloo")]
    rows = step.rows(*parts, policy_logprobs=policy, ref_logprobs=step.ref)
    theirs = trl_rloo_advantages(
        step.rewards, step.lengths, SIZE, beta=0.05, policy=policy, ref=step.ref
    )
    close(advantages_of(rows), theirs)


def test_reinforce_plus_plus_advantages(step):
    part = plugin("reinforce_plus_plus", baseline="group_mean", whiten_over="completions")
    theirs = trl_rloo_advantages(step.rewards, step.lengths, SIZE, normalize_advantages=True)
    spread = trl_rloo_advantages(step.rewards, step.lengths, SIZE).std()
    close(advantages_of(step.rows(part)), theirs * (spread + TRL_EPSILON) / spread)


# --- losses and gradients ---


@pytest.mark.parametrize("beta", [0.0, 0.04])
@pytest.mark.parametrize(
    ("loss_type", "aggregation"),
    [("grpo", "seq_mean"), ("dapo", "token_mean"), ("dr_grpo", "fixed_length")],
)
@pytest.mark.parametrize(("clip_low", "clip_high", "delta"), [(0.2, 0.28, None), (0.2, 0.2, 1.5)])
def test_clipped_losses_and_the_kl_penalty(
    step, loss_type, aggregation, clip_low, clip_high, delta, beta
):
    loss = {"clip_low": clip_low, "clip_high": clip_high, "dual_clip": delta}
    settings = {"loss": {"type": "ppo_clip", **loss}, "kl": {"weight": beta, "estimator": "k3"}}
    rows = step.rows(layer={"aggregation": aggregation}, objective=settings)
    ours = exact_loss(
        rows,
        step.policy,
        step.old,
        ref=step.ref if beta else None,
        objective=ObjectiveConfig(**{**OFF, **settings}),
    )
    theirs = trl_loss(
        step.policy,
        step.old,
        trl_advantages(step.rewards, step.lengths, SIZE),
        step.lengths,
        ref=step.ref,
        loss_type=loss_type,
        epsilon_low=clip_low,
        epsilon_high=clip_high,
        delta=delta,
        beta=beta,
        max_completion_length=LONGEST,
    )
    same(step, ours, theirs)


def own_and_theirs(step, part, *, layer=None, **settings):
    rows = step.rows(part, layer=layer)
    ours = exact_loss(rows, step.policy, step.old, plugins=[part])
    advantages = trl_advantages(step.rewards, step.lengths, SIZE)
    return ours, trl_loss(step.policy, step.old, advantages, step.lengths, **settings)


@pytest.mark.parametrize(("low", "high"), [(3e-4, 4e-4), (0.1, 0.2)])
def test_gspo(step, low, high):
    ours, theirs = own_and_theirs(
        step,
        plugin("gspo", clip_low=low, clip_high=high),
        importance_sampling_level="sequence",
        epsilon_low=low,
        epsilon_high=high,
    )
    close(ours, theirs)
    close(step.gradient(ours), step.gradient(theirs))


@pytest.mark.parametrize("cap", [1.1, 5.0])
def test_cispo(step, cap):
    part = plugin("cispo", cap=cap)
    layer = {"aggregation": "token_mean"}
    same(step, *own_and_theirs(step, part, layer=layer, loss_type="cispo", epsilon_high=cap))


def test_gmpo(step):
    ours, theirs = own_and_theirs(
        step,
        plugin("gmpo", clip_low=0.2, clip_high=0.3),
        trainer=GMPOTrainer,
        epsilon_low=0.2,
        epsilon_high=0.3,
    )
    same(step, ours, theirs)


def test_rloo_in_the_first_update(step):
    parts = [plugin("rloo"), plugin("reinforce")]
    rows = step.rows(*parts, layer={"aggregation": "fixed_length", "loss_weight": LONGEST})
    old = step.policy.detach()
    ours = exact_loss(rows, step.policy, old, plugins=parts)
    advantages = trl_rloo_advantages(step.rewards, step.lengths, SIZE)
    theirs = trl_rloo_loss(step.policy, old, advantages, step.lengths)
    close(step.gradient(ours), step.gradient(theirs))
    assert step.gradient(ours).abs().sum() > 0.1


def test_unbiased_kl(step):
    part = plugin("unbiased_kl", weight=0.04)
    rows = step.rows(part)
    ours = exact_loss(rows, step.policy, step.old, ref=step.ref, plugins=[part])
    advantages = trl_advantages(step.rewards, step.lengths, SIZE)
    theirs = trl_loss(
        step.policy,
        step.old,
        advantages,
        step.lengths,
        ref=step.ref,
        beta=0.04,
        use_bias_correction_kl=True,
    )
    same(step, ours, theirs)


# --- which tokens, and how much ---


def test_top_entropy_tokens(step):
    part = plugin("top_entropy_tokens", share=0.3)
    rows = step.rows(part, entropies=step.entropies)
    ours = exact_loss(rows, step.policy, step.old)
    theirs = trl_loss(
        step.policy,
        step.old,
        trl_advantages(step.rewards, step.lengths, SIZE),
        step.lengths,
        entropies=step.entropies,
        top_entropy_quantile=0.3,
    )
    same(step, ours, theirs)


def test_an_entropy_bonus(step):
    entropies = step.entropies.clone().requires_grad_()
    rows = step.rows(plugin("entropy_bonus", coefficient=0.01), layer={"aggregation": "token_mean"})
    ours = exact_loss(rows, step.policy, step.old, entropies=entropies)
    theirs = trl_loss(
        step.policy,
        step.old,
        trl_advantages(step.rewards, step.lengths, SIZE),
        step.lengths,
        entropies=entropies,
        loss_type="dapo",
        _entropy_bonus_enabled=True,
        entropy_coef=0.01,
    )
    close(ours, theirs)
    close(*(torch.autograd.grad(loss, entropies)[0] for loss in (ours, theirs)))


@pytest.mark.parametrize(
    ("settings", "mode"),
    [
        ({"method": "truncate", "level": "token"}, "token_truncate"),
        ({"method": "truncate", "level": "sequence"}, "sequence_truncate"),
        ({"method": "mask", "level": "token"}, "token_mask"),
        ({"method": "mask", "level": "sequence"}, "sequence_mask"),
    ],
)
def test_weights_against_the_engines_gap(step, settings, mode):
    lowest = 0.5 if settings["method"] == "mask" else None
    theirs = trl_mismatch_weights(
        step.old,
        step.rollout,
        step.lengths,
        vllm_importance_sampling_mode=mode,
        vllm_importance_sampling_clip_min=lowest,
    )
    theirs = theirs.expand(-1, max(step.lengths))
    weights = torch.cat([row[:length] for row, length in zip(theirs, step.lengths, strict=True)])
    parts = step.rollout.split(step.lengths)
    step.completions = [
        dataclasses.replace(one, rollout_logprobs=part.tolist())
        for one, part in zip(step.completions, parts, strict=True)
    ]
    plain = step.rows()
    rows = step.rows(plugin("mismatch_correction", **settings), policy_logprobs=step.old)
    ours = floats(*(value for row in rows for value in row.advantages))
    close(ours, weights * floats(*(value for row in plain for value in row.advantages)))
    assert weights.std() > 0.05
