"""Columns are computed again before every further update on the same completions."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import distributed as dist

from learner.batch import build_batch
from learner.plugin import LearnerPlugin, PolicyLoss
from learner.recipe import learner_recipe
from learner.trainer import Trainer
from mgrpo.config.base import StrictConfig
from tests.learner.builders import completion, run_config, solve_layer


@pytest.fixture(scope="module", autouse=True)
def lone_rank(tmp_path_factory):
    store = tmp_path_factory.mktemp("store") / "file"
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


class TableModel(torch.nn.Module):
    """A log-probability for each token of the vocabulary."""

    merges_prefixes = False
    hidden_size = 1

    def __init__(self):
        super().__init__()
        self.table = torch.nn.Parameter(torch.full((8,), -1.0))

    def forward(self, input_ids, positions, target_ids, *_, with_entropies):
        logprobs = self.table[target_ids]
        return logprobs, logprobs * 0


class OneStep:
    """What the trainer asks of an engine: plain gradient descent with step size 1."""

    def __init__(self):
        self.module = TableModel()

    def __call__(self, *inputs, **settings):
        return self.module(*inputs, **settings)

    def backward(self, loss):
        loss.backward()

    def step(self):
        table = self.module.table
        table.data -= table.grad
        table.grad = None


class Follows(PolicyLoss):
    """Remembers what it was given; its objective is the log-probability times its column."""

    def __init__(self):
        super().__init__(StrictConfig(), frozenset({1}))
        self.seen = []

    def token_columns(self, batch, advantages, token_weights):
        return {"factor": torch.ones_like(advantages), "kept": 5 * torch.ones_like(advantages)}

    def policy_objective(self, tokens):
        assert tokens.columns["kept"].unique().tolist() in ([5.0], [0.0, 5.0])
        return tokens.columns["factor"] * tokens.policy_logprobs

    def refresh_columns(self, batch, advantages, token_weights, policy_logprobs, old_logprobs):
        self.seen.append((policy_logprobs.tolist(), old_logprobs.tolist()))
        return {"factor": torch.full_like(policy_logprobs, 10.0)}


PAIR = [completion("q/1", 1.0), dataclasses.replace(completion("q/2", 0.0), token_ids=[4])]


def train(plugins, updates, completions=PAIR, minibatches=1):
    """The table after an update, and its metrics."""
    config = run_config(
        layers=[solve_layer()],
        prompts_per_step=4,
        objective={
            "updates_per_rollout": updates,
            "minibatches": minibatches,
            "importance": "none",
        },
    )
    engine = OneStep()
    trainer = Trainer(
        recipe=learner_recipe(config),
        engine=engine,
        reference=None,
        optimizer=SimpleNamespace(param_groups=[{}]),
        plugins=plugins,
        grad_norm=lambda: 1.0,
        num_ranks=1,
        device=torch.device("cpu"),
    )
    batch = build_batch(completions, config.layers, config.objective, plugins=plugins)
    metrics = trainer.train(batch.minibatches, 0)
    return engine.module.table.data, metrics


def test_the_second_update_uses_the_new_columns():
    """Weight 1/2 per token: +0.5 with factor 1, then +5 with factor 10."""
    part = Follows()
    table, _ = train([part], updates=2)
    assert table[[3, 4]].tolist() == pytest.approx([4.5, 4.5])
    assert part.seen == [([-0.5, -0.5], [-1.0, -1.0])]


def test_every_further_update_sees_the_weights_as_they_are_and_as_they_were():
    part = Follows()
    train([part], updates=3)
    assert part.seen == [([-0.5, -0.5], [-1.0, -1.0]), ([4.5, 4.5], [-1.0, -1.0])]


class Adds(LearnerPlugin):
    """Trains the first row once more, pushed up by a loss of its own."""

    def __init__(self):
        super().__init__(StrictConfig(), frozenset({1}))

    def added_rows(self, batch, rows):
        zeros = np.zeros(1)
        added = dataclasses.replace(
            rows[0], advantages=zeros, token_weights=zeros, columns={"pushed": np.ones(1)}
        )
        return [added]

    def added_loss(self, tokens):
        return -tokens.columns["pushed"] * tokens.policy_logprobs


@pytest.mark.parametrize("first", [Follows, Adds])
def test_rows_that_a_plugin_adds_keep_their_own_columns(first):
    """Token 3 is pushed once more in each update: +1 beside what the other test has."""
    part = Follows()
    plugins = [part, Adds()] if first is Follows else [Adds(), part]
    table, _ = train(plugins, updates=2)
    assert part.seen == [([0.5, -0.5], [-1.0, -1.0])]
    assert table[[3, 4]].tolist() == pytest.approx([6.5, 4.5])


def test_one_update_needs_no_new_columns():
    part = Follows()
    table, _ = train([part], updates=1)
    assert table[[3, 4]].tolist() == pytest.approx([-0.5, -0.5])
    assert part.seen == []


def of_problem(name, right, wrong):
    """A right and a wrong completion of one token each."""
    return [
        dataclasses.replace(completion(f"{name}/1", 1.0), token_ids=[right]),
        dataclasses.replace(completion(f"{name}/2", 0.0), token_ids=[wrong]),
    ]


def test_a_minibatch_after_the_first_is_refreshed_with_its_own_rows():
    """Each part has weight 1/2 per token: +0.5 with factor 1, then +5 with factor 10."""
    part = Follows()
    given = [*of_problem("p", 1, 2), *of_problem("q", 3, 1)]
    table, metrics = train([part], 1, given, minibatches=2)
    assert part.seen == [([-1.0, -0.5], [-1.0, -1.0])]  # tokens 3 and 1
    assert table[[1, 2, 3]].tolist() == pytest.approx([4.5, -0.5, 4.0])
    assert metrics["learner/optimizer_steps"] == (2.0, 1.0)
    assert metrics["learner/tokens"] == (4.0, 1.0)
    assert metrics["learner/grad_norm"] == (2.0, 2.0)


def test_further_updates_go_over_all_minibatches():
    part = Follows()
    given = [*of_problem("p", 1, 2), *of_problem("q", 3, 4)]
    _, metrics = train([part], 2, given, minibatches=2)
    assert [old for _, old in part.seen] == [[-1.0, -1.0]] * 3
    assert [now[0] for now, _ in part.seen] == [-1.0, -0.5, 4.0]
    assert metrics["learner/optimizer_steps"] == (4.0, 1.0)
    assert metrics["learner/tokens"] == (8.0, 2.0)


def test_a_minibatch_in_which_nothing_trains_takes_no_step():
    equal = [dataclasses.replace(one, reward=PAIR[0].reward) for one in of_problem("p", 5, 6)]
    table, metrics = train([], 1, [*equal, *PAIR], minibatches=2)
    step = 0.5 * 0.5**0.5  # weight 1/2, advantages of two rewards
    assert table[[3, 4]].tolist() == pytest.approx([-1 + step, -1 - step], abs=1e-5)
    assert metrics["learner/optimizer_steps"] == (1.0, 1.0)
    _, metrics = train([], 1, equal, minibatches=2)
    assert metrics["learner/optimizer_steps"] == (0.0, 1.0)
    assert metrics["learner/skipped_updates"] == (1.0, 1.0)
