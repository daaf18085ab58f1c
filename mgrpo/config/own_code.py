"""Loads a user's code named in a recipe: `module:name`, or `folder/file.py:name`.

A module's file in the current folder takes precedence over an installed package of that name. If
the name is in use (our packages are called rewards, learner and so on), the file is loaded under
another module name.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import zlib
from pathlib import Path
from types import ModuleType


def import_own(module: str) -> ModuleType:
    """The module named before the colon.

    Raises:
        Exception: any error of its code; ModuleNotFoundError if there is none.
    """
    if module.endswith(".py"):
        return load_file(Path(module).expanduser())
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)  # last: imports of the user's modules prefer installed packages
    for file in files_of(module, Path.cwd()):
        if file.is_file() and is_hidden(module, file):
            return load_file(file)
    return importlib.import_module(module)


def files_of(module: str, folder: Path) -> list[Path]:
    """The file of a module or package below a folder."""
    path = folder.joinpath(*module.split("."))
    return [path.with_name(f"{path.name}.py"), path / "__init__.py"]


def is_hidden(module: str, file: Path) -> bool:
    """Whether an import by name finds another module than this file."""
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, AttributeError, ValueError):
        return True
    return spec is None or spec.origin is None or Path(spec.origin).resolve() != file.resolve()


def load_file(file: Path) -> ModuleType:
    """The module of a file, under a unique name. It can import modules beside it."""
    file = file.resolve()
    if not file.is_file():
        raise ModuleNotFoundError(f"there is no file {file}", name=str(file))
    name = f"own_{file.parent.name if file.stem == '__init__' else file.stem}"
    name = f"{name}_{zlib.crc32(str(file).encode()):08x}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None and spec.loader is not None, file
    module = importlib.util.module_from_spec(spec)
    if str(file.parent) not in sys.path:
        sys.path.append(str(file.parent))
    sys.modules[name] = module  # before it runs: dataclasses look up their module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def found_beside(target: str, folder: Path) -> str:
    """A recipe's `module:name` or `file.py:name` as a path, if its file is not in the current
    folder but in the recipe's `folder`."""
    module, colon, name = target.partition(":")
    if not module or not (colon or module.endswith(".py")):
        return target
    here = Path.cwd().resolve()
    paths = [Path(module)] if module.endswith(".py") else files_of(module, Path())
    if any((here / path.expanduser()).is_file() for path in paths):
        return target
    beside = next((folder / path for path in paths if (folder / path).is_file()), None)
    if beside is None:
        return target
    file = beside.resolve()
    return f"{file.relative_to(here) if file.is_relative_to(here) else file}{colon}{name}"
