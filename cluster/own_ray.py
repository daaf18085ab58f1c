"""The processes of the local Ray that this one has started: do they live?

Ray says so late. Its GCS compares dates to decide whether a node needs a look, so after a clock was
set back by an hour it notices a lost node an hour late, and calls to actors that ended with it wait
for as long. And a process whose GCS is gone tries for a minute to reach it, and is then ended by
Ray without notice.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

import psutil
import ray

NAMES = {"raylet": "raylet", "gcs_server": "GCS"}
"""Of the two parts, by the names of their processes."""
AGENT_PROGRAMS = ("/agent.py", "/agent/main.py")
GONE = (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
LEAVE_S = 1.0
"""For the raylet's children to end by themselves."""


@dataclass(frozen=True)
class OwnRay:
    """A local Ray, as it was once it had started.

    Args:
        parts: by their names in messages.
        agents: the raylet's children. They outlive a lost GCS by a minute, and where their raylet
            ends while they are still starting, nothing else leads to them any more.
    """

    parts: dict[str, psutil.Process]
    agents: set[psutil.Process]


_own: list[OwnRay] = []
"""The one that runs, of which Ray allows one in a process; none where it runs on a cluster."""


def remember() -> None:
    """From now on the local Ray that this process has just started is looked after."""
    children = psutil.Process().children()
    parts = {NAMES[child.name()]: child for child in children if child.name() in NAMES}
    _own[:] = [OwnRay(parts, set(children_of(parts["raylet"])))]


def agents_of(raylet: int) -> list[psutil.Process]:
    """A raylet's agents. Where it is killed together with its GCS, as with the driver of a local
    Ray, they try for up to a minute to tell the GCS before they end."""
    try:
        return [child for child in psutil.Process(raylet).children() if is_agent(child)]
    except psutil.Error:
        return []


def is_agent(process: psutil.Process) -> bool:
    """By its name, or by its program where it has not named itself yet."""
    try:
        starts_as_one = any(word.endswith(AGENT_PROGRAMS) for word in process.cmdline())
        return starts_as_one or process.name().endswith("Agent")
    except psutil.Error:
        return False


def what_is_lost() -> str:
    """ "Ray's GCS has ended, and a local Ray gets no other"; "" while all is there, and where
    there is no local Ray."""
    lost = [name for own in _own for name, process in own.parts.items() if not lives(process)]
    if not lost:
        return ""
    verb = "has" if len(lost) == 1 else "have"
    return f"Ray's {' and '.join(lost)} {verb} ended, and a local Ray gets no other"


def has_lost_actors() -> bool:
    """Whether there are no actors any more: they have ended with the raylet of a local Ray."""
    return any(not lives(own.parts["raylet"]) for own in _own)


def shut_down() -> None:
    """End the local Ray, if there is one, and what its raylet has started."""
    started = {
        process for own in _own for process in [*own.agents, *children_of(own.parts["raylet"])]
    }
    ray.shutdown()
    _own.clear()
    _, left = psutil.wait_procs(started, timeout=LEAVE_S)
    for process in left:
        with suppress(psutil.NoSuchProcess):
            process.kill()


def children_of(process: psutil.Process) -> list[psutil.Process]:
    """All that it has started, and what that has; none once it has ended."""
    try:
        return process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def lives(process: psutil.Process) -> bool:
    try:
        return process.status() not in GONE
    except psutil.Error:
        return False
