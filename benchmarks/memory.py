"""Memory of this process, as Linux counts it."""

from __future__ import annotations

from pathlib import Path


def resident_bytes() -> int:
    return status_kib("VmRSS") * 1024


def peak_resident_bytes() -> int:
    return status_kib("VmHWM") * 1024


def restart_peak() -> None:
    """Let the kernel count the highest resident set from here."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def status_kib(name: str) -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    raise OSError(f"/proc/self/status has no {name}; this benchmark needs Linux.")
