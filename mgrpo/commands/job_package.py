"""The package of a submitted run: this program, its recipe, and the files that it names.

Packed into a folder of its own instead of sending the current one, so that a clone with its
environments and runs, an installed package and a folder of one's own all give the same job: a
package of a few megabytes. Inside it the job finds the files under the same relative paths.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cluster.jobs.left_behind import copy_folder, may_hold_secret
from mgrpo.config import DataConfig, MethodView, RewardsConfig, RunConfig
from mgrpo.config.data import RowsSource, sources_in
from mgrpo.config.load import save_recipe
from mgrpo.config.services import ModelTerm
from mgrpo.data.formats.places import local_paths
from mgrpo.errors import ConfigError, ConfigFault, JobError
from mgrpo.plugin import names_in
from mgrpo.rooms import ROOMS, ROOT

RECIPE_FILE = "recipe.yaml"
MAX_PACKAGE_BYTES = 100 * 2**20  # Ray keeps packages in the memory of the head node


@dataclass(frozen=True)
class Package:
    """What a package holds, and what it does not."""

    size_bytes: int  # before compression
    left_out: dict[Path, str]  # of the folders that were packed, and why


def pack(config: RunConfig, folder: Path, *, include: Sequence[str] = ()) -> Package:
    """Fill `folder` with all files of a job of this recipe.

    Args:
        config: the recipe as it was checked. It is packed as it is, overrides included.
        folder: an empty folder.
        include: more files and folders, below the current one.

    Raises:
        ConfigError: the recipe names files that only this machine has.
        JobError: a file lies outside of the current folder or may hold a secret, or the whole is
            too large.
    """
    refuse_local_model("model.path", config.model.path)
    for number, term in enumerate(config.rewards.terms):
        if isinstance(term, ModelTerm):
            refuse_local_model(f"rewards.terms.{number}.model", term.model)
    left_out: dict[Path, str] = {}
    for room in ROOMS:
        left_out |= copy_folder(ROOT / room, folder / room, ROOT)
    save_recipe(config, folder / RECIPE_FILE)
    here = Path.cwd().resolve()
    own = own_code(config.rewards, config.method_view, here)
    for path in [*(Path(one) for one in include), *data_files(config.data), *own]:
        left_out |= copy_below(path, here, folder)
    sizes = {file: file.stat().st_size for file in folder.rglob("*") if file.is_file()}
    if sum(sizes.values()) > MAX_PACKAGE_BYTES:
        raise JobError(too_large(sizes, folder))
    return Package(sum(sizes.values()), left_out)


def refuse_local_model(key: str, model_path: str) -> None:
    path = Path(model_path)
    if not path.is_absolute() and path.is_dir():
        reason = "a folder of this machine, which the job cannot access."
        hint = "Copy it to storage of all nodes of the cluster, and give its absolute path there."
        raise ConfigError([ConfigFault(key, model_path, reason, hint)])


def data_files(data: DataConfig) -> Iterator[Path]:
    """Data that lies here under a relative path."""
    for source in (data.train, data.heldout):
        for one in sources_in(source) if source is not None else ():
            if isinstance(one, RowsSource) and not Path(one.path).is_absolute():
                yield from local_paths(one.path)


def own_code(rewards: RewardsConfig, method: MethodView, here: Path) -> Iterator[Path]:
    """The user's modules with checks and plug-ins below `here`."""
    names = [term.function for term in rewards.terms if ":" in term.function]
    names += [part for part in names_in(method) if ":" in part]
    modules = {name.partition(":")[0] for name in names}
    files = {module for module in modules if module.endswith(".py")}
    yield from map(Path, sorted(files))
    for top in sorted({module.partition(".")[0] for module in modules - files}):
        if (here / f"{top}.py").is_file():
            yield here / f"{top}.py"
        elif top in ROOMS:
            continue  # packed already
        elif (here / top).exists():
            yield here / top
        else:
            refuse_unpacked(top, here)


def refuse_unpacked(module: str, here: Path) -> None:
    """Refuse a module outside of the current folder and installed packages: the job would lack
    it."""
    spec = importlib.util.find_spec(module)
    origin = spec.origin if spec is not None else None
    if origin is not None and "site-packages" not in Path(origin).parts:
        raise JobError(
            f"The module {module!r} that the recipe names lies at {origin}, outside of the current "
            f"folder {here}. Submit from the folder that holds it, or install it on the cluster."
        )


def copy_below(path: Path, here: Path, folder: Path) -> dict[Path, str]:
    """Copy a file or folder to the place in the package that it has below `here`.

    Returns:
        What was left out of a folder, and why.
    """
    found = Path(os.path.realpath(here / path.expanduser()))
    if not found.exists():
        raise JobError(f"There is no {path} to include.")
    if not found.is_relative_to(here) or found == here:
        raise JobError(
            f"{path} does not lie below the current folder {here}: the job could not find it under "
            "the same path. Submit from a folder that holds it."
        )
    if may_hold_secret(Path(path.name)) or may_hold_secret(found.relative_to(here)):
        raise JobError(
            f"{path} is not sent: by its name it may hold a secret, and whoever may use the "
            "cluster can read a job's package. Put a secret on the cluster's nodes instead "
            '(docs/guides/jobs.md, "Variables and secrets"); rename a file that holds none.'
        )
    target = folder / found.relative_to(here)
    target.parent.mkdir(parents=True, exist_ok=True)
    if found.is_dir():
        return copy_folder(found, target, here)
    shutil.copy2(found, target)
    return {}


def too_large(sizes: dict[Path, int], folder: Path) -> str:
    largest = sorted(sizes, key=lambda file: -sizes[file])[:5]
    lines = [f"  {sizes[file] / 2**20:8.1f} MiB  {file.relative_to(folder)}" for file in largest]
    return (
        f"The job's package has {sum(sizes.values()) / 2**20:.0f} MiB, more than the "
        f"{MAX_PACKAGE_BYTES / 2**20:.0f} MiB that a cluster is sent. The largest files:\n"
        + "\n".join(lines)
        + "\nPut large data on storage that the cluster sees and give its absolute path."
    )
