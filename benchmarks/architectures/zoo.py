"""Tiny random models of many architectures, each with what its family is known for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

VOCABULARY = 259
"""Of the byte tokenizer that goes with every model."""
WINDOW = 8
"""Shorter than any row that is measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """A family and the settings of a tiny model of it."""

    title: str
    model_type: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    """On top of `SMALL`; None takes one of those out."""
    text: bool = True
    """False: the settings of the text's part stand in a section `text_config`."""
    sections: Mapping[str, Any] = field(default_factory=dict)
    """Of a composite configuration, besides `text_config`."""
    trains: bool = True
    """False: it must be refused."""

    @property
    def key(self) -> str:
        """A file name."""
        return "".join(c if c.isalnum() else "_" for c in self.title.lower())


SMALL: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 128,
    "intermediate_size": 192,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": 512,
    "initializer_range": 0.1,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "tie_word_embeddings": False,
}
EXPERTS: dict[str, Any] = {
    "num_experts": 4,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
}
LATENT: dict[str, Any] = {
    "num_key_value_heads": 4,
    "head_dim": None,
    "q_lora_rank": 32,
    "kv_lora_rank": 32,
    "qk_nope_head_dim": 32,
    "qk_rope_head_dim": 32,
    "v_head_dim": 32,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "n_shared_experts": 1,
    "n_group": 2,
    "topk_group": 1,
    "first_k_dense_replace": 1,
}
SIGLIP: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
}
STATE: dict[str, Any] = {
    "mamba_d_ssm": 128,
    "mamba_n_heads": 8,
    "mamba_d_head": 16,
    "mamba_n_groups": 1,
    "mamba_d_state": 16,
    "mamba_d_conv": 4,
    "mamba_expand": 1,
    "mamba_chunk_size": 16,
}
WINDOWED: dict[str, Any] = {
    "sliding_window": WINDOW,
    "layer_types": ["sliding_attention", "full_attention"],
}


def plain(title: str, model_type: str, **settings: Any) -> Architecture:
    return Architecture(title=title, model_type=model_type, settings=settings)


def composite(
    title: str, model_type: str, sections: Mapping[str, Any], /, **settings: Any
) -> Architecture:
    return Architecture(
        title=title, model_type=model_type, settings=settings, text=False, sections=sections
    )


