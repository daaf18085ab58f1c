"""What .venv was made from, kept in a file inside it: done, half done, or somebody else's."""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

STATE_FILE = "mgrpo-setup.json"
INPUTS = ("requirements/*.txt", "pyproject.toml", "scripts/install.py")


@dataclass(frozen=True)
class VenvState:
    """The content of the state file."""

    status: str  # "installing" from the first step on, "done" after the last
    extra: str  # "cpu" or "gpu"
    python: str  # "3.11"
    inputs: str  # fingerprint of the files that say what is installed


def fingerprint(root: Path) -> str:
    """Changes when anything that decides what is installed changes."""
    digest = hashlib.sha256()
    for path in sorted(path for pattern in INPUTS for path in root.glob(pattern)):
        digest.update(f"{path.relative_to(root)}\0".encode())
        digest.update(path.read_bytes() + b"\0")
    return digest.hexdigest()


def wanted_state(root: Path, *, extra: str) -> VenvState:
    """What the state file says after a complete installation with this Python."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    return VenvState(status="done", extra=extra, python=version, inputs=fingerprint(root))


def read_state(venv: Path) -> VenvState | None:
    """None where there is no state file, or none that can be read."""
    try:
        return VenvState(**json.loads((venv / STATE_FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def write_state(venv: Path, state: VenvState) -> None:
    (venv / STATE_FILE).write_text(json.dumps(asdict(state), indent=2) + "\n", encoding="utf-8")


def must_start_afresh(found: VenvState | None, wanted: VenvState) -> bool:
    """True where installing on top could leave a mixture.

    That is after an interrupted installation, and when Python or the kind of machine changes. A
    complete one of the same kind is brought up to date in place; so is one without a state file,
    which somebody made by hand.
    """
    if found is None:
        return False
    return found.status != "done" or found.extra != wanted.extra or found.python != wanted.python
