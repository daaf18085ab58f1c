"""DPO through the learner's own seam, and against direct differentiation of the pairs' loss."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from learner.batch import build_batch, refreshed
from learner.plugin import LearnerPlugin
from learner.rows import Minibatch
from mgrpo.check.plugin_warnings import plugin_warnings
from mgrpo.config import ObjectiveConfig
from mgrpo.errors import ConfigError, LearnerError
from mgrpo.methods.veripo.dpo import COEFFICIENT
from mgrpo.plugin import load_plugins
from mgrpo.types import CompletionId
from tests.learner.builders import completion, layer, plugin, run_config, solve_layer
from tests.learner.exact import exact_loss, floats

BETA = 0.1
OBJECTIVE = ObjectiveConfig(importance="none", kl={"weight": 0.3})
CHAIN = [solve_layer(aggregation="token_mean", loss_weight=0.5), layer()]


class Reader:
    """Log-probabilities of a table: a token's does not depend on what is before it."""

    def __init__(self, table):
        self.table, self.num_read = table, 0

    def logprobs(self, texts, *, measurement="policy_logprobs"):
        tokens = [token for one in texts for token in one.token_ids]
        self.num_read += len(texts)
        return self.table[tokens]


def policy(seed):
    generator = torch.Generator().manual_seed(seed)
    return -3 * torch.rand(64, generator=generator, dtype=torch.float64)


def three_pairs(reference=None):
    """Six completions of 1 to 6 tokens, the second pair of layer 2, one with masked tokens."""
    generator = torch.Generator().manual_seed(5)
    reference = policy(1) if reference is None else reference
    rows = []
    for number in range(3):
        for role, side in ((1, "chosen"), (-1, "rejected")):
            length = int(torch.randint(2, 7, (1,), generator=generator))
            ids = torch.randint(1, 64, (length,), generator=generator).tolist()
            mask = [True] * length
            if (number, role) == (2, -1):
                mask[0] = False
            known = float(sum(reference[ids] * torch.tensor(mask)))
            rows.append(
                completion(
                    f"q{number}/1",
                    float(role > 0),
                    id=CompletionId.named(f"s0p{number}#{side}"),
                    group_key=f"s0p{number}",
                    layer=2 if number == 1 else 1,
                    token_ids=ids,
                    rollout_logprobs=[0.0] * length,
                    sampled_mask=[False] * length,
                    train_mask=mask,
                    metadata={"pair": {"kind": "penalty", "role": role, "ref_logprob": known}},
                )
            )
    return rows


def built(completions, table, part=None, objective=OBJECTIVE):
    return build_batch(
        completions,
        CHAIN,
        objective,
        plugins=[part or plugin("dpo", beta=BETA)],
        policy=Reader(table),
    )


def pair_loss(table, completions):
    """The definition: the mean over pairs of -log σ(β(chosen - rejected)), over trained tokens."""
    losses = []
    for chosen, rejected in zip(completions[::2], completions[1::2], strict=True):
        ratios = [
            (table[one.token_ids] * torch.tensor(one.train_mask)).sum()
            - one.metadata["pair"]["ref_logprob"]
            for one in (chosen, rejected)
        ]
        losses.append(-torch.nn.functional.logsigmoid(BETA * (ratios[0] - ratios[1])))
    return torch.stack(losses).mean()


def gradient_of(batch, table, part, cuts=None, objective=OBJECTIVE):
    """Loss, and gradient by the table, from micro-batches that cut pairs apart."""
    leaf = table.clone().requires_grad_()
    tokens = [token for row in batch.rows for token in row.token_ids]
    logprobs = leaf[tokens]
    loss = exact_loss(
        batch.rows,
        logprobs,
        logprobs.detach(),
        plugins=[part],
        objective=objective,
        ref=logprobs.detach() - 1.0,  # a KL term that pairs must not have
        cuts=cuts,
    )
    loss.backward()
    return float(loss.detach()), leaf.grad


@pytest.mark.parametrize("cuts", [None, [[0, 3], [1, 4, 5], [2]], [[n] for n in range(6)]])
def test_pairs_cut_across_micro_batches_get_the_gradient_of_the_pairs(cuts):
    completions, table = three_pairs(), policy(2)
    part = plugin("dpo", beta=BETA)
    leaf = table.clone().requires_grad_()
    expected = pair_loss(leaf, completions)
    expected.backward()
    loss, found = gradient_of(built(completions, table, part), table, part, cuts)
    assert loss == pytest.approx(float(expected.detach()), rel=1e-14)
    scale = leaf.grad.abs().max()
    assert scale > 0.01
    assert float((found - leaf.grad).abs().max() / scale) < 1e-14


