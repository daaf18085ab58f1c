"""Arguments of vLLM that a recipe may not set because mgrpo has keys for them.

`engines.extra_args` is for settings without a key in mgrpo. Arguments with a key would silently
differ from the value that the learner, the weight group or the plan use.
"""

from __future__ import annotations

from collections.abc import Mapping

from mgrpo.errors import ConfigFault, Faults

OWN_KEYS = {
    "model": "model.path",
    "tokenizer": "model.path",
    "revision": "model.revision",
    "tokenizer_revision": "model.revision",
    "dtype": "engines.dtype",
    "max_model_len": "engines.max_model_len",
    "max_num_seqs": "engines.max_num_seqs",
    "tensor_parallel_size": "engines.tensor_parallel_size",
    "gpu_memory_utilization": "engines.gpu_memory_utilization",
    "enforce_eager": "engines.enforce_eager",
    "seed": "seed",
    "speculative_config": "layers.*.speculation",
    "per_request_spec_decode_metrics": "layers.*.speculation",
    "enable_sleep_mode": "cluster.colocate",
    "weight_transfer_config": "weights.backend",
}
"""By argument of vLLM: the key of a recipe that sets it."""

MORE_PROCESSES = (
    "the weight group has one rank for each of an engine's GPUs, which are as many as "
    "engines.tensor_parallel_size; further processes would receive no weights."
)
OTHER_MODEL = "engines would sample from another model than the one that the learner trains."
OTHER_CHANCES = (
    "the learner trains the log-probabilities that are recorded, at sampling.temperature."
)
NO_END = "without the tokenizer vLLM does not know the end-of-turn token."
OWN_REASONS = {
    "pipeline_parallel_size": MORE_PROCESSES,
    "prefill_context_parallel_size": MORE_PROCESSES,
    "nnodes": MORE_PROCESSES,
    "node_rank": MORE_PROCESSES,
    "enable_elastic_ep": MORE_PROCESSES,
    "distributed_executor_backend": "an engine keeps its processes inside its actor.",
    "device_ids": "Ray chooses an engine's GPUs.",
    "code_revision": OTHER_MODEL,
    "hf_config_path": OTHER_MODEL,
    "hf_overrides": OTHER_MODEL,
    "model_weights": OTHER_MODEL,
    "model_class_overrides": OTHER_MODEL,
    "disable_sliding_window": OTHER_MODEL,
    "skip_tokenizer_init": NO_END,
    "tokens_only": NO_END,
    "logprobs_mode": OTHER_CHANCES,
    "logits_processors": OTHER_CHANCES,
    "watermark_config": OTHER_CHANCES,
    "scheduling_policy": "engines begin what was drawn first, by the priority of each request.",
}
"""By argument of vLLM: why no key sets it otherwise."""
DATA_PARALLEL = "data_parallel_"
MORE_ENGINES = "Use layers.*.num_engines or engines.num_shared_engines for more engines."


def extra_args_faults(extra_args: Mapping[str, object]) -> Faults:
    """Every argument that a recipe may not set, with a path inside `engines`."""
    for name, value in extra_args.items():
        path, shown = f"extra_args.{name}", repr(value)
        if name in OWN_KEYS:
            why = "mgrpo sets this argument of vLLM from its own key."
            yield ConfigFault(path, shown, why, f"Use {OWN_KEYS[name]}.")
        elif name.startswith(DATA_PARALLEL):
            yield ConfigFault(path, shown, MORE_PROCESSES, MORE_ENGINES)
        elif name in OWN_REASONS:
            yield ConfigFault(path, shown, OWN_REASONS[name], "Remove the key.")
        elif name == "load_format" and value == "dummy":
            yield ConfigFault(path, shown, OTHER_MODEL, "Remove the key.")
