"""Calls to Ray actors, always with a deadline and with errors that name the actor."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

import ray
from ray.exceptions import (
    ActorPlacementGroupRemoved,
    ActorUnschedulableError,
    GetTimeoutError,
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
    RayActorError,
    RayTaskError,
    WorkerCrashedError,
)

from mgrpo.errors import ActorDiedError, DeadlineError, MgrpoError

MEANWHILE_S = 1.0  # between two calls of `meanwhile`
PROCESS_LOST = (
    ActorPlacementGroupRemoved,
    ActorUnschedulableError,
    NodeDiedError,
    ObjectLostError,  # with the node that held it
    OutOfMemoryError,  # Ray ends processes before the kernel does
    RayActorError,
    WorkerCrashedError,
)
FETCH_S = 300.0  # a result that is there still has to travel here


class RemoteActor:
    """One actor and its name in messages. Can be sent to other actors."""

    def __init__(self, handle: Any, name: str) -> None:
        self.handle, self.name = handle, name

    def submit(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Start a call; the returned reference goes to `wait_for`."""
        named = getattr(self.handle, method).options(name=f"{self.name}.{method}")
        return named.remote(*args, **kwargs)  # its name in Ray's dashboard

    def call(self, method: str, *args: Any, deadline_s: float, setting: str, **kwargs: Any) -> Any:
        """Call and wait.

        Raises:
            DeadlineError: no answer within `deadline_s`; the message names `setting`.
            ActorDiedError: the actor's process is gone.
            MgrpoError: what the method raised, if it is one of ours.
        """
        reference = self.submit(method, *args, **kwargs)
        return wait_for([(self, reference)], doing=method, deadline_s=deadline_s, setting=setting)[
            0
        ]

    async def call_async(
        self, method: str, *args: Any, deadline_s: float | None, setting: str, **kwargs: Any
    ) -> Any:
        """`call` for an event loop. Cancelling it cancels the actor's work, too.

        Args:
            deadline_s: None if the caller limits the wait.
        """
        reference = self.submit(method, *args, **kwargs)
        answer = asyncio.wrap_future(reference.future())
        try:
            # Not `wait_for`: after a pause of this loop it forgets an answer that has come.
            await asyncio.wait({answer}, timeout=deadline_s)
            if deadline_s is not None and not answer.done():
                raise deadline_error(self, method, deadline_s, setting)
            return answer.result()
        except (RayTaskError, *PROCESS_LOST) as error:
            raise translated(error, self, method) from error
        finally:
            if not answer.done():
                answer.cancel()  # its result is not needed
                ray.cancel(reference)

    def kill(self) -> None:
        """End the actor's process now. Safe when it is already gone."""
        ray.kill(self.handle)


def share(value: Any) -> Any:
    """Put a value where every actor can read it; the reference goes into calls in its place.

    It is written once. Actors of one node read its arrays in the same memory, without copying them.
    """
    return ray.put(value)


class Call:
    """A call in progress, which can be looked at without waiting for it."""

    def __init__(self, actor: RemoteActor, method: str, *args: Any) -> None:
        self.actor, self.method = actor, method
        self.began = time.monotonic()
        self.reference = actor.submit(method, *args)

    @property
    def seconds(self) -> float:
        """Since it was made."""
        return time.monotonic() - self.began

    def is_done(self) -> bool:
        return bool(ray.wait([self.reference], timeout=0)[0])

    def outcome(self) -> Any:
        """What a call that is done returned.

        Raises:
            ActorDiedError, MgrpoError: as `wait_for`.
        """
        return result_of(self.actor, self.reference, self.method)


def wait_for(
    calls: Sequence[tuple[RemoteActor, Any]],
    *,
    doing: str,
    deadline_s: float,
    setting: str,
    meanwhile: Callable[[], None] | None = None,
) -> list[Any]:
    """Wait for several calls under one deadline; results in the order of `calls`.

    The first failure is raised at once, also while earlier calls of the list are still running.

    Args:
        meanwhile: called about once a second while waiting; must not block.
    """
    end = time.monotonic() + deadline_s
    pending = {reference: actor for actor, reference in calls}
    results: dict[Any, Any] = {}
    while pending:
        left_s = max(0.001, end - time.monotonic())
        look_s = left_s if meanwhile is None else min(left_s, MEANWHILE_S)
        done, _ = ray.wait(list(pending), num_returns=1, timeout=look_s)
        for reference in done:
            results[reference] = result_of(pending.pop(reference), reference, doing)
        if not done and time.monotonic() >= end:
            raise deadline_error(next(iter(pending.values())), doing, deadline_s, setting)
        if meanwhile is not None:
            meanwhile()
    return [results[reference] for _, reference in calls]


def result_of(actor: RemoteActor, reference: Any, doing: str) -> Any:
    """The result of a finished call; its error is converted to one of ours."""
    try:
        return ray.get(reference, timeout=FETCH_S)
    except GetTimeoutError:
        raise deadline_error(actor, f"{doing}: its result", FETCH_S, "nothing") from None
    except (RayTaskError, *PROCESS_LOST) as error:
        raise translated(error, actor, doing) from error


def deadline_error(
    actor: RemoteActor, doing: str, deadline_s: float, setting: str
) -> DeadlineError:
    return DeadlineError(f"{actor.name} ({doing})", deadline_s=deadline_s, setting=setting)


def translated(error: Exception, actor: RemoteActor, doing: str) -> Exception:
    """Our own errors stay as they are; a lost process becomes an ActorDiedError with its name."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, MgrpoError):
        return cause
    if isinstance(error, PROCESS_LOST):
        return ActorDiedError(
            f"{actor.name} died during the call to {doing}: {error}. Its log is in the run's "
            "logs folder; if memory ran out, lower engines.cpu_kv_cache_gib, "
            "engines.gpu_memory_utilization or learner.microbatch_tokens."
        )
    return MgrpoError(f"{actor.name} failed to {doing}: {error}")
