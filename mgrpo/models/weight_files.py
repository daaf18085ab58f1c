"""The weights of a model's folder, from the headers of its safetensors files.

Headers only: nothing is loaded, so a folder of any size is read in well under a second.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mgrpo.errors import ModelError

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
ADAPTER = "adapter_config.json"
LFS_MARK = b"version https://git-lfs"
MAX_HEADER_BYTES = 100_000_000  # the format's own bound
NAMED = 3  # how many of several names a message lists


@dataclass(frozen=True, slots=True)
class TensorHeader:
    """One tensor as a safetensors file declares it."""

    dtype: str  # "F32", "BF16", "F8_E4M3", ...
    shape: tuple[int, ...]
    file: str


def read_weights(folder: Path) -> dict[str, TensorHeader]:
    """Every tensor of the folder, by its name in the checkpoint.

    Raises:
        ModelError: there are no weights in this format, a file is missing or incomplete, or the
        index names tensors that its files lack.
    """
    refuse_adapter(folder)
    if (folder / SINGLE).is_file():
        return read_headers(folder / SINGLE)
    if not (folder / INDEX).is_file():
        raise ModelError(no_weights(folder))
    index = read_index(folder / INDEX)
    shards = sorted(set(index.values()))
    missing = [shard for shard in shards if not (folder / shard).is_file()]
    if missing:
        raise ModelError(
            f"{len(missing)} of the {len(shards)} files with weights that {folder / INDEX} names "
            f"are missing: {some(missing)}. Fetch or copy the model again."
        )
    tensors: dict[str, TensorHeader] = {}
    for shard in shards:
        tensors |= read_headers(folder / shard)
    lost = [name for name, shard in index.items() if name not in tensors]
    if lost:
        raise ModelError(
            f"{folder / INDEX} names {len(lost)} tensors that its files do not hold: {some(lost)} "
            f"should be in {index[lost[0]]}. The files are of different versions or incomplete: "
            "fetch or copy the model again."
        )
    return tensors


def count_parameters(tensors: Mapping[str, TensorHeader]) -> int:
    return sum(math.prod(tensor.shape) for tensor in tensors.values())


def refuse_adapter(folder: Path) -> None:
    """Refuse a folder with an adapter: transformers would load its base model in place of this
    folder's weights."""
    if (folder / ADAPTER).is_file():
        raise ModelError(
            f"{folder} holds an adapter ({ADAPTER}), and training needs all weights. Merge it into "
            "its base model first: AutoPeftModelForCausalLM.from_pretrained(...).merge_and_unload()"
            ".save_pretrained(...), with the tokenizer beside it."
        )


def no_weights(folder: Path) -> str:
    """The message for a folder without weights in the one format that is loaded."""
    files = [*folder.glob("*.safetensors"), *folder.glob("*.bin"), *folder.glob("*.gguf")]
    others = sorted(file.name for file in files)
    there = f", only {some(others)}" if others else ""
    return (
        f"{folder} has neither {SINGLE} nor {INDEX}{there}, and weights are loaded only from "
        "these. There is no .safetensors file to train from; convert the model: "
        "AutoModelForCausalLM.from_pretrained(...).save_pretrained(...)."
    )


def read_index(file: Path) -> dict[str, str]:
    """Tensor name to file name, as an index of shards has it."""
    try:
        index = json.loads(file.read_text(encoding="utf-8"))["weight_map"]
        if index and all(isinstance(shard, str) for shard in index.values()):
            return dict(index)
        reason = "its weight_map names no files"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}"
    raise ModelError(
        f"{file} is not an index of safetensors files: {reason}. Fetch the model again."
    )


def read_headers(file: Path) -> dict[str, TensorHeader]:
    """The tensors of one file, with verified lengths and offsets.

    Raises:
        ModelError: they do not, or the file cannot be read.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="np") as opened:
            slices = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118
            return {
                name: TensorHeader(part.get_dtype(), tuple(part.get_shape()), file.name)
                for name, part in slices.items()
            }
    except (SafetensorError, OSError) as error:
        raise ModelError(
            f"{file} is not a complete safetensors file: {why_broken(file) or error}. Fetch or "
            "copy "
            "it again."
        ) from error


def why_broken(file: Path) -> str:
    """The fault of an incomplete file, if its bytes show it."""
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            start = stream.read(len(LFS_MARK))
            if start == LFS_MARK:
                return "it is a pointer of Git LFS to the file (`git lfs pull` fetches it)"
            (length,) = struct.unpack("<Q", start[:8])
            stream.seek(8)
            header = json.loads(stream.read(min(length, MAX_HEADER_BYTES)))
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name[:2] != "__"]
        whole = 8 + length + max(ends, default=0)
    except (OSError, struct.error, ValueError, KeyError, TypeError, IndexError, AttributeError):
        return ""
    return f"its header describes {whole:,} bytes, and it has {size:,}" if whole != size else ""


def some(names: list[str]) -> str:
    """The first few of several names."""
    rest = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + rest
