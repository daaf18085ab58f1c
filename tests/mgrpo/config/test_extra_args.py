"""What `engines.extra_args` may not set, and what it is told to use instead."""

from __future__ import annotations

import json
from typing import Any

import pytest

from actors.engine import engine_arguments
from mgrpo.config.extra_args import OWN_KEYS, OWN_REASONS
from mgrpo.config.load import load_recipe
from mgrpo.errors import ConfigError
from tests.actors.test_engine_arguments import settings


def load_with(arguments: dict[str, Any]) -> dict[str, Any]:
    config = load_recipe("quickstart", [f"engines.extra_args={json.dumps(arguments)}"])
    return config.engines.extra_args


@pytest.mark.parametrize(
    ("arguments", "instead"),
    [
        ({"max_num_seqs": 4}, "Use engines.max_num_seqs."),
        ({"seed": 3}, "Use seed."),
        ({"dtype": "float16"}, "Use engines.dtype."),
        ({"speculative_config": {"method": "ngram"}}, "Use layers.*.speculation."),
        ({"data_parallel_size": 2}, "layers.*.num_engines"),
        ({"data_parallel_backend": "ray"}, "layers.*.num_engines"),
        ({"pipeline_parallel_size": 2}, "as many as engines.tensor_parallel_size"),
        ({"logprobs_mode": "raw_logprobs"}, "sampling.temperature"),
        ({"hf_overrides": {"rope_scaling": {}}}, "another model"),
        ({"load_format": "dummy"}, "another model"),
    ],
)
def test_what_mgrpo_sets_itself_is_refused_with_the_key_to_use(
    arguments: dict[str, Any], instead: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load_with(arguments)
    (name,) = arguments
    assert f"engines.extra_args.{name} = " in str(caught.value)
    assert instead in str(caught.value)


def test_all_that_is_wrong_is_listed_at_once() -> None:
    with pytest.raises(ConfigError, match="2 faults"):
        load_with({"seed": 3, "data_parallel_size": 2, "block_size": 16})


def test_every_argument_that_an_engine_is_given_is_refused_or_meant_to_be_tuned() -> None:
    """A new argument of ours must be in one of the lists."""
    tunable = {
        "max_num_batched_tokens",
        "enable_chunked_prefill",
        "disable_log_stats",
        "enable_log_requests",
        "worker_extension_cls",  # looked at when the engine starts
    }
    given = {
        *engine_arguments(settings(shares_gpu=True, tensor_parallel_size=2)),
        *engine_arguments(settings(device="cpu", weight_backend="gloo", max_draft_tokens=4)),
    }
    assert given - set(OWN_KEYS) - set(OWN_REASONS) == tunable


def test_every_argument_that_is_refused_is_one_of_vllm_s() -> None:
    from vllm.engine.arg_utils import AsyncEngineArgs

    assert not {*OWN_KEYS, *OWN_REASONS} - set(AsyncEngineArgs.__dataclass_fields__)


def test_what_has_no_key_passes() -> None:
    arguments = {"max_num_batched_tokens": 512, "kv_cache_dtype": "fp8", "block_size": 16}
    assert load_with(arguments) == arguments
