from types import SimpleNamespace

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from learner import policy_loading, policy_proofs, tree_attention
from learner.policy_loading import in_training, load_policy
from learner.policy_proofs import prove_policy
from learner.zero_parts import own_numbers
from mgrpo.errors import LearnerError, ModelError
from tests.learner.builders import save_tiny_llama
from tests.learner.tiny_models import save_tiny

QUICK = {
    "Llama 3": "merged",
    "Llama 4 text": "merged",
    "Llama 4 text, short chunks": "padded",
    "Mixtral": "merged",
    "Qwen3-MoE": "merged",
    "Qwen3.5 (images)": "padded",
    "Gemma 2": "padded",
    "Gemma 3 (images)": "padded",
    "Gemma 4 text": "padded",
    "Phi-4-mini": "merged",
    "Granite": "merged",
    "Cohere 2": "padded",
    "MiniCPM 3": "merged",
    "Falcon-H1": "padded",
    "Nemotron": "merged",
    "DeepSeek V3": "merged",
}


def loaded(directory, *, dtype=torch.float32, checkpointing=False):
    return load_policy(str(directory), dtype=dtype, gradient_checkpointing=checkpointing)


def prove(policy, **settings):
    prove_policy(policy, policy, **{"merge_prefixes": True, "device": "cpu", **settings})


@pytest.mark.parametrize("title", QUICK)
def test_a_family_trains_as_its_untouched_model_computes(tmp_path, title):
    directory = save_tiny(title, tmp_path)
    for dtype in (torch.float32, torch.bfloat16):
        policy = loaded(directory, dtype=dtype, checkpointing=True)
        prove(policy)
        assert policy.merges_prefixes == (QUICK[title] == "merged")


@pytest.mark.parametrize(("rank", "held"), [(0, 2), (1, 2), (2, 1), (3, 0)])
def test_what_follows_a_sharded_weights_last_number_is_not_the_weights(rank, held):
    weight = nn.Parameter(torch.zeros(0))  # five numbers in parts of two
    part = torch.full((2,), torch.nan)
    part[:held] = 1.0
    weight.ds_tensor, weight.ds_numel, weight.ds_zero_partition_rank = part, 5, rank
    assert own_numbers(weight).tolist() == [1.0] * held


def test_proof_rows_outgrow_the_longest_window_that_a_row_can_outgrow(tmp_path):
    policy = loaded(save_tiny("Gemma 3 (images)", tmp_path))
    policy.causal_lm.config.text_config.sliding_window = 100

    def longest(max_row_tokens):
        rows = policy_proofs.proof_rows(policy, max_row_tokens)
        return max(row.num_input_tokens for row in rows)

    assert longest(None) > 100 and longest(300) > 100
    assert longest(100) == 63  # no row is longer than the window
    policy.causal_lm.config.text_config.max_position_embeddings = 10**6
    policy.causal_lm.config.text_config.sliding_window = 10**5
    assert longest(None) == policy_proofs.MAX_PROOF_TOKENS - 1
    assert longest(110_000) == policy_proofs.MAX_PROOF_TOKENS - 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("num_shared", [0, 1])
def test_new_tokens_that_do_not_see_all_they_share_are_found(
    tmp_path, monkeypatch, dtype, num_shared
):
    """As if their first query were the row's first token, or its second."""
    policy = loaded(save_tiny_llama(tmp_path / "tiny"), dtype=dtype)

    def misplaced(num_queries, num_keys):
        offset = num_shared if num_queries < num_keys else 0
        return torch.ones(num_queries, num_keys, dtype=torch.bool).tril(offset)

    monkeypatch.setattr(tree_attention, "causal_lower_right", misplaced)
    with pytest.raises(ModelError, match=r"share their prefixes.*merge_prefixes=false"):
        prove(policy)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_windows_that_a_replaced_attention_loses_are_found(tmp_path, monkeypatch, dtype):
    policy = loaded(save_tiny("Gemma 3 (images)", tmp_path), dtype=dtype)
    # As if the windows of a nested configuration had not been seen anywhere.
    monkeypatch.setattr(policy_loading, "why_not_mergeable", lambda *_: "")
    monkeypatch.setattr(tree_attention, "refuse_longer", lambda *_: None)
    with pytest.raises(ModelError, match=r"share their prefixes.*merge_prefixes=false"):
        prove(policy)


def test_a_row_that_outgrows_a_window_is_never_read_without_it(tmp_path):
    policy = loaded(save_tiny("Gemma 3 (images)", tmp_path))
    prove(policy, max_row_tokens=8)
    assert policy.merges_prefixes  # of rows that the window holds
    rows = policy_proofs.proof_rows(policy, None)
    part = policy_proofs.collate(rows, "cpu", merge_prefixes=True)
    with pytest.raises(LearnerError, match=r"row of 63 tokens is longer than the 8"):
        policy(part.input_ids, part.positions, part.target_ids, 1.0, 8, part.prefix_tree)


def test_a_model_that_looks_beyond_its_row_is_refused(tmp_path):
    policy = loaded(save_tiny_llama(tmp_path))
    prove(policy)

    def mix_neighbours(_module, _inputs, output):
        return output + output.roll(1, dims=1)  # right for rows, wrong for nodes

    policy = loaded(tmp_path)
    policy.decoder.layers[0].mlp.register_forward_hook(mix_neighbours)
    with pytest.raises(ModelError, match="merge_prefixes=false"):
        prove(policy)


