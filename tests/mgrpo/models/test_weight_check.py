"""What `mgrpo check` says of weights, from headers alone: whole models pass, all others do not."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from mgrpo.check.model import look_at_model
from mgrpo.config import RunConfig
from mgrpo.errors import ModelError
from mgrpo.models.weight_check import classes_of, refuse_unfit
from mgrpo.models.weight_files import count_parameters, read_headers, read_weights

SIZES = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "head_dim": 8,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
EXPERTS = {
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16,
}
LATENT = {
    "n_group": 1,
    "topk_group": 1,
    "q_lora_rank": 16,
    "kv_lora_rank": 8,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 4,
    "v_head_dim": 8,
    "first_k_dense_replace": 1,
    "n_shared_experts": 1,
}
TOWER = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen2": {},
    "qwen3": {},
    "mistral": {},
    "gemma2": {},
    "gemma3_text": {},
    "phi3": {},
    "granite": {},
    "cohere2": {},
    "olmo2": {},
    "smollm3": {},
    "glm4": {},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64},
    "gpt_neox": {},
    "starcoder2": {},
    "mamba": {},
    "qwen3_moe": EXPERTS,
    "mixtral": EXPERTS,
    "olmoe": EXPERTS,
    "gpt_oss": EXPERTS,
    "deepseek_v3": {**EXPERTS, **LATENT},
    "gemma3": {
        "text_config": SIZES,
        "vision_config": {**TOWER, "image_size": 28, "patch_size": 14},
        "mm_tokens_per_image": 4,
    },
    "qwen2_5_vl": {
        "text_config": {**SIZES, "rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 2]}},
        "vision_config": {
            "depth": 1,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_heads": 4,
            "out_hidden_size": 32,
            "fullatt_block_indexes": [0],
        },
    },
}


@pytest.fixture
def model(tiny_model: Path, tmp_path: Path) -> Path:
    """A copy of a sound model, to break."""
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


@pytest.fixture
def failure(tree: dict[str, Any]) -> Any:
    """What a check of a model says is wrong; "" where nothing is."""

    def of(folder: Path, **keys: Any) -> str:
        tree["model"] = {"path": str(folder), **keys}
        lines, _ = look_at_model(RunConfig.model_validate(tree), {})
        return "\n".join(line.detail for line in lines if line.status == "fail")

    return of


def change(file: Path, **keys: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **keys}))


def split(folder: Path) -> list[Path]:
    """Spread a folder's weights over two files with an index."""
    state = load_file(folder / "model.safetensors")
    names = sorted(state)
    files = [folder / f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    parts = names[::2], names[1::2]
    for file, part in zip(files, parts, strict=True):
        save_file({name: state[name] for name in part}, file)
    shards = {n: file.name for file, part in zip(files, parts, strict=True) for n in part}
    index = {"metadata": {}, "weight_map": shards}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "model.safetensors").unlink()
    return files


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_whole_models_of_many_architectures_pass_and_a_missing_tensor_is_named(
    name: str, tmp_path: Path
):
    from transformers import AutoConfig

    for is_tied in (True, False):
        extra = ARCHITECTURES[name]
        keys = extra if "text_config" in extra else {**SIZES, **extra}
        config = AutoConfig.for_model(name, **keys, tie_word_embeddings=is_tied)
        folder = tmp_path / f"tied-{is_tied}"
        classes_of(type(config))[0](config).save_pretrained(folder)
        tensors = read_weights(folder)
        described = json.loads((folder / "config.json").read_text())
        refuse_unfit(tensors, described, str(folder))
        norm = next(one for one in tensors if "norm" in one or "ln_" in one)
        rest = {one: tensor for one, tensor in tensors.items() if one != norm}
        with pytest.raises(ModelError, match="1 tensor is missing"):
            refuse_unfit(rest, described, str(folder))


def test_a_model_without_the_output_layer_it_declares_is_refused_by_its_name(model, failure):
    assert failure(model) == ""
    change(model / "config.json", tie_word_embeddings=False)
    assert "lm_head.weight" in failure(model)
    assert "tie_word_embeddings" in failure(model)


def test_the_output_layer_may_stand_in_for_the_embedding_it_is_tied_to(model, failure):
    state = load_file(model / "model.safetensors")
    state["lm_head.weight"] = state.pop("model.embed_tokens.weight")
    save_file(state, model / "model.safetensors")
    assert failure(model) == ""


