import json
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    T5Config,
    T5ForConditionalGeneration,
)

from learner.export import KEPT_FILE, write_policy
from learner.hub_weights import HubWeights
from learner.policy_loading import in_training, load_policy
from mgrpo.errors import ModelError
from mgrpo.models.catalog import resolve_model
from tests.learner.builders import save_tiny_llama
from tests.learner.tiny_models import save_tiny

COMPOSITES = ("Gemma 3 (images)", "Mistral 3 (images)", "Qwen3.5 (images)", "Gemma 4 (images)")


def rewrite(directory, change):
    """Change a folder's weights."""
    file = directory / "model.safetensors"
    weights = load_file(file)
    change(weights)
    save_file(weights, file, metadata={"format": "pt"})
    return str(directory)


def load(directory):
    return load_policy(str(directory), dtype=torch.float32)


def test_an_untied_model_without_its_output_layer_is_refused_by_the_weights_name(tmp_path):
    shutil.copytree(resolve_model("default"), tmp_path / "model")
    config = tmp_path / "model" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "tie_word_embeddings": False}))
    with pytest.raises(ModelError, match=r"no weights for: lm_head\.weight"):
        load(tmp_path / "model")


def test_policies_that_threads_load_at_once_leave_transformers_as_it_was():
    """It works on the class of all models while it loads one."""
    ties_weights = PreTrainedModel.tie_weights
    with ThreadPoolExecutor(4) as threads:
        folders = [resolve_model("default")] * 8
        policies = list(
            threads.map(lambda folder: load_policy(str(folder), dtype=torch.float32), folders)
        )
    assert len(policies) == 8 and PreTrainedModel.tie_weights is ties_weights


def test_missing_unknown_and_misshapen_weights_are_refused_by_name(tmp_path):
    name = "model.layers.1.mlp.up_proj.weight"
    for case, (change, message) in enumerate(
        [
            (lambda weights: weights.pop(name), rf"no weights for: {name}"),
            (
                lambda weights: weights.update({"model.extra.weight": torch.zeros(2)}),
                r"does not have: model\.extra\.weight",
            ),
            (lambda weights: weights.update({name: torch.zeros(64, 31)}), "up_proj.weight"),
        ]
    ):
        directory = save_tiny_llama(tmp_path / str(case))
        rewrite(directory, change)
        with pytest.raises(ModelError, match=message):
            load(directory)


@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_a_model_without_any_one_of_its_weights_is_refused_by_that_name(spare_model, data):
    title, whole = spare_model
    with tempfile.TemporaryDirectory() as folder:
        directory = shutil.copytree(whole, Path(folder) / "model")
        weights = load_file(directory / "model.safetensors")
        name = data.draw(st.sampled_from(sorted(weights)))
        rewrite(directory, lambda weights: weights.pop(name))
        with pytest.raises(ModelError) as caught:
            load(directory)
    assert name.removeprefix("model.").removeprefix("language_model.") in str(caught.value), title


@pytest.fixture(scope="module", params=["Llama 3, tied", "Gemma 3 (images)"])
def spare_model(request, tmp_path_factory):
    directory = tmp_path_factory.mktemp("spare") / "model"
    save_tiny(request.param, directory)
    return request.param, directory


def test_the_same_weights_in_another_layout_beside_them_are_not_looked_at(tmp_path):
    directory = save_tiny_llama(tmp_path)
    save_file({"layers.0.attention.wq": torch.zeros(2)}, directory / "consolidated.safetensors")
    load(directory)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_truncated_file_is_a_model_error_wherever_it_ends(tmp_path, share):
    directory = save_tiny_llama(tmp_path / "tiny")
    file = directory / "model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ModelError, match="could not be loaded"):
        load(directory)


def test_a_missing_shard_is_a_model_error(tmp_path):
    model = LlamaForCausalLM(LlamaConfig(hidden_size=32, num_hidden_layers=2, vocab_size=64))
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    sorted(tmp_path.glob("model-0*.safetensors"))[1].unlink()
    with pytest.raises(ModelError, match="could not be loaded"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "nobody_knows"}, "nobody_knows"),
        ({"quantization_config": {"quant_method": "awq", "bits": 4}}, r"quantised \(awq\)"),
        ({"num_attention_heads": "four"}, "could not be loaded"),
        ({"hidden_size": 33}, "could not be loaded"),
    ],
)
def test_a_configuration_that_does_not_do_is_a_model_error(tmp_path, change, message):
    directory = save_tiny_llama(tmp_path / "tiny")
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(ModelError, match=message):
        load(directory)


