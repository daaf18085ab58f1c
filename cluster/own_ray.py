"""The processes of the local Ray that this one has started: do they live?

Ray says so late. Its GCS compares dates to decide whether a node needs a look, so after a clock was
set back by an hour it notices a lost node an hour late. And a process whose GCS is gone tries for a
minute to reach it, and is then ended by Ray without notice.
"""

from __future__ import annotations

import psutil

PARTS = {"raylet": "raylet", "gcs_server": "GCS"}
"""By the names of their processes."""
GONE = (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)


def what_is_lost() -> str:
    """ "Ray's GCS has ended, and a local Ray gets no other"; "" while all is there."""
    alive = {living(child) for child in psutil.Process().children()}
    lost = [word for name, word in PARTS.items() if name not in alive]
    if not lost:
        return ""
    verb = "has" if len(lost) == 1 else "have"
    return f"Ray's {' and '.join(lost)} {verb} ended, and a local Ray gets no other"


def living(process: psutil.Process) -> str:
    """The name of a process; "" of one that has ended."""
    try:
        return "" if process.status() in GONE else process.name()
    except psutil.Error:
        return ""
