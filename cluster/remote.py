"""Calls to Ray actors that always have a deadline and always say whom they waited for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayTaskError

from mgrpo.errors import ActorDiedError, DeadlineError, MgrpoError


class RemoteActor:
    """One actor and the name that people know it by. Can be sent to other actors."""

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
        self, method: str, *args: Any, deadline_s: float, setting: str, **kwargs: Any
    ) -> Any:
        """`call` for an event loop."""
        reference = self.submit(method, *args, **kwargs)
        try:
            return await asyncio.wait_for(asyncio.wrap_future(reference.future()), deadline_s)
        except TimeoutError:
            ray.cancel(reference)
            raise deadline_error(self, method, deadline_s, setting) from None
        except (RayTaskError, RayActorError) as error:
            raise translated(error, self, method) from error

    def kill(self) -> None:
        """End the actor's process now. Safe when it is already gone."""
        ray.kill(self.handle)


def wait_for(
    calls: Sequence[tuple[RemoteActor, Any]], *, doing: str, deadline_s: float, setting: str
) -> list[Any]:
    """Wait for several calls under one deadline; results in the order of `calls`."""
    end = time.monotonic() + deadline_s
    results = []
    for actor, reference in calls:
        try:
            results.append(ray.get(reference, timeout=max(0.001, end - time.monotonic())))
        except GetTimeoutError:
            raise deadline_error(actor, doing, deadline_s, setting) from None
        except (RayTaskError, RayActorError) as error:
            raise translated(error, actor, doing) from error
    return results


def deadline_error(
    actor: RemoteActor, doing: str, deadline_s: float, setting: str
) -> DeadlineError:
    return DeadlineError(f"{actor.name} ({doing})", deadline_s=deadline_s, setting=setting)


def translated(error: Exception, actor: RemoteActor, doing: str) -> Exception:
    """Our own errors come out as they went in; a lost process gets a name."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, MgrpoError):
        return cause
    if isinstance(error, RayActorError):
        return ActorDiedError(
            f"{actor.name} died while it was asked to {doing}: {error}. Its log is in the run's "
            "logs folder; when memory ran out, lower engines.cpu_kv_cache_gib, "
            "engines.gpu_memory_utilization or learner.microbatch_tokens."
        )
    return MgrpoError(f"{actor.name} failed to {doing}: {error}")
