"""Injected tokens as a supervised target."""

import pytest
import torch

from learner.batch import build_batch
from learner.objective import microbatch_loss, old_logprobs_of
from learner.packing import collate
from mgrpo.config import ObjectiveConfig
from tests.learner.builders import long, plugin, solve_layer

EXACT = ObjectiveConfig()
Z_SCORE = {"ddof": 0, "epsilon": 0.0}


def repaired_batch(weight):
    mixed = long("q/1", 0.0, 3, sampled_mask=[True, False, False])
    parts = [plugin("supervised_injections", weight=weight)]
    return build_batch(
        [mixed, long("q/2", 1.0, 1)], [solve_layer(advantage=Z_SCORE)], EXACT, plugins=parts
    )


def test_injected_tokens_have_the_weight_and_sampled_ones_their_advantage():
    rows = repaired_batch(weight=0.5).rows
    assert [row.advantages.tolist() for row in rows] == [[-1, 0.5, 0.5], [1]]


def test_their_gradient_is_that_of_the_log_likelihood():
    """On a ratio of 1 the gradient of -A x ratio is -A, whatever was put down as recorded."""
    batch = repaired_batch(weight=2.0)
    microbatch = collate(batch.rows[:1], merge_prefixes=False)
    logprobs = torch.tensor([-1.0, -7.0, -0.1], requires_grad=True)
    old = old_logprobs_of(microbatch, logprobs.detach())
    microbatch_loss(microbatch, logprobs, old, None, torch.zeros(3), EXACT).backward()
    # seq_mean over 2 rows: a weight of 1/6 per token.
    assert logprobs.grad.tolist() == pytest.approx([1 / 6, -2 / 6, -2 / 6])