def test_the_worked_pair_has_its_coefficient():
    """Log-ratios +2 and -1: β σ(-0.3) = 0.042556 on each token, and loss 0.554355."""
    table = policy(2)
    completions = three_pairs()[:2]
    completions = [
        dataclasses.replace(
            one,
            metadata={
                "pair": {
                    **one.metadata["pair"],
                    "ref_logprob": float(table[one.token_ids].sum() - r),
                }
            },
        )
        for one, r in zip(completions, (2.0, -1.0), strict=True)
    ]
    batch = built(completions, table)
    chosen, rejected = batch.rows
    assert chosen.columns[COEFFICIENT] == pytest.approx(
        [0.042556] * len(chosen.token_ids), abs=1e-6
    )
    assert rejected.columns[COEFFICIENT][0] == pytest.approx(-0.042556, abs=1e-6)
    assert batch.metrics["dpo/loss"] == (pytest.approx(0.554355, abs=1e-6), 1.0)
    assert batch.metrics["dpo/margin"] == (pytest.approx(3.0), 1.0)
    assert batch.metrics["dpo/accuracy"] == (1.0, 1.0)
    assert [one.advantage for one in batch.selections] == pytest.approx(
        [0.042556, -0.042556], abs=1e-6
    )


def test_a_second_update_weighs_pairs_anew():
    completions, old_table = three_pairs(), policy(1)
    table = policy(2)
    part = plugin("dpo", beta=BETA)
    batch = built(completions, old_table, part)
    tokens = [token for row in batch.rows for token in row.token_ids]
    rows = refreshed(batch.minibatches[0], [part], table[tokens], old_table[tokens])
    leaf = table.clone().requires_grad_()
    expected = pair_loss(leaf, completions)
    expected.backward()
    loss, found = gradient_of(Minibatch(rows), table, part)
    assert loss == pytest.approx(float(expected.detach()), rel=1e-14)
    assert float((found - leaf.grad).abs().max() / leaf.grad.abs().max()) < 1e-14


def test_without_pairs_a_step_is_as_without_the_plugin():
    group = [completion(f"q/{n}", reward) for n, reward in enumerate([1.0, 0.0, 0.0, 1.0], 1)]
    part, reader = plugin("dpo"), Reader(policy(1))
    found = build_batch(group, CHAIN, OBJECTIVE, plugins=[part], policy=reader)
    assert found.rows == build_batch(group, CHAIN, OBJECTIVE).rows
    assert reader.num_read == 0 and "dpo/loss" not in found.metrics
    old = floats(*[-1.0] * 4)
    losses = [
        exact_loss(found.rows, old - 0.1, old, plugins=plugins, objective=OBJECTIVE)
        for plugins in ([part], [])
    ]
    assert losses[0] == losses[1]
    assert refreshed(found.minibatches[0], [part], old, old) == found.rows


def test_pairs_whose_likelihood_nobody_read_are_refused():
    with pytest.raises(LearnerError, match="no policy is loaded"):
        build_batch(three_pairs(), CHAIN, OBJECTIVE, plugins=[plugin("dpo")])


PAIRS = {"source": "preferences"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source": "fresh"}, "Add preferences to source"),
        ({"plugins": [{"use": "dpo"}, {"use": "raft"}]}, "Leave out raft"),
        ({"plugins": [{"use": "dpo", "layers": ["solve"]}]}, "of every layer's completions"),
    ],
)
def test_what_it_cannot_work_with_is_refused(changes, message):
    config = run_config(**{"plugins": [{"use": "dpo"}], **PAIRS, **changes})
    with pytest.raises(ConfigError, match=message):
        load_plugins(config.method_view, LearnerPlugin)


def test_a_recipe_that_never_trains_on_pairs_is_warned():
    config = run_config(plugins=[{"use": "dpo"}], **PAIRS)
    (warning,) = plugin_warnings(config.method_view)
    assert "no phase of the recipe trains on pairs" in warning
    phase = {"name": "pairs", "from_step": 2, "changes": {"source": {"train_on": "pairs"}}}
    config = run_config(plugins=[{"use": "dpo"}], **PAIRS, phases=[phase])
    assert plugin_warnings(config.method_view) == []


def test_a_minibatch_has_the_mean_over_its_own_pairs():
    completions, table, part = three_pairs(), policy(2), plugin("dpo", beta=BETA)
    objective = OBJECTIVE.model_copy(update={"minibatches": 2})
    batch = built(completions, table, part, objective)
    pairs = (completions[:4], completions[4:])
    for minibatch, own in zip(batch.minibatches, pairs, strict=True):
        loss, _ = gradient_of(minibatch, table, part, objective=objective)
        assert float(loss) == pytest.approx(float(pair_loss(table, own)))
