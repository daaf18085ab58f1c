"""Import everything heavy once, and print the versions: run by the new .venv's Python.

A package that does not import is found now and not twenty minutes into a run. The first import
also writes the compiled bytecode, so that the first run starts faster.
"""

from __future__ import annotations

import importlib
import os
import sys
import time
from importlib.metadata import PackageNotFoundError, version

MODULES = (
    ("torch", "torch"),
    ("transformers", "transformers"),
    ("vllm.v1.engine.async_llm", "vllm"),
    ("deepspeed", "deepspeed"),
    ("ray.job_submission", "ray"),
    ("datasets", "datasets"),
    ("math_verify", "math-verify"),
    ("reasoning_gym", "reasoning-gym"),
    ("torch.utils.tensorboard", "tensorboard"),
    ("mgrpo", "mgrpo"),
    ("actors", "mgrpo"),
    ("learner", "mgrpo"),
    ("rewards", "mgrpo"),
    ("cluster", "mgrpo"),
)
HINTS = {
    "torchvision::nms": "a torchvision that does not fit this torch is installed: "
    ".venv/bin/pip uninstall torchvision torchaudio torchcodec",
    "libcuda": "this is the CUDA build; on a machine without a GPU: make setup EXTRA=cpu",
}


def installed_version(distribution: str) -> str:
    """vLLM's CPU build is a distribution of another name."""
    for name in (distribution, f"{distribution}-cpu"):
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return "?"


def failure(module: str) -> str:
    """Import `module`; an empty string, or why it cannot be."""
    try:
        importlib.import_module(module)
    except Exception as error:  # an import runs any code, and raises anything
        text = f"{type(error).__name__}: {error}"
        hints = [hint for part, hint in HINTS.items() if part in text]
        return "; ".join([text, *hints])
    return ""


def main() -> int:
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    failed = False
    for module, distribution in MODULES:
        start = time.monotonic()
        reason = failure(module)
        failed = failed or bool(reason)
        verdict = reason or f"{installed_version(distribution)} ({time.monotonic() - start:.1f} s)"
        print(f"{module}: {verdict}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
