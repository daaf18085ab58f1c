import logging

import pytest
import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from learner.logprobs import PolicyModel
from learner.packing import collate
from learner.policy_loading import checkpoint_in_evaluation, merge_where_possible
from learner.rows import TrainingRow
from learner.tree_attention import why_not_mergeable

SMALL = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 64,
    "initializer_range": 0.2,
    "max_position_embeddings": 64,
}
MODELS = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SMALL)),
    "tied": lambda: LlamaForCausalLM(LlamaConfig(**SMALL, tie_word_embeddings=True)),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**SMALL)),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**SMALL, head_dim=16)),
    "gpt2": lambda: GPT2LMHeadModel(
        GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=64, n_positions=64)
    ),
}


def policy_of(make, *, dtype=torch.float64):
    torch.manual_seed(0)
    policy = PolicyModel(make().to(dtype)).eval()
    merge_where_possible(policy)
    return policy


def tree_of_rows():
    """Attempts that share a prompt, corrections that continue them, one that repeats."""
    generator = torch.Generator().manual_seed(3)

    def draw(count):
        return torch.randint(0, 64, (count,), generator=generator).tolist()

    rows = []
    question = draw(9)
    for number in range(3):
        attempt = draw(3 + 2 * number)
        rows.append((question, attempt))
        review = question + attempt + draw(4)
        rows += [(review, draw(1 + 3 * h)) for h in range(3)]
    rows.append(rows[0])
    rows.append((draw(2), draw(1)))
    return [
        TrainingRow(
            completion_id=str(number),
            layer=1,
            prompt_token_ids=prompt,
            token_ids=tokens,
            rollout_logprobs=[-1.0] * len(tokens),
            advantages=[1.0] * len(tokens),
            token_weights=[1.0] * len(tokens),
        )
        for number, (prompt, tokens) in enumerate(rows)
    ]


def compute(policy, *, merge_prefixes):
    """Log-probabilities, entropies and the gradient of a weighted sum over tokens."""
    part = collate(tree_of_rows(), merge_prefixes=merge_prefixes)
    policy.zero_grad()
    logprobs, entropies = part.read_by(policy, temperature=0.8, chunk_tokens=7)
    (logprobs * torch.linspace(-1, 2, len(logprobs))).sum().backward()
    gradient = {name: one.grad.clone() for name, one in policy.named_parameters()}
    return part, logprobs.detach(), entropies, gradient


@pytest.mark.parametrize("name", sorted(MODELS))
def test_merged_rows_give_the_same_numbers_and_the_same_gradient(name):
    policy = policy_of(MODELS[name])
    assert policy.merges_prefixes
    padded, logprobs, entropies, gradient = compute(policy, merge_prefixes=False)
    merged, *found = compute(policy, merge_prefixes=True)
    assert merged.input_ids.numel() < 0.6 * padded.num_row_tokens
    torch.testing.assert_close(found[0], logprobs, rtol=0, atol=1e-10)
    torch.testing.assert_close(found[1], entropies, rtol=0, atol=1e-10)
    # Norms and rotary embeddings compute in float32 whatever the model's type.
    for weight, expected in gradient.items():
        difference = float((found[2][weight] - expected).norm())
        assert difference <= 1e-6 * float(expected.norm()) and expected.norm() > 1e-6, weight


@pytest.mark.parametrize("name", ["llama", "qwen2"])
def test_gradient_checkpointing_keeps_the_tree(name):
    policy = policy_of(MODELS[name])
    expected = compute(policy, merge_prefixes=True)[3]
    checkpoint_in_evaluation(policy.causal_lm)
    found = compute(policy, merge_prefixes=True)[3]
    for weight, value in expected.items():
        torch.testing.assert_close(found[weight], value)


def test_a_model_without_a_tree_still_answers_as_before():
    plain = PolicyModel(MODELS["llama"]().double()).eval()
    tokens = torch.arange(12)[None]
    expected = plain.causal_lm(input_ids=tokens, use_cache=False).logits
    merge_where_possible(plain)
    torch.testing.assert_close(plain.causal_lm(input_ids=tokens, use_cache=False).logits, expected)


def test_sliding_windows_are_padded_instead_and_it_is_said(caplog):
    with caplog.at_level(logging.WARNING):
        policy = policy_of(lambda: MistralForCausalLM(MistralConfig(**SMALL, sliding_window=4)))
    assert not policy.merges_prefixes
    assert "MistralForCausalLM" in caplog.text and "padded" in caplog.text
    policy = policy_of(lambda: MistralForCausalLM(MistralConfig(**SMALL, sliding_window=None)))
    assert policy.merges_prefixes


def test_each_obstacle_has_its_reason():
    model = MODELS["qwen2"]()
    assert why_not_mergeable(model) == ""
    model.config.layer_types = ["full_attention", "sliding_attention", "full_attention"]
    assert "sliding_attention" in why_not_mergeable(model)
    model = MODELS["llama"]()
    model.set_attn_implementation("eager")
    assert "eager" in why_not_mergeable(model)