def test_an_output_layer_that_is_not_the_embedding_it_is_declared_to_be_is_refused(model, failure):
    state = load_file(model / "model.safetensors")
    state["lm_head.weight"] = state["model.embed_tokens.weight"].clone()
    save_file(state, model / "model.safetensors")
    assert failure(model) == ""
    state["lm_head.weight"] += 1
    save_file(state, model / "model.safetensors")
    assert "lm_head.weight and model.embed_tokens.weight" in failure(model)
    change(model / "config.json", tie_word_embeddings=False)
    assert failure(model) == ""


@pytest.mark.parametrize(
    ("broken", "expected"),
    [
        (lambda whole: whole[: len(whole) // 2], "describes"),
        (lambda whole: whole[:-1], "describes"),
        (lambda whole: whole + b"\0", "describes"),
        (lambda whole: whole[:5], "not a complete safetensors file"),
        (lambda whole: b"", "not a complete safetensors file"),
        (lambda whole: b"version https://git-lfs.github.com/spec/v1\nsize 9\n", "git lfs pull"),
        (lambda whole: b"\xff" * 8 + whole[8:], "not a complete safetensors file"),
        (lambda whole: whole.replace(b'"F32"', b'"F33"'), "not a complete safetensors file"),
    ],
)
def test_a_file_of_weights_that_is_not_whole_is_refused(model, failure, broken, expected: str):
    file = model / "model.safetensors"
    file.write_bytes(broken(file.read_bytes()))
    assert expected in failure(model)
    assert str(file) in failure(model)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_beginning_of_a_file_passes_for_the_whole(model, data: st.DataObject):
    file = model / "model.safetensors"
    whole = (model / "whole").read_bytes() if (model / "whole").is_file() else file.read_bytes()
    (model / "whole").write_bytes(whole)
    file.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(ModelError, match="not a complete safetensors file"):
        read_headers(file)


@pytest.mark.parametrize(
    "offsets", [[0, 4], [4, 12], [0, 12], [8, 16], [0, -8], [0, 2**63]], ids=str
)
def test_offsets_that_overlap_leave_gaps_or_run_beyond_are_refused(tmp_path: Path, offsets):
    entries = {
        "a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
        "b": {"dtype": "F32", "shape": [2], "data_offsets": offsets},
    }
    header = json.dumps(entries).encode()
    file = tmp_path / "model.safetensors"
    file.write_bytes(struct.pack("<Q", len(header)) + header + bytes(16))
    if offsets == [8, 16]:
        assert read_headers(file)["b"].shape == (2,)
        return
    with pytest.raises(ModelError, match="not a complete safetensors file"):
        read_headers(file)


def test_shards_are_read_by_their_index(model, failure):
    whole = count_parameters(read_weights(model))
    split(model)
    assert failure(model) == ""
    assert count_parameters(read_weights(model)) == whole


def test_a_missing_shard_is_named(model, failure):
    files = split(model)
    files[1].unlink()
    assert "model-00002-of-00002.safetensors" in failure(model)


@pytest.mark.parametrize("content", [b"", b"\0" * 64])
def test_an_empty_shard_is_named(model, failure, content: bytes):
    files = split(model)
    files[1].write_bytes(content)
    assert "model-00002-of-00002.safetensors is not a complete" in failure(model)


def test_a_shard_without_the_tensors_that_the_index_puts_there_is_refused(model, failure):
    files = split(model)
    state = load_file(files[1])
    lost = sorted(state)[0]
    save_file({name: tensor for name, tensor in state.items() if name != lost}, files[1])
    assert lost in failure(model)


@pytest.mark.parametrize(
    "text", ["{", "[]", "{}", '{"weight_map": {}}', '{"weight_map": {"a": 1}}']
)
def test_an_index_that_is_none_is_refused(model, failure, text: str):
    split(model)
    (model / "model.safetensors.index.json").write_text(text)
    assert "is not an index of safetensors files" in failure(model)


def test_shapes_that_config_json_does_not_describe_are_refused_with_both(model, failure):
    change(model / "config.json", intermediate_size=16)
    assert "model.layers.0.mlp.down_proj.weight is 8 x 8, expected 8 x 16" in failure(model)


def test_tensors_without_a_place_are_refused(model, failure):
    change(model / "config.json", num_hidden_layers=0)
    assert "9 tensors are not in the architecture" in failure(model)


def test_a_vocabulary_that_the_embedding_does_not_hold_is_refused(model, failure):
    change(model / "config.json", vocab_size=120)
    assert "model.embed_tokens.weight is 98 x 8, expected 120 x 8" in failure(model)


def test_tokens_added_beyond_the_embedding_are_refused_by_name(model, failure):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.add_tokens(["<step>"])
    tokenizer.save_pretrained(model)
    assert "'<step>' (98)" in failure(model)


def test_a_placeholder_of_a_picture_beyond_a_text_models_embedding_only_warns(model, failure):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image_soft_token>"]})
    tokenizer.save_pretrained(model)
    assert failure(model) == ""


def test_an_unknown_type_of_model_is_refused_with_the_nearest(model, failure):
    change(model / "config.json", model_type="qwen33")
    assert "'qwen33'" in failure(model)
    assert "'qwen3'" in failure(model)


def test_a_model_that_needs_code_of_its_own_is_refused(model, failure):
    keys = {"auto_map": {"AutoModelForCausalLM": "modeling_own.OwnModel"}, "model_type": "own"}
    change(model / "config.json", **keys)
    assert "its own code" in failure(model)


def test_a_model_that_cannot_write_is_refused(model, failure):
    change(model / "config.json", model_type="t5")
    assert "no causal language model" in failure(model)


def test_settings_of_which_no_model_can_be_made_are_refused(model, failure):
    change(model / "config.json", hidden_act="no such function")
    assert "No model can be made" in failure(model)


@pytest.mark.parametrize(
    ("quantised", "expected"),
    [
        ({"quant_method": "awq", "bits": 4}, "awq"),
        ({"quant_method": "gptq", "bits": 4, "group_size": 128}, "gptq"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes"),
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, "fp8"),
        ({"quant_method": "compressed-tensors", "format": "pack-quantized"}, "compressed-tensors"),
        ({"quant_method": "mxfp4"}, "mxfp4"),
    ],
)
def test_quantised_weights_are_refused_by_their_method(model, failure, quantised, expected: str):
    change(model / "config.json", quantization_config=quantised)
    assert f"quantised ({expected})" in failure(model)


def test_quantised_weights_that_nothing_declares_are_refused_by_their_type(model, failure):
    import torch

    state = load_file(model / "model.safetensors")
    name = "model.layers.0.mlp.down_proj.weight"
    state[name] = state[name].to(torch.float8_e4m3fn)
    save_file(state, model / "model.safetensors")
    assert "F8_E4M3" in failure(model)


def test_weights_in_another_format_are_refused_by_their_file(model, failure):
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    assert "pytorch_model.bin" in failure(model)
    assert "save_pretrained" in failure(model)


@pytest.mark.parametrize("is_alone", [True, False])
def test_an_adapter_is_refused(model, failure, is_alone: bool):
    (model / "adapter_config.json").write_text('{"base_model_name_or_path": "org/base"}')
    if is_alone:
        (model / "config.json").unlink()
        (model / "model.safetensors").rename(model / "adapter_model.safetensors")
    assert "merge_and_unload" in failure(model)


@pytest.mark.parametrize(
    "file", ["config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"]
)
@pytest.mark.parametrize("text", ["", "{", "[1, 2", "\x00\x01", "[]", "null", "3"])
def test_files_that_are_cut_off_are_failed_lines_and_no_traceback(model, failure, file, text):
    (model / file).write_text(text)
    assert str(model) in failure(model)


ODD_VALUES = [None, "", [], {}, -1, 0, 3, 0.5, "x", True, [1], {"a": 1}]
KEYS = {
    "config.json": [
        "architectures",
        "auto_map",
        "eos_token_id",
        "hidden_size",
        "is_encoder_decoder",
        "max_position_embeddings",
        "model_type",
        "num_attention_heads",
        "quantization_config",
        "rope_parameters",
        "text_config",
        "vocab_size",
    ],
    "generation_config.json": ["eos_token_id", "text_config"],
    "tokenizer_config.json": ["bos_token", "eos_token", "extra_special_tokens", "model_max_length"],
}


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_setting_of_a_model_ends_the_check_in_a_traceback(model, failure, data: st.DataObject):
    file = model / data.draw(st.sampled_from(sorted(KEYS)))
    key = data.draw(st.sampled_from(KEYS[file.name]))
    whole = file.read_text()
    try:
        change(file, **{key: data.draw(st.sampled_from(ODD_VALUES))})
        failure(model)
    finally:
        file.write_text(whole)
