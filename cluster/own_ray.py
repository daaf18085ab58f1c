"""The processes of the local Ray that this one has started: do they live?

Ray says so late. Its GCS compares dates to decide whether a node needs a look, so after a clock was
set back by an hour it notices a lost node an hour late. And a process whose GCS is gone tries for a
minute to reach it, and is then ended by Ray without notice.
"""

from __future__ import annotations

from contextlib import suppress

import psutil
import ray

PARTS = {"raylet": "raylet", "gcs_server": "GCS"}
"""By the names of their processes."""
GONE = (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
LEAVE_S = 1.0
"""For the raylet's children to end by themselves."""


def what_is_lost() -> str:
    """ "Ray's GCS has ended, and a local Ray gets no other"; "" while all is there."""
    alive = {living(child) for child in psutil.Process().children()}
    lost = [word for name, word in PARTS.items() if name not in alive]
    if not lost:
        return ""
    verb = "has" if len(lost) == 1 else "have"
    return f"Ray's {' and '.join(lost)} {verb} ended, and a local Ray gets no other"


def shut_down() -> None:
    """End the local Ray, with the raylet's agents: without a GCS they outlive it by a minute."""
    raylets = [child for child in psutil.Process().children() if living(child) == "raylet"]
    started = [child for raylet in raylets for child in raylet.children(recursive=True)]
    ray.shutdown()
    _, left = psutil.wait_procs(started, timeout=LEAVE_S)
    for process in left:
        with suppress(psutil.NoSuchProcess):
            process.kill()


def living(process: psutil.Process) -> str:
    """The name of a process; "" of one that has ended."""
    try:
        return "" if process.status() in GONE else process.name()
    except psutil.Error:
        return ""
