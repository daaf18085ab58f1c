"""The model's folder on each node: fetched once per node, shared by its processes.

The driver names the model; engines and learner ranks, wherever they run, call `NodeModel` in
their own process and get a local folder. The first process of a node fetches missing files, the
others wait for a file lock.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from cluster.progress_board import LOOK_S, PROGRESS_BYTES, Patience, num_io_bytes
from mgrpo.config import StorageConfig
from mgrpo.errors import HubUnreachable, ModelError, StorageError
from mgrpo.models.catalog import (
    DESCRIPTIONS,
    cache_dir,
    is_hub_name,
    looks_local,
    prepare,
    resolve_model,
)
from mgrpo.models.hub import is_hub_reachable
from mgrpo.storage.files import Storage, is_url, local_folder_of

WEIGHTS = ".safetensors"
SMALL_SUFFIXES = (".json", ".txt", ".model", ".jinja")
"""Configuration and tokenizer: all that the driver needs, which may have little disk space."""


@dataclass(frozen=True)
class NodeModel:
    """The recipe's model; calling it gives the folder of the node that it is called on."""

    path: str  # model.path
    driver_dir: str  # the driver's folder: the same on nodes that share it
    storage: StorageConfig

    @property
    def is_here(self) -> bool:
        """Whether the driver also has the weights."""
        return is_local(self.path) or self.path in DESCRIPTIONS

    def __call__(self) -> str:
        """The folder with configuration, tokenizer and weights.

        Raises:
            ModelError: the model is not here and cannot be fetched.
            StorageError: its URL cannot be read.
            HubUnreachable: the hub does not answer, and the model is not in this node's cache.
        """
        if is_url(self.path):
            return stored_model(self.path, self.storage, with_weights=True)
        if self.path in DESCRIPTIONS:
            return prepared_model(self.path, self.storage.upload_s)
        if Path(self.driver_dir).is_dir() and is_local(self.path):
            return self.driver_dir
        if is_local(self.path):
            raise ModelError(
                f"The model's folder {self.path} is on the driver's machine and not on node "
                f"{os.uname().nodename}. Move it to a folder that all nodes share, or set "
                "model.path to a URL of shared storage or to a hub name: each node then fetches "
                "its own copy."
            )
        return hub_model(
            self.path,
            revision=Path(self.driver_dir).name,
            with_weights=True,
            deadline_s=self.storage.upload_s,
        )


def driver_model(path: str, storage: StorageConfig, revision: str | None = None) -> NodeModel:
    """Find the recipe's model from the driver, with the small files that the driver needs.

    Args:
        revision: model.revision.

    Raises:
        As NodeModel, and ModelError at once if nothing could be loaded from `path`, or if it has no
        revisions and one is given.
    """
    if revision is not None and not is_hub_name(path):
        raise ModelError(
            f"model.revision is {revision}, and {path} (model.path) is not a hub name: it has no "
            "revisions. Remove model.revision."
        )
    if is_url(path):
        return NodeModel(path, stored_model(path, storage, with_weights=False), storage)
    source = resolve_model(path)
    if is_local(path) or path in DESCRIPTIONS:
        return NodeModel(path, source, storage)
    # The folder is named after the commit: all nodes fetch that one, also after later pushes.
    folder = hub_model(path, revision=revision, with_weights=False, deadline_s=storage.upload_s)
    return NodeModel(path, folder, storage)


def is_local(path: str) -> bool:
    """Whether it is a folder's path, and not a prepared model or hub name."""
    return path not in DESCRIPTIONS and (looks_local(path) or Path(path).expanduser().is_dir())


def stored_model(url: str, config: StorageConfig, *, with_weights: bool) -> str:
    """A local folder with the model from shared storage."""
    storage = Storage(url, config)
    names = storage.find()
    if "config.json" not in names:
        raise ModelError(
            f"{url} holds no config.json, so it is not a model in Hugging Face format. Name a "
            "folder written by `save_pretrained`, or a run's policy/ folder."
        )
    # Names and sizes are part of the folder's name, so that a replaced model is fetched again.
    content = json.dumps([storage.url, names]).encode()
    name = f"{local_folder_of(url)[-60:]}-{hashlib.sha256(content).hexdigest()[:12]}"
    folder = cache_dir() / "storage" / name
    suffixes = (*SMALL_SUFFIXES, WEIGHTS) if with_weights else SMALL_SUFFIXES
    with node_lock(folder, config.upload_s):
        for file in names:
            is_wanted = "/" not in file and file.endswith(suffixes)
            if is_wanted and not (folder / file).is_file():
                storage.get(file, folder / file)
    return str(folder)


def hub_model(
    name: str,
    *,
    revision: str | None,
    with_weights: bool,
    deadline_s: float,
    setting: str = "model.path",
) -> str:
    """A local folder with the model from the Hugging Face hub, in the hub's own cache.

    Args:
        revision: a commit, tag or branch; None takes the newest, or without a network the cached
            one.
        setting: the key that names the model.

    Returns:
        The folder, whose name is the commit.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    suffixes = (*SMALL_SUFFIXES, WEIGHTS) if with_weights else SMALL_SUFFIXES
    try:
        with node_lock(cache_dir() / "hub" / name.replace("/", "--"), deadline_s):
            return str(
                snapshot_download(
                    name,
                    revision=revision,
                    allow_patterns=[f"*{suffix}" for suffix in suffixes],
                    local_files_only=not is_hub_reachable(),
                )
            )
    except LocalEntryNotFoundError as error:
        at = "" if revision is None else f" at {revision}"
        raise HubUnreachable(f"The model {name}{at}", setting) from error
    except (HfHubHTTPError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ModelError(
            f"The model {name} ({setting}) cannot be fetched from the hub: {reason}. Check the "
            "name, its revision, and HF_TOKEN for a gated model."
        ) from error


def prepared_model(name: str, deadline_s: float) -> str:
    """A prepared model's folder; prepared on this node if it is missing."""
    with node_lock(cache_dir() / name, deadline_s):
        try:
            return resolve_model(name)
        except ModelError:
            return str(prepare(name, report=lambda line: None))


@contextlib.contextmanager
def node_lock(folder: Path, deadline_s: float) -> Iterator[None]:
    """One process of this node at a time; the lock of a dead process is released.

    Args:
        deadline_s: longest time in which the one that has it moves nothing.

    Raises:
        StorageError: it hangs.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.with_name(f"{folder.name}.lock"))
    owner = Owner(folder.with_name(f"{folder.name}.owner"))
    patience = Patience(deadline_s, owner)
    while not lock.is_locked:
        try:
            lock.acquire(timeout=max(0.0, min(patience.left_s(), LOOK_S)))
        except Timeout as error:
            if patience.left_s() > 0:
                continue
            raise StorageError(
                f"Another process of this node is fetching the model into {folder}, and has moved "
                f"nothing for {deadline_s:g} s (output.storage.upload_s)."
            ) from error
    try:
        owner.file.write_text(str(os.getpid()), encoding="ascii")
        yield
    finally:
        lock.release()


class Owner:
    """The progress of the process that has a lock; see `cluster.progress_board.Counter`.

    Args:
        file: has its number.
    """

    def __init__(self, file: Path) -> None:
        self.file = file

    def count(self) -> int:
        """Every MiB that it has read or written."""
        try:
            process = int(self.file.read_text(encoding="ascii"))
        except (OSError, ValueError):  # it has just begun
            return 0
        return num_io_bytes(process) // PROGRESS_BYTES

    def said(self) -> str:
        return "It has read and written nothing in that time."