ARCHITECTURES = (
    plain("Llama 3", "llama"),
    plain("Llama 3, tied", "llama", tie_word_embeddings=True),
    plain(
        "Llama 4 text",
        "llama4_text",
        intermediate_size_mlp=192,
        num_local_experts=4,
        num_experts_per_tok=1,
        attention_chunk_size=512,
        interleave_moe_layer_step=2,
    ),
    plain(
        "Llama 4 text, short chunks",
        "llama4_text",
        intermediate_size_mlp=192,
        num_local_experts=4,
        num_experts_per_tok=1,
        attention_chunk_size=WINDOW,
        interleave_moe_layer_step=2,
        no_rope_layers=[1, 0],
    ),
    composite(
        "Llama 4 (images)",
        "llama4",
        {
            "vision_config": {
                **SIGLIP,
                "intermediate_size": 128,
                "vision_output_dim": 64,
                "projector_input_dim": 64,
                "projector_output_dim": 64,
                "pixel_shuffle_ratio": 0.5,
            },
            "image_token_index": 10,
            "boi_token_index": 11,
            "eoi_token_index": 12,
        },
        intermediate_size_mlp=192,
        num_local_experts=4,
        num_experts_per_tok=1,
        attention_chunk_size=512,
        interleave_moe_layer_step=2,
    ),
    plain("Mistral", "mistral", sliding_window=None),
    plain("Mistral, window", "mistral", sliding_window=WINDOW),
    plain("Ministral 3", "ministral3", sliding_window=None),
    composite(
        "Mistral 3 (images)",
        "mistral3",
        {
            "vision_config": {**SIGLIP, "model_type": "pixtral", "head_dim": 16},
            "image_token_index": 10,
            "spatial_merge_size": 2,
        },
        model_type="mistral",
        sliding_window=None,
    ),
    plain("Mixtral", "mixtral", sliding_window=None, **EXPERTS),
    plain("Qwen2.5", "qwen2"),
    plain("Qwen3", "qwen3"),
    plain("Qwen3-MoE", "qwen3_moe", **EXPERTS, decoder_sparse_step=1, mlp_only_layers=[]),
    plain("Qwen2-MoE", "qwen2_moe", **EXPERTS, shared_expert_intermediate_size=32),
    plain(
        "Qwen3-Next",
        "qwen3_next",
        **EXPERTS,
        shared_expert_intermediate_size=32,
        layer_types=["linear_attention", "full_attention"],
        linear_num_value_heads=4,
        linear_num_key_heads=2,
        linear_key_head_dim=32,
        linear_value_head_dim=32,
    ),
    plain(
        "Qwen3.5 text",
        "qwen3_5_text",
        layer_types=["linear_attention", "full_attention"],
        linear_num_value_heads=4,
        linear_num_key_heads=2,
        linear_key_head_dim=32,
        linear_value_head_dim=32,
    ),
    composite(
        "Qwen3.5 (images)",
        "qwen3_5",
        {
            "vision_config": {
                "depth": 1,
                "hidden_size": 32,
                "intermediate_size": 48,
                "num_heads": 2,
                "out_hidden_size": 128,
                "num_position_embeddings": 16,
            },
            "image_token_id": 10,
            "video_token_id": 11,
            "vision_start_token_id": 12,
            "vision_end_token_id": 13,
        },
        model_type="qwen3_5_text",
        layer_types=["linear_attention", "full_attention"],
        linear_num_value_heads=4,
        linear_num_key_heads=2,
        linear_key_head_dim=32,
        linear_value_head_dim=32,
    ),
    composite(
        "Qwen2.5-VL",
        "qwen2_5_vl",
        {
            "vision_config": {
                "depth": 1,
                "hidden_size": 32,
                "intermediate_size": 48,
                "num_heads": 2,
                "out_hidden_size": 128,
                "fullatt_block_indexes": [0],
            },
            "image_token_id": 10,
            "video_token_id": 11,
            "vision_start_token_id": 12,
            "vision_end_token_id": 13,
        },
        rope_parameters={
            "rope_type": "default",
            "rope_theta": 10000.0,
            "mrope_section": [4, 6, 6],
        },
    ),
    composite(
        "Qwen3-VL",
        "qwen3_vl",
        {
            "vision_config": {
                "depth": 1,
                "hidden_size": 32,
                "intermediate_size": 48,
                "num_heads": 2,
                "out_hidden_size": 128,
                "num_position_embeddings": 16,
                "deepstack_visual_indexes": [0],
            },
            "image_token_id": 10,
            "video_token_id": 11,
            "vision_start_token_id": 12,
            "vision_end_token_id": 13,
        },
        rope_parameters={
            "rope_type": "default",
            "rope_theta": 10000.0,
            "mrope_section": [4, 6, 6],
        },
    ),
    plain("Gemma 1", "gemma", tie_word_embeddings=True),
    plain(
        "Gemma 2",
        "gemma2",
        tie_word_embeddings=True,
        query_pre_attn_scalar=32,
        final_logit_softcapping=3.0,
        attn_logit_softcapping=5.0,
        **WINDOWED,
    ),
    plain(
        "Gemma 3 text",
        "gemma3_text",
        tie_word_embeddings=True,
        query_pre_attn_scalar=32,
        **WINDOWED,
    ),
    composite(
        "Gemma 3 (images)",
        "gemma3",
        {
            "vision_config": {**SIGLIP, "model_type": "siglip_vision_model"},
            "mm_tokens_per_image": 4,
            "image_token_index": 10,
            "boi_token_index": 11,
            "eoi_token_index": 12,
        },
        tie_word_embeddings=True,
        query_pre_attn_scalar=32,
        **WINDOWED,
    ),
    plain(
        "Gemma 3n text",
        "gemma3n_text",
        tie_word_embeddings=True,
        vocab_size_per_layer_input=VOCABULARY,
        hidden_size_per_layer_input=16,
        num_hidden_layers=4,
        num_kv_shared_layers=2,
        laurel_rank=8,
        intermediate_size=[192] * 4,
        activation_sparsity_pattern=[0.95, 0.0, 0.0, 0.0],
        sliding_window=WINDOW,
        layer_types=["sliding_attention", "full_attention"] * 2,
    ),
    plain(
        "Gemma 4 text",
        "gemma4_text",
        tie_word_embeddings=True,
        num_hidden_layers=4,
        vocab_size_per_layer_input=VOCABULARY,
        hidden_size_per_layer_input=16,
        num_kv_shared_layers=0,
        global_head_dim=32,
        final_logit_softcapping=3.0,
        sliding_window=WINDOW,
        layer_types=["sliding_attention", "full_attention"] * 2,
    ),
    composite(
        "Gemma 4 (images)",
        "gemma4",
        {
            "vision_config": {**SIGLIP, "num_key_value_heads": 2, "head_dim": 16},
            "audio_config": None,
            "image_token_id": 10,
            "video_token_id": 13,
            "audio_token_id": 14,
            "boi_token_id": 11,
            "eoi_token_id": 12,
        },
        tie_word_embeddings=True,
        num_hidden_layers=4,
        vocab_size_per_layer_input=VOCABULARY,
        hidden_size_per_layer_input=16,
        num_kv_shared_layers=0,
        global_head_dim=32,
        final_logit_softcapping=3.0,
        sliding_window=WINDOW,
        layer_types=["sliding_attention", "full_attention"] * 2,
    ),
    plain("Phi-4 14B (Phi-3)", "phi3", sliding_window=None),
    plain("Phi-4-mini", "phi3", sliding_window=262_144, tie_word_embeddings=True),
    plain("Phi-MoE", "phimoe", sliding_window=None, **EXPERTS, router_jitter_noise=0.1),
    plain("OLMo 2", "olmo2"),
    plain("OLMo 3", "olmo3", **WINDOWED),
    plain("OLMoE", "olmoe", **EXPERTS),
    plain("SmolLM3", "smollm3", no_rope_layers=[1, 0]),
    plain(
        "Granite",
        "granite",
        logits_scaling=4.0,
        embedding_multiplier=3.0,
        residual_multiplier=0.5,
        attention_multiplier=0.25,
        tie_word_embeddings=True,
    ),
    plain("Granite-MoE", "granitemoe", **EXPERTS, logits_scaling=4.0),
    plain("Cohere", "cohere", logit_scale=0.25, tie_word_embeddings=True),
    plain("Cohere 2", "cohere2", logit_scale=0.25, tie_word_embeddings=True, **WINDOWED),
    plain(
        "Cohere 2, rows within the window",
        "cohere2",
        logit_scale=0.25,
        tie_word_embeddings=True,
        sliding_window=4096,
        layer_types=["sliding_attention", "full_attention"],
    ),
    Architecture(  # transformers leaves out the factor that its text's configuration names
        title="Aya Vision",
        model_type="aya_vision",
        settings={
            "model_type": "cohere2",
            "logit_scale": 0.25,
            "tie_word_embeddings": True,
            **WINDOWED,
        },
        text=False,
        sections={
            "vision_config": {**SIGLIP, "model_type": "siglip_vision_model"},
            "image_token_index": 10,
            "downsample_factor": 2,
        },
        trains=False,
    ),
    plain("GLM-4", "glm4", partial_rotary_factor=0.5),
    plain(
        "GLM-4.5",
        "glm4_moe",
        **{**LATENT, "q_lora_rank": None, "kv_lora_rank": None},
        partial_rotary_factor=0.5,
    ),
    plain("DeepSeek V2", "deepseek_v2", **LATENT),
    plain("DeepSeek V3", "deepseek_v3", **LATENT),
    plain("GPT-OSS", "gpt_oss", **EXPERTS, **WINDOWED),
    plain("Seed-OSS", "seed_oss", residual_dropout=0.1, attention_dropout=0.1),
    plain("ERNIE 4.5", "ernie4_5", tie_word_embeddings=True),
    plain("Hunyuan dense", "hunyuan_v1_dense", tie_word_embeddings=True),
    plain("Apertus", "apertus", hidden_act="xielu"),
    plain(
        "StarCoder 2",
        "starcoder2",
        residual_dropout=0.1,
        embedding_dropout=0.1,
        sliding_window=None,
    ),
    plain(
        "Falcon 7B",
        "falcon",
        head_dim=None,
        multi_query=True,
        hidden_dropout=0.1,
        attention_dropout=0.1,
    ),
    plain(
        "Falcon-H1",
        "falcon_h1",
        **STATE,
        lm_head_multiplier=0.5,
        embedding_multiplier=2.0,
    ),
    plain("Nemotron", "nemotron"),
    plain(
        "Nemotron-H",
        "nemotron_h",
        layers_block_type=["mamba", "attention", "moe"],
        num_hidden_layers=None,
        mamba_num_heads=8,
        mamba_head_dim=16,
        n_groups=1,
        ssm_state_size=16,
        chunk_size=16,
        n_routed_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=32,
        moe_shared_expert_intermediate_size=32,
    ),
    plain("Bamba", "bamba", **STATE, attn_layer_indices=[1]),
    plain("LFM2", "lfm2", layer_types=["conv", "full_attention"], conv_L_cache=3),
    plain("MiniMax-M2", "minimax_m2", **EXPERTS, rotary_dim=16),
    plain("StableLM", "stablelm", hidden_dropout=0.1, attention_dropout=0.1),
    plain("EXAONE 4", "exaone4", **WINDOWED),
    plain("MiniCPM 3", "minicpm3", **{**LATENT, "n_routed_experts": None}, dim_model_base=32),
    plain("Arcee", "arcee"),
    plain("Helium", "helium"),
    plain("NanoChat", "nanochat", final_logit_softcapping=3.0),
    plain("RecurrentGemma", "recurrent_gemma", lru_width=128, attention_window_size=WINDOW),
    plain("GPT-2", "gpt2", n_embd=128, n_layer=2, n_head=4, resid_pdrop=0.1),
    plain("GPT-NeoX (Pythia)", "gpt_neox", hidden_dropout=0.1),
    plain("OPT", "opt", ffn_dim=192, word_embed_proj_dim=128),
    plain(
        "Jamba",
        "jamba",
        num_experts=2,
        num_experts_per_tok=1,
        attn_layer_period=2,
        attn_layer_offset=1,
        expert_layer_period=2,
        expert_layer_offset=1,
        mamba_d_state=8,
        mamba_d_conv=4,
        mamba_expand=1,
        mamba_dt_rank=8,
        use_mamba_kernels=False,
    ),
    plain(
        "Mamba 2",
        "mamba2",
        num_heads=8,
        head_dim=32,
        state_size=16,
        n_groups=1,
        chunk_size=16,
        expand=2,
    ),
    composite(
        "SmolVLM",
        "smolvlm",
        {"vision_config": SIGLIP, "image_token_id": 10, "scale_factor": 2},
        model_type="llama",
    ),
    composite(
        "InternVL 3",
        "internvl",
        {
            "vision_config": {**SIGLIP, "image_size": [32, 32], "patch_size": [8, 8]},
            "image_token_id": 10,
        },
        model_type="qwen2",
    ),
    Architecture(title="BERT", model_type="bert", trains=False),
    plain("MPT", "mpt", d_model=128, n_heads=4, n_layers=2),
)


