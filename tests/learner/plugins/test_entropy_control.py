"""Entropy bonus, top-entropy tokens, and the distance to the reference."""

import pytest
import torch
from pydantic import ValidationError
from torch.testing import assert_close

from learner.batch import build_batch
from mgrpo.config import ObjectiveConfig
from tests.learner.builders import long, plugin, run_config, solve_layer
from tests.learner.exact import UNCORRECTED, exact_loss, floats

OFF = ObjectiveConfig(**UNCORRECTED)
RAW = {"advantage": "raw_reward"}


def batch_of(completions, part, layer=None, **measurements):
    solve = solve_layer(**(layer or RAW))
    return build_batch(completions, [solve], OFF, plugins=[part], measurements=measurements)


def flat(batch, name="advantages"):
    return [value for row in batch.all_rows for value in getattr(row, name)]


def problems(use, objective=None, **settings):
    config = run_config(layers=[solve_layer()], objective=objective)
    part = plugin(use, 1, **settings)
    return [
        one.path for one in type(part).faults(part.settings, frozenset({1}), config.method_view)
    ]


# --- entropy bonus ---


def test_the_bonus_is_the_entropy_averaged_as_the_layer_averages():
    probabilities = floats(0.7, 0.2, 0.1).requires_grad_()
    entropy = -(probabilities * probabilities.log()).sum()
    assert entropy.item() == pytest.approx(0.801819, abs=1e-6)
    part = plugin("entropy_bonus", coefficient=0.01)
    rows = batch_of([long("q/1", 0.0, 1), long("q/2", 0.0, 3)], part).all_rows
    entropies = torch.stack([entropy, *floats(0.3, 0.4, 0.5)])
    old = floats(-1, -1, -1, -1)
    loss = exact_loss(rows, old.clone(), old, entropies=entropies)
    assert loss.item() == pytest.approx(-0.01 * (0.801819 + 0.4) / 2, abs=1e-8)


def coefficient(mean, **settings):
    part = plugin("entropy_bonus", **settings)
    batch = batch_of([long("q/1", 1.0, 2)], part, entropies=floats(mean - 0.1, mean + 0.1))
    return batch.metrics["entropy_bonus/coefficient"][0]


def test_with_a_target_the_bonus_is_as_large_as_what_is_missing():
    settings = {"coefficient": 0.001, "target": 0.5, "gain": 0.01}
    assert coefficient(0.6, **settings) == 0
    assert coefficient(0.3, **settings) == pytest.approx(0.001 + 0.01 * 0.2)
    assert coefficient(0.3, **settings, max_coefficient=0.002) == 0.002
    assert plugin("entropy_bonus").wanted_measurements() == frozenset()
    assert plugin("entropy_bonus", target=0.5).wanted_measurements() == {"entropies"}


def test_settings_that_do_nothing_are_refused():
    for settings, reason in (({"gain": 0.1}, "needs a target"), ({"coefficient": 0.2}, "is above")):
        with pytest.raises(ValidationError, match=reason):
            plugin("entropy_bonus", **settings)


# --- top-entropy tokens ---


def test_only_the_most_undecided_tokens_keep_their_advantage():
    made = [long("q/1", 1.0, 3), long("q/2", -1.0, 2)]
    part = plugin("top_entropy_tokens", share=0.4)
    batch = batch_of(made, part, entropies=floats(0.1, 0.9, 0.2, 0.8, 0.3))
    assert flat(batch) == [0, 1, 0, -1, 0]
    # Between the third and the fourth of five: 0.3 + 0.4 * (0.8 - 0.3).
    assert batch.metrics["top_entropy/threshold"] == pytest.approx((0.5, 1.0))
    assert flat(batch, "token_weights") == pytest.approx([1 / 6] * 3 + [1 / 4] * 2)


def test_all_tokens_are_the_top_of_all():
    made = [long("q/1", 1.0, 2)]
    part = plugin("top_entropy_tokens", share=1.0)
    assert flat(batch_of(made, part, entropies=floats(0.1, 0.9))) == [1, 1]


def test_untrained_tokens_are_not_in_the_share():
    made = [long("q/1", 1.0, 3, train_mask=[True, False, True])]
    part = plugin("top_entropy_tokens", share=0.5)
    batch = batch_of(made, part, entropies=floats(0.1, 9.0, 0.2))
    assert [a * w for a, w in zip(flat(batch), flat(batch, "token_weights"), strict=True)] == [
        0,
        0,
        0.5,
    ]


# --- the distance to the reference ---


def test_the_log_ratio_is_taken_off_the_reward():
    made = [long("q/1", 1.0, 2), long("q/2", 0.0, 1)]
    policy, ref = floats(-0.1, -0.5, -1.0), floats(-0.3, -0.4, -1.5)
    batch = batch_of(
        made, plugin("kl_in_reward", weight=0.5), policy_logprobs=policy, ref_logprobs=ref
    )
    assert batch.shaped_rewards == pytest.approx([1 - 0.5 * 0.1, -0.5 * 0.5])
    assert batch.metrics["kl_in_reward/kl"] == pytest.approx((0.6, 2.0))


def expected_gradient(loss_of_token):
    """Of a loss under the policy itself, summed over a vocabulary of 4, by its logits."""
    logits = floats(0.3, -1.0, 0.8, 0.1).requires_grad_()
    reference = floats(-0.5, 0.2, 0.4, 0.0).log_softmax(0)
    logprobs = logits.log_softmax(0)
    losses = loss_of_token(logprobs, logprobs.detach(), reference)
    (logprobs.detach().exp() * losses).sum().backward()
    exact = floats(0.3, -1.0, 0.8, 0.1).requires_grad_()
    of_policy = exact.log_softmax(0)
    (of_policy.exp() * (of_policy - reference)).sum().backward()
    return logits.grad, exact.grad


def added(part, objective=OFF):
    """The KL loss of four tokens of weight 1, one for each word."""

    def of_tokens(logprobs, old, ref):
        made = [long(f"q/{number}", 0.0, 1) for number in range(1, 5)]
        solve = solve_layer(advantage="raw_reward", loss_weight=4.0)
        plugins = [part] if part else []
        rows = build_batch(made, [solve], objective, plugins=plugins).all_rows
        return torch.stack(
            [
                exact_loss(
                    [row],
                    logprobs[[word]],
                    old[[word]],
                    ref=ref[[word]],
                    plugins=plugins,
                    objective=objective,
                )
                for word, row in enumerate(rows)
            ]
        )

    return of_tokens


def test_unbiased_kl_has_the_gradient_of_the_kl_and_k3_has_not():
    found, exact = expected_gradient(added(plugin("unbiased_kl", weight=1.0)))
    assert_close(found, exact, rtol=1e-12, atol=1e-14)
    k3 = ObjectiveConfig(**UNCORRECTED, kl={"weight": 1.0, "estimator": "k3"})
    plain, exact = expected_gradient(added(None, k3))
    assert (plain - exact).abs().max() > 0.01


def test_k2_has_the_gradient_of_the_kl_and_k1_has_none():
    for estimator, factor in (("k2", 1.0), ("k1", 0.0)):
        settings = ObjectiveConfig(**UNCORRECTED, kl={"weight": 1.0, "estimator": estimator})
        found, exact = expected_gradient(added(None, settings))
        assert_close(found, factor * exact, rtol=1e-12, atol=1e-14)


def test_there_is_one_kl_penalty():
    assert problems("unbiased_kl") == []
    assert problems("unbiased_kl", objective={"kl": {"weight": 0.1}}) == ["(objective.kl.weight)"]
