"""What must hold of every method that ships, in each of its phases.

Shown elsewhere: that parents and corrections carry policy versions and grow too old
(test_error_pool.py, test_correction_buffer.py), that checks are pure (tests/rewards), and that
real engines on one and two ranks agree (test_deepspeed_learner.py).
"""

import dataclasses
import math
from collections.abc import Hashable

import pytest
import torch

from learner.objective import microbatch_loss, old_logprobs_of, token_measurements
from learner.packing import collate, plan_rows
from learner.selection import group_of
from mgrpo.config import GroupZ, PpoClip
from mgrpo.metrics.transitions import rollout_metrics
from tests.learner.meeting import on_ranks
from tests.learner.method_cases import (
    INJECTED,
    RECIPES,
    RewardsAlone,
    batch_of,
    made_up_step,
    method_configs,
    save_scorer,
    started_plugins,
)

COMPARING = {"rloo", "gpg", "dagrpo", "disco"}
"""Methods' own advantages and coefficients that are 0 in a group of equal completions."""


@pytest.fixture(scope="module")
def scorer(tmp_path_factory):
    return save_scorer(tmp_path_factory.mktemp("scorer"))


@pytest.fixture(params=RECIPES)
def configs(request, scorer):
    """One method's recipe, in each of its phases."""
    return method_configs(request.param, scorer)


class MadeUpPolicy:
    """A log-probability and an entropy for each token of the vocabulary, with gradients."""

    def __init__(self):
        generator = torch.Generator().manual_seed(1)
        self.logprobs = (-3 * torch.rand(64, generator=generator)).requires_grad_()
        self.entropies = (2 * torch.rand(64, generator=generator)).requires_grad_()

    def learn(self, rows, config, plugins, *, merge_prefixes=True):
        """The rows' loss; gradients are left on the policy."""
        total = 0.0
        for indices in plan_rows(rows, budget_tokens=24, merge_prefixes=merge_prefixes):
            part = collate([rows[index] for index in indices], merge_prefixes=merge_prefixes)
            loss = self.loss(part, config, plugins)
            loss.backward()
            total += loss.item()
        return total

    def loss(self, part, config, plugins):
        logprobs, entropies = self.logprobs[part.target_ids], self.entropies[part.target_ids]
        old = old_logprobs_of(part, logprobs.detach())
        ref = logprobs.detach() - 0.3 * part.target_ids.float().cos()
        return microbatch_loss(part, logprobs, old, ref, entropies, config.objective, plugins)

    @property
    def gradients(self):
        zero = torch.zeros(64)
        return [zero if one.grad is None else one.grad for one in (self.logprobs, self.entropies)]


def learned(config, completions, *, num_ranks=1, **changes):
    """Loss and gradients of one step."""

    def share(rank, add):
        plugins = started_plugins(config)
        ranks = {"rank": rank, "num_ranks": num_ranks, "add_over_ranks": add}
        return batch_of(config, completions, plugins, **ranks).rows, plugins

    policy = MadeUpPolicy()
    loss = sum(
        policy.learn(rows, config, plugins, **changes)
        for rows, plugins in on_ranks(share, num_ranks)
    )
    return loss, policy.gradients


def rows_by_id(batch):
    return {row.completion_id: row for row in batch.all_rows}


def group(one, config):
    return one.layer, group_of(one, config.layers[one.layer - 1])


def test_every_method_learns_something_from_every_phase(configs):
    for config in configs:
        loss, gradients = learned(config, made_up_step(config))
        assert math.isfinite(loss) and gradients[0].abs().sum() > 0


def compares(layer, config):
    """Do the layer's advantages compare a completion with its group?"""
    is_group_z = isinstance(layer.advantage, GroupZ)
    return is_group_z or {layer.advantage.type, config.objective.loss.type} & COMPARING


def test_equal_completions_contribute_exactly_nothing(configs):
    for config in configs:
        completions = made_up_step(config)
        for layer_number, layer in enumerate(config.layers, start=1):
            if not compares(layer, config):
                continue
            first = next(one for one in completions if one.layer == layer_number)
            equal = [
                dataclasses.replace(first, id=one.id)
                if group(one, config) == group(first, config)
                else one
                for one in completions
            ]
            rows = rows_by_id(batch_of(config, equal))
            for one in equal:
                assert all(map(math.isfinite, rows[one.completion_id].advantages))
                if group(one, config) == group(first, config):
                    assert not any(rows[one.completion_id].advantages)
                    assert rows[one.completion_id].entropy_weights is None


