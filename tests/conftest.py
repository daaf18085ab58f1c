"""What every test runs under: no network, no telemetry, few threads, property tests that hold."""

from __future__ import annotations

import gc
import os

# Before anything imports the libraries that read these.
TEST_ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_AUTH_MODE": "disabled",  # a token in the home folder is for people's clusters
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_DO_NOT_TRACK": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "OMP_NUM_THREADS": "1",
    "PYDANTIC_DISABLE_PLUGINS": "1",  # every process would look through all installed packages
}
for name, value in TEST_ENVIRONMENT.items():
    os.environ.setdefault(name, value)

import pytest  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402

from tests.s3_server import s3_server  # noqa: E402

__all__ = ["s3_server"]  # a fixture, for every folder

# Shared machines pause for seconds, which says nothing about the code: no deadline per example.
settings.register_profile(
    "mgrpo", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
settings.load_profile("mgrpo")


LONG = (
    "tests/end_to_end/",
    "tests/learner/test_deepspeed_learner.py",
    "tests/actors/test_real_engines.py",
    "tests/same_numbers/",
    "tests/cluster/fleet/",
    "tests/rewards/test_",
    "tests/benchmarks/test_gpu_benchmark.py",
)
"""Where tests start Ray, engines, learner ranks or many reward processes, the longest first."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The long files first, so that no worker is left alone with one at the end.

    Tests marked `gpu` skip, with the reason, where torch sees no CUDA device.
    """
    items.sort(key=lambda item: place_of(item.nodeid))
    gpu_items = [item for item in items if item.get_closest_marker("gpu")]
    if not gpu_items or has_cuda():
        return
    for item in gpu_items:
        item.add_marker(pytest.mark.skip(reason="needs a CUDA device; torch sees none here"))


def place_of(nodeid: str) -> int:
    """Where a test's file is in `LONG`; behind all of them, if it is not."""
    places = (place for place, start in enumerate(LONG) if nodeid.startswith(start))
    return next(places, len(LONG))


def pytest_collection_finish() -> None:
    """Leave what the libraries have made out of garbage collection.

    Each whole collection goes over a million objects of theirs, and DeepSpeed asks for several
    with every learner.
    """
    gc.freeze()


def has_cuda() -> bool:
    import torch  # only where a test asks for a GPU: it takes two seconds

    return bool(torch.cuda.is_available())
