"""The machine and the versions that a benchmark's numbers belong to."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mgrpo.storage.provenance import provenance

REPOSITORY = Path(__file__).resolve().parent.parent
Result = dict[str, Any]
"""What a benchmark writes as JSON, or a part of it."""


def machine() -> Result:
    """CPU, cores, memory, versions and the source's commit."""
    found = provenance()
    packages: Any = found["packages"]
    return {
        "commit": commit(found["git_revision"]),
        "cpu": cpu_model(),
        "cores": found["cpu_cores"],
        "memory_gib": found["memory_gib"],
        "python": found["python"],
        "mgrpo": found["mgrpo"],
        "packages": {name: version for name, version in packages.items() if version},
    }


def origin_lines(result: Result) -> Iterator[str]:
    """The closing lines of a page: command, date, machine and versions of `result`."""
    packages = ", ".join(f"{name} {version}" for name, version in result["packages"].items())
    yield f"`{result['command']}`, {result['date']}, commit {result['commit']}, {result['cpu']},"
    yield f"{result['cores']} cores, Python {result['python']}, {packages}."


def cpu_model() -> str:
    """The processor's name as Linux gives it."""
    return cpu_fact("model name") or "unknown"


def processor() -> str:
    """The processor's name, family and model: a virtual machine's name may be that of a brand."""
    family, model = cpu_fact("cpu family"), cpu_fact("model\t")
    return f"{cpu_model()}, family {family}, model {model}" if family else cpu_model()


def cpu_fact(name: str) -> str:
    """One line of the first processor in /proc/cpuinfo; "" if there is none."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    found = [line.partition(":")[2].strip() for line in lines if line.startswith(name)]
    return found[0] if found else ""


def commit(revision: object) -> str:
    """The commit's short name, and whether the sources differ from it."""
    if revision is None:
        return "unknown"
    sources = ["mgrpo", "actors", "learner", "rewards", "cluster", "benchmarks"]
    changed = subprocess.run(
        ["git", "-C", str(REPOSITORY), "status", "--porcelain", "--", *sources],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    ).stdout.strip()
    return str(revision)[:12] + (" with uncommitted changes" if changed else "")