def test_an_encoder_is_refused(tmp_path):
    config = T5Config(d_model=16, d_ff=16, num_layers=1, num_heads=2, d_kv=8, vocab_size=32)
    T5ForConditionalGeneration(config).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="has an encoder"):
        load(tmp_path)


@pytest.mark.parametrize("title", COMPOSITES)
def test_of_a_model_with_towers_the_text_trains_and_the_rest_is_kept_and_saved(tmp_path, title):
    source = tmp_path / "source"
    policy = load(save_tiny(title, source))
    frozen = [name for name, one in policy.causal_lm.named_parameters() if not one.requires_grad]
    assert frozen and all("vis" in name or "project" in name for name in frozen)
    input_ids = torch.arange(20, 50)[None]
    policy(input_ids, torch.arange(29), input_ids[0, 1:], 1.0, 8)[0].sum().backward()
    moved = {name for name, one in policy.causal_lm.named_parameters() if one.grad is not None}
    assert moved and not moved & set(frozen)

    with torch.no_grad():
        for parameter in policy.parameters():
            if parameter.requires_grad:
                parameter += 1
    saved = tmp_path / "saved"
    save(policy, source, saved)
    before, after = load_file(source / "model.safetensors"), load_file(saved / "model.safetensors")
    assert before.keys() == after.keys()
    moved = hub_names(policy, lambda tensor: tensor.requires_grad)
    assert moved and moved < before.keys()
    for name, tensor in before.items():
        torch.testing.assert_close(after[name], tensor + 1 if name in moved else tensor)
    load(saved)


def hub_names(policy, of):
    """Names in the file of the tensors that `of` is true of."""
    weights = HubWeights(policy.causal_lm)
    return {
        shape[0]
        for names, shapes in zip(weights.groups, weights.shapes, strict=True)
        for shape in shapes
        if of(weights.tensors[names[0]])
    }


def save(policy, source, directory):
    weights = HubWeights(policy.causal_lm)
    state = {}
    for names in weights.groups:
        values = {name: weights.tensors[name].detach().clone() for name in names}
        state |= {name: one.clone() for name, one in weights.convert(values).items()}
    write_policy(directory, policy.causal_lm, state, source_dir=source, dtype_name="float32")


def test_weights_that_the_architecture_ignores_stay_in_the_checkpoint(tmp_path):
    source, saved = tmp_path / "source", tmp_path / "saved"
    save_tiny("Qwen3.5 text", source)
    guess = torch.arange(6.0).reshape(2, 3)
    rewrite(source, lambda weights: weights.update({"mtp.fc.weight": guess}))
    (source / "origin.json").write_text("{}")
    for _ in range(2):  # and stay there when the saved policy trains again
        save(load(source), source, saved)
        torch.testing.assert_close(load_file(saved / KEPT_FILE)["mtp.fc.weight"], guess)
        assert len({file.stat().st_mode for file in saved.iterdir()}) == 1  # others may read them
        assert not (saved / "origin.json").exists()  # of the weights before
        load(saved)
        source, saved = saved, tmp_path / "again"


@pytest.mark.parametrize("title", ["Falcon 7B", "Seed-OSS", "StarCoder 2", "StableLM", "GPT-2"])
def test_nothing_random_is_on_while_layers_are_checkpointed(tmp_path, title):
    policy = load_policy(
        save_tiny(title, tmp_path / "model"), dtype=torch.float32, gradient_checkpointing=True
    )
    assert 0 < len(in_training(policy)) <= 2  # the layers, which leave the mode while they compute
    input_ids = torch.arange(20, 50)[None]

    def gradient():
        policy.zero_grad()
        logprobs, _ = policy(input_ids, torch.arange(29), input_ids[0, 1:], 1.0, 8)
        logprobs.sum().backward()
        return [logprobs, *(one.grad for one in policy.parameters())]

    for one, other in zip(gradient(), gradient(), strict=True):
        assert torch.equal(one, other)