def test_a_model_that_looks_at_its_padding_is_refused(tmp_path):
    policy = loaded(save_tiny_llama(tmp_path))

    def look_ahead(_module, _inputs, output):
        return output + output.mean(dim=1, keepdim=True)

    policy.decoder.layers[0].mlp.register_forward_hook(look_ahead)
    with pytest.raises(ModelError, match="padded to one length"):
        prove(policy, merge_prefixes=False)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rate", [1e-3, 0.1])
def test_dropout_that_is_on_while_it_trains_is_found_at_any_rate(tmp_path, dtype, rate):
    policy = loaded(save_tiny_llama(tmp_path), dtype=dtype, checkpointing=True)
    prove(policy)

    def drop(_module, _inputs, output):
        return nn.functional.dropout(output, rate, training=True)

    policy = loaded(tmp_path, dtype=dtype, checkpointing=True)
    policy.decoder.layers[0].mlp.register_forward_hook(drop)
    with pytest.raises(ModelError, match="is random as it trains"):
        prove(policy)


class Bent(LlamaForCausalLM):
    """Changes its logits by a rule that no configuration tells."""

    def forward(self, *args, **kwargs):
        output = super().forward(*args, **kwargs)
        output.logits = self.bend(output.logits)
        return output


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "bend",
    [
        lambda logits: 30 * torch.tanh(logits / 30),  # hardly seen in small logits
        lambda logits: logits * 1.1,
        lambda logits: logits + torch.linspace(0, 0.5, logits.shape[-1], dtype=logits.dtype),
        lambda logits: logits[..., :-1],
        lambda logits: logits.where(logits < 50, float("nan")),
    ],
)
def test_logits_that_are_changed_in_an_unknown_way_are_refused(tmp_path, bend, dtype):
    policy = loaded(save_tiny_llama(tmp_path), dtype=dtype)
    Bent.bend = staticmethod(bend)
    policy.causal_lm.__class__ = Bent
    with pytest.raises(ModelError, match="changes its logits after the output layer"):
        prove(policy)


class ScaledBefore(LlamaForCausalLM):
    """Divides the states on their way to the output layer, which no configuration tells."""

    def forward(self, input_ids, **_):
        states = self.model(input_ids=input_ids, use_cache=False).last_hidden_state
        return SimpleNamespace(logits=self.lm_head(states / 1.1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_states_that_are_changed_before_the_output_layer_are_refused(tmp_path, dtype):
    policy = loaded(save_tiny_llama(tmp_path), dtype=dtype)
    policy.causal_lm.__class__ = ScaledBefore
    with pytest.raises(ModelError, match="changes its logits after the output layer"):
        prove(policy)


def test_the_truth_is_taken_before_attention_is_replaced_and_layers_are_checkpointed(tmp_path):
    policy = loaded(save_tiny_llama(tmp_path), checkpointing=True)
    seen = []
    policy.decoder.register_forward_pre_hook(
        lambda module, _: seen.append(
            (module.config._attn_implementation, len(in_training(policy)))
        )
    )
    prove(policy)
    assert seen == [("sdpa", 0)] * 5 + [(tree_attention.ATTENTION_NAME, 2)] * 2


@pytest.mark.parametrize("title", ["Gemma 2", "Granite", "Cohere 2", "MiniCPM 3", "Falcon-H1"])
def test_a_claim_that_is_left_out_is_refused(tmp_path, title):
    policy = loaded(save_tiny(title, tmp_path))
    head = policy.causal_lm.get_output_embeddings()
    assert not head.transform.is_identity
    head.transform = policy_proofs.LogitTransform()
    with pytest.raises(ModelError, match=r"configuration says: unchanged"):
        prove(policy)


def test_what_an_architectures_own_code_raises_is_a_model_error(tmp_path):
    policy = loaded(save_tiny_llama(tmp_path))

    def fail(*_):
        raise AttributeError("no such thing")

    policy.decoder.layers[0].mlp.register_forward_hook(fail)
    with pytest.raises(ModelError, match="AttributeError: no such thing"):
        prove(policy)


def test_the_proof_leaves_the_model_as_it_was(tmp_path):
    policy = loaded(save_tiny_llama(tmp_path), checkpointing=True)
    policy(torch.tensor([[1, 2]]), torch.tensor([0]), torch.tensor([2]), 1.0, 8)
    before = in_training(policy), hooks_of(policy)  # transformers has hooks of its own
    prove(policy)
    assert (in_training(policy), hooks_of(policy)) == before
    assert before[0] == list(policy.decoder.layers)


def hooks_of(policy):
    return [list(module._forward_hooks.values()) for module in policy.modules()]


def test_a_model_without_windows_is_proven_on_a_few_short_rows(tmp_path):
    LlamaForCausalLM(
        LlamaConfig(
            hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
        )
    ).save_pretrained(tmp_path)
    policy = loaded(tmp_path)
    tokens = []
    policy.decoder.register_forward_pre_hook(
        lambda _module, _args, kwargs: tokens.append(kwargs["input_ids"].numel()),
        with_kwargs=True,
    )
    prove(policy)
    assert len(tokens) == 7 and sum(tokens) < 500
