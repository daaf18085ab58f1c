"""The formulas of a plan, on numbers that can be worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest

from mgrpo.config.load import load_recipe
from mgrpo.plan.batch import layer_batches, learner_tokens
from mgrpo.plan.engine_memory import engine_memory, kv_bytes_per_token
from mgrpo.plan.gpus import GpuType
from mgrpo.plan.learner_memory import activation_bytes, layer_bytes_per_token, learner_memory
from mgrpo.plan.memory import GIB, MIB, MemoryUse
from mgrpo.plan.recipe import PlanRecipe, plan_recipe
from mgrpo.plan.shape import ModelShape, qwen25_shape, shape_of
from tests.layouts import ENGINES_PER_LAYER

TINY = ModelShape(
    source="tiny",
    num_parameters=1000,
    hidden=8,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=2,
    intermediate=16,
    vocabulary=10,
)


def recipe(*overrides: str) -> PlanRecipe:
    return plan_recipe(load_recipe("qwen2.5_math_7b", [*ENGINES_PER_LAYER, *overrides]))


def sizes(use: MemoryUse) -> dict[str, int]:
    return {item.name: item.num_bytes for item in use.items}


@pytest.mark.parametrize(
    ("name", "parameters"),
    [  # as the published weights have them
        ("0.5B", 494_032_768),
        ("1.5B", 1_543_714_304),
        ("3B", 3_085_938_688),
        ("7B", 7_615_616_512),
        ("14B", 14_770_033_664),
        ("32B", 32_763_876_352),
        ("72B", 72_706_203_648),
    ],
)
def test_parameters_follow_from_the_shape_exactly(name: str, parameters: int) -> None:
    assert qwen25_shape(name).num_parameters == parameters


def test_the_parameters_of_a_small_llama_by_hand() -> None:
    settings: dict[str, Any] = {
        "hidden_size": 8,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 16,
        "vocab_size": 10,
    }
    # two matrices 10 x 8; per layer q, o 8 x 8, k, v 8 x 4, three 8 x 16, two norms; last norm
    layer = 2 * 64 + 2 * 32 + 3 * 128 + 2 * 8
    assert shape_of(settings, "x", None).num_parameters == 2 * 80 + 2 * layer + 8
    assert shape_of(settings, "x", 123).num_parameters == 123  # counted in the weights


def test_experts_count_all_in_memory_and_those_visited_in_width() -> None:
    settings: dict[str, Any] = {
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 100,
        "moe_intermediate_size": 4,
        "num_experts": 3,
        "num_experts_per_tok": 2,
        "vocab_size": 10,
        "tie_word_embeddings": True,
    }
    shape = shape_of(settings, "x", None)
    assert shape.num_parameters == 80 + (4 * 64 + 3 * (3 * 4 * 8 + 8) + 16) + 8
    assert shape.intermediate == 8


@pytest.mark.parametrize(
    ("stage", "weights", "gradients", "optimizer"),
    [  # bytes for 1000 parameters on 4 ranks; stage 0 is stage 1 in bfloat16
        (0, 2000, 4000, 3000),
        (1, 2000, 4000, 3000),
        (2, 2000, 1000, 3000),
        (3, 500, 1000, 3000),
    ],
)
def test_zero_stages_share_out_what_they_say(stage, weights, gradients, optimizer) -> None:
    use = sizes(learner_memory(recipe(f"learner.zero_stage={stage}"), TINY))
    assert (use["weights"], use["gradients"], use["optimizer"]) == (weights, gradients, optimizer)


def test_float32_at_stage_0_keeps_no_master_copy() -> None:
    use = sizes(learner_memory(recipe("learner.zero_stage=0", "learner.dtype=float32"), TINY))
    assert (use["weights"], use["gradients"], use["optimizer"]) == (4000, 4000, 8000)


def test_the_reference_is_there_only_with_a_kl_term() -> None:
    assert sizes(learner_memory(recipe(), TINY))["reference"] == 500
    assert "reference" not in sizes(learner_memory(recipe("objective.kl.weight=0"), TINY))


def test_an_offloaded_optimizer_takes_its_gradients_along() -> None:
    offload = "learner.deepspeed={zero_optimization: {offload_optimizer: {device: cpu}}}"
    memory = learner_memory(recipe(offload), TINY)
    use = sizes(memory)
    assert "optimizer" not in use and "gradients" not in use and use["weights"] == 500
    on_host = {item.name: item.num_bytes for item in memory.on_host}
    assert (
        set(on_host) == {"optimizer", "gradients"}
        and on_host["optimizer"] == 3 * on_host["gradients"]
    )


def test_activations_of_one_layer_by_hand() -> None:
    # 16 x 8 + 2 (8 + 8) + 2 (8 + 4) + 2 x 8 + 8 x 16 bytes, in 16 bit
    assert layer_bytes_per_token(TINY, 2) == 128 + 32 + 24 + 16 + 128
    assert layer_bytes_per_token(TINY, 4) == 2 * 328


def test_checkpointing_keeps_the_inputs_and_one_layer_twice() -> None:
    base = ("learner.microbatch_tokens=16384",)
    whole = activation_bytes(recipe(*base, "learner.gradient_checkpointing=false").learner, TINY, 2)
    kept = activation_bytes(recipe(*base, "learner.gradient_checkpointing=true").learner, TINY, 2)
    assert whole == 16384 * 2 * 328
    assert kept == 16384 * (2 * 8 * 2 + 2 * 328)


def test_the_rest_of_an_update_by_hand() -> None:
    use = sizes(learner_memory(recipe("learner.logprob_chunk_tokens=100"), TINY))
    assert use["logits"] == 100 * 10 * 12
    assert use["output layer's gradient"] == 10 * 8 * 6
    assert use["gathered weights"] == 1000 * 2  # fewer than DeepSpeed's billion
    assert use["reduction buffer"] == 500_000_000 * 2
    assert use["transfer buffers"] == (2 * 256 + 256) * MIB


def test_keys_and_values_of_a_token_by_hand() -> None:
    seven = qwen25_shape("7B")
    assert seven.kv_bytes_per_token == 2 * 28 * 4 * 128 * 2 == 57_344
    assert kv_bytes_per_token(seven, 2) == 28_672
    assert kv_bytes_per_token(seven, 4) == kv_bytes_per_token(seven, 8) == 14_336  # one head each


def test_the_cache_is_what_vllms_share_leaves() -> None:
    gpu = GpuType("x", 10 * GIB)
    config = recipe(
        "engines.gpu_memory_utilization=0.5",
        "engines.max_num_seqs=4",
        "engines.extra_args={max_num_batched_tokens: 4096}",
    )
    engine = engine_memory(config, TINY, gpu)
    working = 4096 * (2 * 16 + 6 * 8) * 2 + 4 * 10 * 8
    cache = 5 * GIB - 2000 - working - GIB
    assert sizes(engine.use)["working memory"] == working
    assert sizes(engine.use)["KV cache"] == cache
    assert engine.cache_tokens == cache // (
        2 * 2 * 2 * 2 * 2
    )  # K and V, layers, heads, size, bytes
    assert engine.cache_sequences == engine.cache_tokens // 4096


def test_tensor_parallelism_shares_weights_and_cache() -> None:
    gpu = GpuType("x", 10 * GIB)
    one = engine_memory(recipe(), TINY, gpu)
    two = engine_memory(recipe("engines.tensor_parallel_size=2"), TINY, gpu)
    assert sizes(two.use)["weights"] == sizes(one.use)["weights"] // 2 == 1000


def test_a_step_in_numbers() -> None:
    solve, correct = layer_batches(recipe())
    assert (solve.num_prompts, solve.num_completions, solve.sequences_per_engine) == (32, 256, 128)
    assert (correct.num_prompts, correct.num_completions) == (256, 1024)
    assert correct.max_tokens == 1024 * 1400
    # 512 + 1400 and 512 + 128 + 1400 + 1400 tokens at most
    assert (solve.max_sequence_tokens, correct.max_sequence_tokens) == (1912, 3440)
    assert learner_tokens(recipe()) == 256 * 1912 + 1024 * 3440
    untrained = recipe("layers.solve.loss_weight=0")
    assert learner_tokens(untrained) == 1024 * 3440
