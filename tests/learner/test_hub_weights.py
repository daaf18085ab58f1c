import pytest
import torch
from safetensors.torch import load_file

from learner.hub_weights import HubWeights
from learner.policy_loading import load_policy
from tests.learner.tiny_models import save_tiny

TITLES = (
    "Llama 3, tied",
    "Mixtral",
    "Qwen3-MoE",
    "DeepSeek V3",
    "GPT-OSS",
    "Gemma 3 (images)",
    "Qwen3.5 (images)",
    "ERNIE 4.5",
    "Phi-MoE",
)


@pytest.mark.parametrize("title", TITLES)
def test_what_engines_are_sent_is_what_the_hubs_file_holds(tmp_path, title):
    directory = save_tiny(title, tmp_path / "model")
    weights = HubWeights(load_policy(directory, dtype=torch.float32).causal_lm)
    sent = {}
    for names, shapes in zip(weights.groups, weights.shapes, strict=True):
        found = weights.convert({name: weights.tensors[name].detach() for name in names})
        assert [(name, one.dtype, tuple(one.shape)) for name, one in found.items()] == shapes
        assert not found.keys() & sent.keys()
        sent |= found
    expected = load_file(tmp_path / "model" / "model.safetensors")
    assert sent.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(sent[name], tensor), name


def test_a_mixtures_experts_have_the_names_that_engines_know(tmp_path):
    directory = save_tiny("Mixtral", tmp_path / "model")
    weights = HubWeights(load_policy(directory, dtype=torch.float32).causal_lm)
    names = {name for shapes in weights.shapes for name, _, _ in shapes}
    assert "model.layers.0.block_sparse_moe.experts.3.w1.weight" in names


def test_the_biases_by_which_a_mixture_chooses_are_sent_though_they_do_not_train(tmp_path):
    directory = save_tiny("DeepSeek V3", tmp_path / "model")
    weights = HubWeights(load_policy(directory, dtype=torch.bfloat16).causal_lm)
    types = {name: dtype for shapes in weights.shapes for name, dtype, _ in shapes}
    assert types["model.layers.1.mlp.gate.e_score_correction_bias"] == torch.float32
    assert types["model.norm.weight"] == torch.bfloat16
