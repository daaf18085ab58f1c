"""Tokens of an older policy have their ratio against the log-probabilities recorded with them."""

import dataclasses

import torch

from learner.batch import build_batch
from learner.objective import microbatch_loss, old_logprobs_of
from learner.packing import collate
from tests.learner.builders import completion, run_config, solve_layer

CONFIG = run_config(layers=[solve_layer(group_size=2)], objective={"importance": "none"})


def group():
    """Two attempts of three tokens: the first all of version 4, the second changes to 5."""
    tokens = {"token_ids": [3, 4, 5], "rollout_logprobs": [-1.0, -2.0, -0.5]}
    return [
        completion("q/1", 1.0, version_spans=((0, 4),), **tokens),
        completion("q/2", 0.0, version_spans=((0, 4), (2, 5)), **tokens),
    ]


def microbatch(policy_version):
    batch = build_batch(group(), CONFIG.layers, CONFIG.objective, policy_version=policy_version)
    return collate(batch.rows, merge_prefixes=False)


def test_it_is_a_matter_of_each_token():
    of = {version: microbatch(version).has_recorded_ratio.tolist() for version in (4, 5, 6)}
    assert of[4] == [False] * 6
    assert of[5] == [True, True, True, True, True, False]
    assert of[6] == [True] * 6
    assert not microbatch(None).has_recorded_ratio.any()


def test_ratio_and_clip_are_against_what_was_recorded():
    own = torch.tensor([-0.9, -2.1, -0.4, -1.5, -2.0, -0.7])
    one = microbatch(5)
    old = old_logprobs_of(one, own)
    assert torch.equal(old, torch.tensor([-1.0, -2.0, -0.5, -1.0, -2.0, -0.7]))
    loss = microbatch_loss(one, own, old, None, torch.zeros(6), CONFIG.objective)
    # Advantages 1/sqrt(2)... by group z-scores of two: ±0.7071; weights 1/6 each.
    ratios = (own - old).exp()
    advantages = one.advantages
    clipped = torch.minimum(ratios * advantages, ratios.clamp(0.8, 1.2) * advantages)
    assert torch.allclose(loss, -(clipped / 6).sum())
    assert float(ratios[3]) < 0.8  # which the clip range holds


def test_injected_tokens_have_no_recorded_ratio():
    first, second = group()
    put_in = dataclasses.replace(second, sampled_mask=[True, False, True])
    batch = build_batch([first, put_in], CONFIG.layers, CONFIG.objective, policy_version=6)
    recorded = collate(batch.rows, merge_prefixes=False).has_recorded_ratio
    assert recorded.tolist() == [True, True, True, True, False, True]
