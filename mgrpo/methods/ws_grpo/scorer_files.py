"""A saved prefix scorer's folder: what is in it, and written whole or not at all. No torch.

config.json           kind, base model, sizes, and the value of a probe
scorer.safetensors    the head
backbone/             for kind reward_head: the trained backbone in Hugging Face form
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Literal, get_args

from mgrpo.errors import ModelError, RunDirectoryError

ScorerKind = Literal["mlp_on_embeddings", "reward_head"]

FORMAT = "mgrpo prefix scorer 1"
CONFIG_FILE, HEAD_FILE, BACKBONE_DIR = "config.json", "scorer.safetensors", "backbone"


@dataclass(frozen=True, slots=True, kw_only=True)
class ScorerConfig:
    """What config.json says of a scorer."""

    kind: ScorerKind
    base_model: str  # as people name it: "default", a folder, ...
    base_dir: str  # the folder it was loaded from
    hidden_size: int  # of the base model
    hidden_units: int  # of the MLP
    probe_value: float  # what the scorer says of a fixed text: tells base models apart


def read_scorer_config(folder: Path) -> ScorerConfig:
    """Read config.json.

    Raises:
        ModelError: the folder holds no scorer.
    """
    path = folder / CONFIG_FILE
    hint = "Name a folder that `mgrpo scorer train` has written."
    try:
        values: object = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"There is no prefix scorer in {folder}: {error}. {hint}") from error
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise ModelError(f"{path} does not describe a prefix scorer ({FORMAT!r}). {hint}")
    names = [field.name for field in fields(ScorerConfig)]
    missing = [name for name in names if name not in values]
    if missing or values["kind"] not in get_args(ScorerKind):
        found = f"lacks {', '.join(missing)}" if missing else f"has the kind {values['kind']!r}"
        raise ModelError(f"{path} {found}, so the scorer cannot be built. {hint}")
    return ScorerConfig(**{name: values[name] for name in names})


def write_scorer_config(folder: Path, config: ScorerConfig) -> None:
    text = json.dumps({"format": FORMAT, **asdict(config)}, indent=2)
    (folder / CONFIG_FILE).write_text(text + "\n", encoding="utf-8")


def refuse_existing(folder: Path) -> None:
    """Raise RunDirectoryError where anything but an empty folder is in the way."""
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise RunDirectoryError(
            f"{folder} exists and would have to be replaced. Choose another folder for the prefix "
            "scorer, or move that one away."
        )


def write_whole(folder: Path, write: Callable[[Path], None]) -> None:
    """Have `write` fill a sibling folder, then rename it: no incomplete scorer is ever
    visible.

    Raises:
        RunDirectoryError: something is in the way, or the disk refused.
    """
    refuse_existing(folder)
    partial = folder.with_name(f".{folder.name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        write(partial)
        partial.replace(folder)  # also over an empty folder
    except OSError as error:
        raise RunDirectoryError(
            f"The prefix scorer could not be saved to {folder}: {error}. Free some space or choose "
            "another folder."
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