def test_a_groups_advantages_sum_to_zero_before_anything_is_left_out(configs):
    """As the layers compute them, from the rewards that plug-ins shape."""
    for config in configs:
        completions = made_up_step(config)
        plugins = [RewardsAlone(one) for one in started_plugins(config)]
        selections = batch_of(config, completions, plugins).selections
        sums: dict[Hashable, float] = {}
        for one, selection in zip(completions, selections, strict=True):
            if isinstance(config.layers[one.layer - 1].advantage, GroupZ):
                key = group(one, config)
                sums[key] = sums.get(key, 0.0) + selection.advantage
        assert all(abs(value) < 1e-6 for value in sums.values())


@pytest.mark.parametrize("merge_prefixes", [False, True])
def test_one_two_and_four_ranks_learn_the_same(configs, merge_prefixes):
    for config in configs:
        completions = made_up_step(config)
        expected, gradients = learned(config, completions)
        for num_ranks in (2, 4):
            loss, found = learned(
                config, completions, num_ranks=num_ranks, merge_prefixes=merge_prefixes
            )
            assert loss == pytest.approx(expected, rel=1e-4, abs=1e-6)
            for one, other in zip(found, gradients, strict=True):
                torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_the_ratio_is_one_on_fresh_completions_of_every_layer(configs):
    for config in configs:
        batch = batch_of(config, made_up_step(config))
        policy = MadeUpPolicy()
        for layer in {row.layer for row in batch.rows}:
            part = collate([row for row in batch.rows if row.layer == layer], merge_prefixes=True)
            own = policy.logprobs.detach()[part.target_ids]
            assert torch.equal(old_logprobs_of(part, own), own)
            clipped = config.objective.model_copy(update={"loss": PpoClip()})
            measured = token_measurements(part, own, own, None, own, clipped)
            assert not measured["learner/clip_fraction"].any()


def test_corrections_are_conditioned_on_their_own_prompt(configs):
    for config in configs:
        completions = made_up_step(config)
        questions = {
            one.problem_id: one.prompt_token_ids.tolist() for one in completions if one.layer == 1
        }
        rows = rows_by_id(batch_of(config, completions))
        for one in completions:
            row, question = rows[one.completion_id], questions[one.problem_id]
            expected = [*one.prompt_token_ids, *one.token_ids[:-1]]
            assert row.input_token_ids.tolist() == expected
            # A correction reads the question and more; here nothing reads the bare question.
            assert (row.prompt_token_ids.tolist() == question) == (one.layer == 1)


def test_an_attempts_recorded_logprobs_do_not_reach_the_corrections(configs):
    for config in configs:
        completions = made_up_step(config)
        moved = [
            dataclasses.replace(one, rollout_logprobs=[value - 1 for value in one.rollout_logprobs])
            if one.layer == 1
            else one
            for one in completions
        ]
        corrections = [
            [row for row in batch_of(config, which).rows if row.layer > 1]
            for which in (completions, moved)
        ]
        assert corrections[0] == corrections[1]


def test_injected_tokens_that_are_masked_contribute_nothing(scorer):
    (config,) = method_configs("edge_grpo", scorer)
    completions = made_up_step(config)
    repaired = [one for one in completions if one.augmented_by]
    assert repaired
    loss, gradients = learned(config, completions)
    assert [float(one[INJECTED]) for one in gradients] == [0.0, 0.0]
    moved = [
        dataclasses.replace(
            one,
            rollout_logprobs=[
                value if is_sampled else -9.0
                for value, is_sampled in zip(one.rollout_logprobs, one.is_sampled, strict=True)
            ],
        )
        for one in completions
    ]
    assert moved != completions
    found, found_gradients = learned(config, moved)
    assert found == loss
    assert all(map(torch.equal, found_gradients, gradients))


def test_what_is_trained_is_reported_for_every_layer(configs):
    for config in configs:
        completions = made_up_step(config)
        metrics = batch_of(config, completions).metrics | rollout_metrics(
            completions, len(config.layers)
        )
        for number in range(1, len(config.layers) + 1):
            for name in ("reward_mean", "zero_variance_fraction", "selected_fraction", "accuracy"):
                assert f"layer{number}/{name}" in metrics
        if len(config.layers) > 1:
            for kind in ("wrong_to_right_count", "copy_fraction", "truncated_parents_fraction"):
                assert f"transition/layer2/{kind}" in metrics
