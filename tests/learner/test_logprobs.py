import math

import pytest
import torch
from torch import nn
from torch.testing import assert_close
from transformers import LlamaConfig, LlamaForCausalLM

from learner.logprobs import PolicyModel, most_chunk_tokens, token_logprobs
from learner.policy_loading import in_training, load_policy
from mgrpo.errors import ModelError
from tests.learner.builders import save_tiny_llama


def naive(hidden, weight, bias, targets, temperature):
    logits = torch.nn.functional.linear(hidden, weight, bias).div(temperature)
    logprobs = logits.log_softmax(dim=-1)
    entropy = -(logprobs.exp() * logprobs).sum(dim=-1)
    return logprobs.gather(1, targets[:, None])[:, 0], entropy


@pytest.mark.parametrize("chunk_tokens", [1, 3, 7, 100])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("used", [(1.0, 0.0), (0.0, 1.0), (1.0, 1.0)])
def test_chunks_give_the_values_and_gradients_of_the_full_softmax(
    chunk_tokens, temperature, with_bias, used
):
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        values = torch.randn(*shape, generator=generator, dtype=torch.float64)
        return values.requires_grad_()

    inputs = [draw(7, 5), draw(11, 5)] + ([draw(11)] if with_bias else [])
    hidden, weight, bias = inputs[0], inputs[1], inputs[2] if with_bias else None
    targets = torch.randint(0, 11, (7,), generator=generator)
    upstreams = [torch.randn(7, generator=generator, dtype=torch.float64) for _ in used]

    expected, expected_entropy = naive(hidden, weight, bias, targets, temperature)
    found, entropy = token_logprobs(
        hidden, weight, bias, targets, temperature=temperature, chunk_tokens=chunk_tokens
    )
    assert_close(found, expected)
    assert_close(entropy, expected_entropy)

    def gradients(*outputs):
        # An output that is not used hands no gradient on, not one of zeros.
        losses = [
            (one * upstream).sum()
            for one, upstream, factor in zip(outputs, upstreams, used, strict=True)
            if factor
        ]
        return torch.autograd.grad(sum(losses), inputs)

    for mine, theirs in zip(
        gradients(found, entropy), gradients(expected, expected_entropy), strict=True
    ):
        assert_close(mine, theirs)


def test_without_entropies_log_probabilities_and_gradients_are_the_same():
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(7, 5, generator=generator, requires_grad=True)
    weight = torch.randn(11, 5, generator=generator, requires_grad=True)
    targets = torch.randint(0, 11, (7,), generator=generator)
    found = {}
    for with_entropy in (True, False):
        logprobs, entropies = token_logprobs(
            hidden, weight, None, targets, chunk_tokens=3, with_entropy=with_entropy
        )
        gradients = torch.autograd.grad(logprobs.square().sum(), [hidden, weight])
        found[with_entropy] = [logprobs, *gradients]
        assert len(entropies) == (7 if with_entropy else 0)
    for one, other in zip(found[True], found[False], strict=True):
        assert torch.equal(one, other)


def test_on_a_cpu_a_chunks_logits_are_16_mib_and_at_least_128_tokens():
    assert most_chunk_tokens(torch.empty(259, 1)) == 2**22 // 259
    assert most_chunk_tokens(torch.empty(2**14, 1)) == 256
    assert most_chunk_tokens(torch.empty(150_000, 1)) == 128
    assert most_chunk_tokens(torch.empty(150_000, 1, device="meta")) == math.inf


def test_entropy_of_three_known_probabilities():
    weight = torch.log(torch.tensor([[0.7], [0.2], [0.1]]))
    _, entropy = token_logprobs(torch.ones(1, 1), weight, None, torch.tensor([0]))
    assert float(entropy) == pytest.approx(0.801819, abs=1e-6)


def test_logits_of_many_hundreds_do_not_overflow():
    weight = torch.tensor([[1000.0], [-1000.0], [999.0]])
    logprobs, entropy = token_logprobs(torch.ones(1, 1), weight, None, torch.tensor([2]))
    assert float(logprobs) == pytest.approx(-1.313262, abs=1e-4)
    assert bool(entropy.isfinite().all())


def test_half_precision_weights_get_the_gradient_of_a_float32_softmax():
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(64, 16, generator=generator)
    weight = torch.randn(32, 16, generator=generator)
    targets = torch.randint(0, 32, (64,), generator=generator)
    wide = weight.clone().requires_grad_()
    half = weight.bfloat16().requires_grad_()
    token_logprobs(hidden, wide, None, targets)[0].sum().backward()
    found, _ = token_logprobs(hidden.bfloat16(), half, None, targets, chunk_tokens=4)
    found.sum().backward()
    assert found.dtype == torch.float32
    error = (half.grad.float() - wide.grad).norm() / wide.grad.norm()
    assert float(error) < 0.02


