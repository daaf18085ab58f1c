"""Losses as micro-batches put them together, and what recipes may not write about them."""

from __future__ import annotations

import torch
from torch.testing import assert_close

from learner.batch import build_batch
from learner.plugin import LearnerPlugin
from mgrpo.config import ObjectiveConfig
from mgrpo.errors import ConfigError
from mgrpo.plugin import load_plugins
from tests.learner.builders import long, run_config, solve_layer
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


def faults(use, *, solve=None, **settings):
    """Paths that are refused where `use` fills objective.loss."""
    loss = {"type": use, **settings}
    config = run_config(layers=[solve_layer(**(solve or {}))], objective={"loss": loss})
    try:
        load_plugins(config.method_view, LearnerPlugin)
    except ConfigError as error:
        return [one.path for one in error.faults]
    return []