def find(key: str) -> Architecture:
    return next(architecture for architecture in ARCHITECTURES if architecture.key == key)


def make(architecture: Architecture, seed: int = 0) -> Any:
    """A random model in float32."""
    from transformers import AutoConfig

    from learner.policy_loading import auto_class

    left_out = {name for name in SMALL if architecture.settings.get(name, SMALL[name]) is None}
    settings = {**SMALL, **architecture.settings}
    settings = {name: value for name, value in settings.items() if name not in left_out}
    if not architecture.text:
        tied = settings["tie_word_embeddings"]
        settings = {
            "text_config": settings,
            "tie_word_embeddings": tied,
            **architecture.sections,
        }
    config = AutoConfig.for_model(architecture.model_type, **settings)
    torch.manual_seed(seed)
    model = auto_class(config).from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim < 2:  # norms of 1 and biases of 0 would hide what is left out
                parameter.add_(0.1 * torch.randn_like(parameter))
        saved = model.state_dict()
        for name, buffer in model.named_buffers():
            if name in saved and buffer.is_floating_point():
                buffer.add_(0.1 * torch.randn_like(buffer))
    return model


def save(architecture: Architecture, directory: Path) -> Path:
    """Write the model as its hub repository would be; returns the folder."""
    make(architecture).save_pretrained(directory)
    return directory