@pytest.fixture(scope="module")
def tiny_dir(tmp_path_factory):
    return save_tiny_llama(tmp_path_factory.mktemp("policy") / "tiny")


def padded_rows():
    """Two rows of 6 and 4 tokens; trained are the last 3 of the first and the last of the other."""
    rows = [[5, 9, 12, 3, 44, 7], [8, 2, 30, 1]]
    input_ids = torch.tensor([rows[0][:-1], [*rows[1][:-1], 0, 0]])
    positions = torch.tensor([2, 3, 4, 7])
    return rows, input_ids, positions, torch.tensor([3, 44, 7, 1])


@pytest.mark.parametrize("tied", [False, True])
def test_a_padded_llama_agrees_with_each_row_alone_in_values_and_gradients(tmp_path, tied):
    directory = save_tiny_llama(tmp_path / "tiny", tie_word_embeddings=tied)
    naive_model = LlamaForCausalLM.from_pretrained(directory)
    policy = load_policy(str(directory), dtype=torch.float32)
    rows, input_ids, positions, targets = padded_rows()
    coefficients = torch.tensor([1.0, -2.0, 0.5, 3.0])

    pieces = []
    for row, first in ((rows[0], 3), (rows[1], 3)):
        logits = naive_model(input_ids=torch.tensor([row])).logits[0] / 0.8
        logprobs = logits.log_softmax(dim=-1)
        pieces += [logprobs[place - 1, row[place]] for place in range(first, len(row))]
    expected = torch.stack(pieces)
    found, _ = policy(input_ids, positions, targets, 0.8, 2)
    assert_close(found, expected, atol=1e-5, rtol=1e-5)

    (expected * coefficients).sum().backward()
    (found * coefficients).sum().backward()
    theirs = dict(naive_model.named_parameters())
    mine = dict(policy.causal_lm.named_parameters())
    assert mine.keys() == theirs.keys() and ("lm_head.weight" in mine) != tied
    for name, parameter in mine.items():
        assert_close(parameter.grad, theirs[name].grad, atol=1e-5, rtol=1e-4)


def test_what_stands_in_the_padding_changes_nothing(tiny_dir):
    policy = load_policy(str(tiny_dir), dtype=torch.float32)
    _, input_ids, positions, targets = padded_rows()
    before, _ = policy(input_ids, positions, targets, 1.0, 100)
    input_ids[1, 3:] = 63
    after, _ = policy(input_ids, positions, targets, 1.0, 100)
    assert torch.equal(before, after)


def test_gradient_checkpointing_changes_no_gradient_and_keeps_dropout_off(tmp_path):
    directory = save_tiny_llama(tmp_path / "tiny", attention_dropout=0.5)
    _, input_ids, positions, targets = padded_rows()
    gradients = []
    for checkpointing in (False, True):
        policy = load_policy(
            str(directory), dtype=torch.float32, gradient_checkpointing=checkpointing
        )
        layers = list(policy.causal_lm.model.layers)
        assert in_training(policy) == (layers if checkpointing else [])
        policy(input_ids, positions, targets, 1.0, 100)[0].sum().backward()
        gradients.append([parameter.grad for parameter in policy.parameters()])
    for plain, checkpointed in zip(*gradients, strict=True):
        assert_close(plain, checkpointed)


def test_an_output_layer_of_another_kind_is_refused():
    model = LlamaForCausalLM(
        LlamaConfig(hidden_size=8, num_hidden_layers=1, vocab_size=16, num_attention_heads=2)
    )
    model.set_output_embeddings(nn.Sequential(nn.Linear(8, 16)))
    with pytest.raises(ModelError, match="Sequential as its output layer"):
        PolicyModel(model)


def test_a_folder_without_safetensors_is_refused(tmp_path):
    with pytest.raises(ModelError, match="does not exist"):
        load_policy(str(tmp_path / "nothing"), dtype=torch.float32)
    save_tiny_llama(tmp_path / "pickled")
    weights = tmp_path / "pickled" / "model.safetensors"
    torch.save({}, tmp_path / "pickled" / "pytorch_model.bin")
    weights.unlink()
    with pytest.raises(ModelError, match="must be complete safetensors"):
        load_policy(str(tmp_path / "pickled"), dtype=torch.float32)
