"""The frozen policy's log-probabilities as a measurement, and when that policy is loaded."""

from types import SimpleNamespace

import pytest
import torch
from torch import distributed as dist
from torch.testing import assert_close

from learner.batch import build_batch
from learner.deepspeed_learner import DeepSpeedLearner
from learner.policy_loading import load_policy
from learner.recipe import learner_recipe
from learner.trainer import Trainer
from mgrpo.config import ObjectiveConfig
from tests.learner.builders import (
    layer,
    plugin,
    random_completions,
    run_config,
    save_tiny_llama,
    solve_layer,
)

CHAIN = [solve_layer(), layer()]


@pytest.fixture
def one_rank():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


class Engine:
    """A policy as the trainer calls it."""

    def __init__(self, policy):
        self.module = policy

    def __call__(self, *arguments, **named):
        return self.module(*arguments, **named)


def direct(policy, rows):
    """[M] log-probabilities, one row at a time from whole logits."""
    parts = []
    for row in rows:
        logits = policy.causal_lm(torch.tensor([row.input_token_ids])).logits[0]
        first = len(row.prompt_token_ids) - 1
        tokens = torch.tensor(row.token_ids)[:, None]
        parts.append(logits[first:].log_softmax(-1).gather(1, tokens)[:, 0])
    return torch.cat(parts).double()


@torch.no_grad()
def test_each_measurement_is_measured_with_its_own_policy(one_rank, tmp_path):
    policies = {
        name: load_policy(str(save_tiny_llama(tmp_path / name, **changes)), dtype=torch.float32)
        for name, changes in (("policy", {}), ("reference", {"initializer_range": 0.19}))
    }
    trainer = Trainer(
        recipe=learner_recipe(run_config(learner={"microbatch_tokens": 64})),
        engine=Engine(policies["policy"]),
        reference=policies["reference"],
        optimizer=torch.optim.SGD(policies["policy"].parameters(), lr=0.1),
        grad_norm=lambda: 0.0,
        num_ranks=1,
        device=torch.device("cpu"),
    )
    rows = build_batch(random_completions(), CHAIN, ObjectiveConfig()).all_rows
    found = trainer.reader.measure(rows, ["policy_logprobs", "ref_logprobs"])
    for measurement, name in (("policy_logprobs", "policy"), ("ref_logprobs", "reference")):
        expected = direct(policies[name], rows)
        assert_close(found[measurement], expected, rtol=1e-4, atol=1e-5)
    assert (found["policy_logprobs"] - found["ref_logprobs"]).abs().max() > 0.01


@pytest.mark.parametrize(
    ("plugins", "objective", "is_loaded"),
    [
        ([], {}, False),
        ([], {"kl": {"weight": 0.1}}, True),
        ([plugin("rloo")], {}, False),
        ([plugin("kl_in_reward")], {}, True),
        ([plugin("unbiased_kl")], {}, True),
        ([plugin("reinforce_plus_plus")], {}, False),
        ([plugin("reinforce_plus_plus", kl_weight=0.1)], {}, True),
    ],
)
def test_the_reference_is_loaded_where_something_needs_it(plugins, objective, is_loaded):
    learner = SimpleNamespace(
        recipe=learner_recipe(run_config(objective=objective)),
        plugins=plugins,
        _load_frozen=lambda directory: torch.nn.Linear(1, 1),
    )
    found = DeepSpeedLearner._load_reference(learner, "somewhere")
    assert (found is not None) == is_loaded
