"""The loss of one micro-batch under a recipe's objective, and what is measured on the way."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from learner.losses import (
    clipped_objective,
    importance_weights,
    is_clipped,
    kl_penalty,
    token_losses,
    zero_where_masked,
)
from learner.objective_tokens import ObjectiveTokens
from learner.packing import Microbatch
from learner.plugin import LearnerPlugin, PolicyLoss
from mgrpo.config import ObjectiveConfig, PpoClip, Truncate


def microbatch_loss(
    microbatch: Microbatch,
    policy_logprobs: Tensor,
    old_logprobs: Tensor,
    ref_logprobs: Tensor | None,
    entropies: Tensor,
    objective: ObjectiveConfig,
    plugins: Sequence[LearnerPlugin] = (),
) -> Tensor:
    """This micro-batch's share of the step's loss, a scalar; the one place that puts it together.

    The sum over tokens of  token_weight * (-importance weight * objective + KL weight * KL)
    + entropy_weight * entropy + what plug-ins add. The objective is the clipped one unless a
    plug-in has its own.

    All values are [n], of the micro-batch's trained tokens at the sampling temperature. An empty
    micro-batch gives an exact 0 that still has every gradient.
    """
    if microbatch.is_empty:
        return policy_logprobs.sum() * 0.0
    tokens = ObjectiveTokens(
        policy_logprobs=policy_logprobs,
        old_logprobs=old_logprobs,
        ref_logprobs=ref_logprobs,
        entropies=entropies,
        advantages=microbatch.advantages,
        token_weights=microbatch.token_weights,
        row_ids=microbatch.row_ids,
        num_rows=len(microbatch.completion_ids),
        columns=microbatch.columns,
    )
    weights = correction_weights(microbatch, old_logprobs, objective)
    kl = None
    if ref_logprobs is not None:
        kl = kl_penalty(policy_logprobs, ref_logprobs, estimator=objective.kl.estimator)
    losses = token_losses(
        policy_objective(tokens, objective, plugins),
        weights=weights,
        kl=kl,
        kl_weight=microbatch.kl_weights,
    )
    # A token of weight 0 has no loss, whatever an objective makes of it.
    loss = zero_where_masked(losses, microbatch.token_weights != 0)
    loss = (loss * microbatch.token_weights).sum()
    if microbatch.entropy_weights is not None:
        loss = loss + (entropies * microbatch.entropy_weights).sum()
    for plugin in plugins:
        added = plugin.added_loss(tokens)
        if added is not None:
            loss = loss + added.sum()
    return loss


def policy_objective(
    tokens: ObjectiveTokens, objective: ObjectiveConfig, plugins: Sequence[LearnerPlugin]
) -> Tensor:
    """[n] what is maximised per token: a plug-in's, or the clipped objective."""
    for plugin in plugins:
        if isinstance(plugin, PolicyLoss):
            return plugin.policy_objective(tokens)
    clip = objective.loss
    assert isinstance(clip, PpoClip), f"{clip.type} is none of the plug-ins"
    return clipped_objective(
        tokens.policy_logprobs,
        tokens.old_logprobs,
        tokens.advantages,
        clip_low=clip.clip_low,
        clip_high=clip.clip_high,
        dual_clip=clip.dual_clip,
    )


def old_logprobs_of(microbatch: Microbatch, own_logprobs: Tensor) -> Tensor:
    """[n] log-probabilities of the policy that sampled: those recorded while sampling for tokens of
    an older policy, the learner's own for all others."""
    return torch.where(microbatch.has_recorded_ratio, microbatch.rollout_logprobs, own_logprobs)


def correction_weights(
    microbatch: Microbatch, old_logprobs: Tensor, objective: ObjectiveConfig
) -> Tensor:
    """[n] truncated importance weights; 1 where the recipe has none or another correction, or no
    engine sampled the token."""
    correction = objective.importance
    if not isinstance(correction, Truncate):
        return torch.ones_like(microbatch.rollout_logprobs)
    weights = importance_weights(old_logprobs, microbatch.rollout_logprobs, cap=correction.cap)
    return torch.where(microbatch.is_sampled, weights, 1.0)


@torch.no_grad()
def token_measurements(
    microbatch: Microbatch,
    policy_logprobs: Tensor,
    old_logprobs: Tensor,
    ref_logprobs: Tensor | None,
    entropies: Tensor,
    objective: ObjectiveConfig,
    plugins: Sequence[LearnerPlugin] = (),
) -> dict[str, Tensor]:
    """[n] values behind the metrics that are means over trained tokens.

    How many tokens the clip range holds back is told where it is the recipe's own: a plug-in's
    objective has another, or none.
    """
    correction = objective.importance
    cap = correction.cap if isinstance(correction, Truncate) else Truncate().cap
    # Tokens that no engine sampled have nothing to be compared with.
    rollout_logprobs = torch.where(microbatch.is_sampled, microbatch.rollout_logprobs, old_logprobs)
    uncapped = importance_weights(old_logprobs, rollout_logprobs, cap=float("inf"))
    measured = {
        "learner/entropy": entropies,
        "mismatch/logprob_gap_mean": (old_logprobs - rollout_logprobs).abs(),
        "mismatch/importance_weight_mean": uncapped.clamp(max=cap),
        "mismatch/importance_capped_fraction": uncapped > cap,
    }
    clip = objective.loss
    if isinstance(clip, PpoClip) and not any(isinstance(one, PolicyLoss) for one in plugins):
        measured["learner/clip_fraction"] = is_clipped(
            policy_logprobs,
            old_logprobs,
            microbatch.advantages,
            clip_low=clip.clip_low,
            clip_high=clip.clip_high,
            dual_clip=clip.dual_clip,
        )
    if ref_logprobs is not None:
        measured["learner/kl"] = kl_penalty(
            policy_logprobs, ref_logprobs, estimator=objective.kl.estimator
        )
    return measured
