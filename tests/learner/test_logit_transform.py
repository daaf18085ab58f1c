import math
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from learner.logit_transform import LogitTransform, transform_of
from learner.logprobs import token_logprobs


def settings(model_type="x", **values):
    return SimpleNamespace(model_type=model_type, **values)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (settings(), LogitTransform()),
        (settings(final_logit_softcapping=30.0), LogitTransform(cap=30.0)),
        (settings(final_logit_softcapping=None), LogitTransform()),
        (settings(logits_soft_cap=30.0), LogitTransform(cap=30.0)),
        (settings("granite", logits_scaling=8.0), LogitTransform(0.125)),
        (settings("hyperclovax", logits_scaling=8.0), LogitTransform(8.0)),
        (settings(logit_scale=0.0625), LogitTransform(0.0625)),
        (settings(lm_head_multiplier=0.5), LogitTransform(0.5)),
        (settings(output_multiplier=2.0, final_logit_softcapping=5.0), LogitTransform(2.0, 5.0)),
        (settings(logit_scale=True), LogitTransform()),
    ],
)
def test_what_a_configuration_says_of_its_logits(config, expected):
    assert transform_of(config) == expected


def test_a_capped_logit_by_hand():
    # 2 * 1.5 = 3; 4 * tanh(3 / 4) = 4 * 0.6351490 = 2.5405959; slope 2 * (1 - 0.6351490^2).
    transform = LogitTransform(factor=2.0, cap=4.0)
    changed = transform.apply_(torch.tensor([1.5], dtype=torch.float64))
    assert float(changed) == pytest.approx(2.5405959, abs=1e-6)
    slope = transform.slopes(changed / 0.5, temperature=0.5)
    assert float(slope) == pytest.approx(2 * (1 - 0.6351490**2) / 0.5, abs=1e-5)


def test_two_capped_logits_give_the_probability_and_gradient_worked_by_hand():
    # Logits 3 and -3 through a cap of 3: 3 tanh(1) = 2.2847825 and its negative, so
    # p = 1 / (1 + exp(-4.5695649)) = 0.9897438, and
    # d log p / d x_0 = (1 - p) * (1 - tanh(1)^2) = 0.0102562 * 0.4199743 = 0.0043073.
    weight = torch.tensor([[3.0], [-3.0]], dtype=torch.float64, requires_grad=True)
    hidden = torch.ones(1, 1, dtype=torch.float64)
    logprobs, _ = token_logprobs(
        hidden, weight, None, torch.tensor([0]), transform=LogitTransform(cap=3.0)
    )
    assert math.exp(float(logprobs.detach())) == pytest.approx(0.9897438, abs=1e-6)
    logprobs.sum().backward()
    assert_close(weight.grad, torch.tensor([[0.0043073], [-0.0043073]]).double(), atol=1e-6, rtol=0)


@given(
    factor=st.floats(0.05, 8.0),
    cap=st.none() | st.floats(0.5, 50.0),
    temperature=st.floats(0.3, 2.0),
    chunk_tokens=st.integers(1, 9),
    with_bias=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_any_factor_and_cap_give_the_values_and_gradients_of_autograd(
    factor, cap, temperature, chunk_tokens, with_bias, seed
):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()

    inputs = [draw(7, 5), draw(11, 5)] + ([draw(11)] if with_bias else [])
    hidden, weight, bias = inputs[0], inputs[1], inputs[2] if with_bias else None
    targets = torch.randint(0, 11, (7,), generator=generator)

    logits = torch.nn.functional.linear(hidden, weight, bias) * factor
    logits = (logits if cap is None else cap * torch.tanh(logits / cap)) / temperature
    all_logprobs = logits.log_softmax(dim=-1)
    expected = all_logprobs.gather(1, targets[:, None])[:, 0]
    entropies = -(all_logprobs.exp() * all_logprobs).sum(dim=-1)
    found, entropy = token_logprobs(
        hidden,
        weight,
        bias,
        targets,
        temperature=temperature,
        chunk_tokens=chunk_tokens,
        transform=LogitTransform(factor, cap),
    )
    assert_close(found, expected)
    assert_close(entropy, entropies)
    signs = torch.linspace(-1, 2, 7, dtype=torch.float64)
    mine = torch.autograd.grad((found * signs + entropy * signs.flip(0)).sum(), inputs)
    theirs = torch.autograd.grad((expected * signs + entropies * signs.flip(0)).sum(), inputs)
    for one, other in zip(mine, theirs, strict=True):
        assert_close(one, other)
