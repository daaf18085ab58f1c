"""Writes a policy in Hugging Face form, whole or not at all."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mgrpo.errors import RunDirectoryError

COPIED_SUFFIXES = (".json", ".txt", ".model", ".jinja")
KEPT_FILE = "model-kept.safetensors"
"""Of the weights that the architecture itself declares to ignore."""
NOT_COPIED = (
    *("config.json", "model.safetensors.index.json", "pytorch_model.bin.index.json"),
    "origin.json",  # of the shipped policy: how its weights were made
)


def write_policy(
    directory: Path, model: Any, state: dict[str, Tensor], *, source_dir: Path, dtype_name: str
) -> None:
    """Save weights, configuration and tokenizer under `directory`, replacing what is there.

    Everything goes to a sibling folder first, which is then renamed: a reader never sees half
    a policy, and a crash leaves the old one.

    Args:
        model: the transformers model, for its configuration.
        state: name -> tensor, as saved (see `hub_weights`).
        source_dir: where the tokenizer's files are copied from, byte for byte.
        dtype_name: type of the weights in `state`, recorded in config.json.

    Raises:
        RunDirectoryError: the disk refused.
    """
    partial = directory.with_name(f".{directory.name}.partial")
    old = directory.with_name(f".{directory.name}.old")
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        for leftover in (partial, old):
            shutil.rmtree(leftover, ignore_errors=True)
        model.save_pretrained(partial, state_dict=state, save_original_format=False)
        record_dtype(partial / "config.json", dtype_name)
        keep_ignored_weights(model, source_dir, partial)
        copy_tokenizer(source_dir, partial)
        let_others_read(partial)
        if directory.exists():
            directory.rename(old)
        partial.rename(directory)
        shutil.rmtree(old, ignore_errors=True)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise RunDirectoryError(
            f"The policy could not be saved to {directory}: {error}. Free some space or choose "
            "another output.runs_dir."
        ) from error


def let_others_read(folder: Path) -> None:
    """Give weights the mode of new files: safetensors writes them for their owner alone."""
    mode = (folder / "config.json").stat().st_mode
    for file in folder.glob("*.safetensors"):
        file.chmod(mode)


def record_dtype(config_path: Path, dtype_name: str) -> None:
    """Say in config.json what the weights are, not what the learner computed in."""
    config = json.loads(config_path.read_text())
    config["dtype"] = dtype_name
    for section in config.values():  # of a model with towers
        if isinstance(section, dict) and "dtype" in section:
            section["dtype"] = dtype_name
    config_path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def keep_ignored_weights(model: object, source_dir: Path, target_dir: Path) -> None:
    """Copy what the checkpoint holds and transformers' model does not, as it is.

    Those are parts that only engines use, such as heads that guess several tokens ahead.
    """
    patterns = getattr(model, "_keys_to_ignore_on_load_unexpected", None) or ()
    saved = {name for file in weight_files(target_dir) for name in names_in(file)}
    kept: dict[str, Tensor] = {}
    for file in weight_files(source_dir):
        with safe_open(file, "pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 (not a dictionary)
                if name not in saved and any(re.search(one, name) for one in patterns):
                    kept[name] = tensors.get_tensor(name)
    if not kept:
        return
    save_file(kept, target_dir / KEPT_FILE, metadata={"format": "pt"})
    index = target_dir / "model.safetensors.index.json"
    if index.exists():
        content = json.loads(index.read_text())
        content["weight_map"] |= dict.fromkeys(kept, KEPT_FILE)
        index.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")


def weight_files(folder: Path) -> list[Path]:
    """The files that transformers reads of a checkpoint, and what `keep_ignored_weights` added.

    Repositories may hold the same weights once more in another layout.
    """
    names, index = {"model.safetensors"}, folder / "model.safetensors.index.json"
    if not (folder / "model.safetensors").exists() and index.exists():
        names = set(json.loads(index.read_text())["weight_map"].values())
    files = [folder / name for name in sorted(names | {KEPT_FILE})]
    return [file for file in files if file.exists()]


def names_in(file: Path) -> list[str]:
    with safe_open(file, "pt") as tensors:
        return list(tensors.keys())


def copy_tokenizer(source_dir: Path, target_dir: Path) -> None:
    """Copy the tokenizer, chat template and generation settings; weights are not copied."""
    for path in sorted(source_dir.iterdir()):
        is_wanted = path.suffix in COPIED_SUFFIXES and path.name not in NOT_COPIED
        if path.is_file() and is_wanted:
            shutil.copy2(path, target_dir / path.name)
