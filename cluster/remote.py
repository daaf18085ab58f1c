"""Calls to Ray actors, always with a deadline and with errors that name the actor."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Concatenate, Generic, ParamSpec, TypeVar, cast, overload

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

from cluster import own_ray
from cluster.progress_board import LOOK_S, Counter, Patience
from mgrpo.errors import ActorDiedError, DeadlineError, MgrpoError

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
LOOKS = "looks"
"""The concurrency group of Ray in which an actor answers `RemoteActor.look`."""

Instance_co = TypeVar("Instance_co", covariant=True)
Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")
Result_co = TypeVar("Result_co", covariant=True)
Value = TypeVar("Value")


class RemoteActor(Generic[Instance_co]):
    """One actor, by the class of its instance, and its name in messages. Can be sent to other
    actors."""

    def __init__(self, handle: ray.actor.ActorHandle, name: str) -> None:
        self.handle, self.name = handle, name

    @overload
    def submit(
        self,
        method: Callable[Concatenate[Instance_co, Arguments], Awaitable[Result]],
        *args: Arguments.args,
        **kwargs: Arguments.kwargs,
    ) -> Call[Result]: ...

    @overload
    def submit(
        self,
        method: Callable[Concatenate[Instance_co, Arguments], Result],
        *args: Arguments.args,
        **kwargs: Arguments.kwargs,
    ) -> Call[Result]: ...

    def submit(
        self, method: Callable[..., object], *args: object, **kwargs: object
    ) -> Call[object]:
        """Start a call: `engine.submit(EngineActor.wake, "weights")`.

        Args:
            method: of the instance's class, as it is defined there: mypy checks arguments and
                result by it. The actor's own class may override it.
            args, kwargs: the method's; a value from `share` stands for what was shared.
        """
        name = method.__name__
        named = getattr(self.handle, name).options(name=f"{self.name}.{name}")
        # Its name in Ray's dashboard.
        return Call(self, name, named.remote(*args, **kwargs))

    def look(self, method: Callable[[Instance_co], Result]) -> Call[Result]:
        """A call that is answered beside the one that runs; the actor was made with
        `Placement.start(..., answers_looks=True)`."""
        name = method.__name__
        looking = getattr(self.handle, name).options(
            name=f"{self.name}.{name}", concurrency_group=LOOKS
        )
        return Call(self, name, looking.remote())

    def kill(self) -> None:
        """End the actor's process now. Safe when it is already gone."""
        ray.kill(self.handle)


def share(value: Value) -> Value:
    """Put a value where every actor can read it; calls take the returned reference in its place.

    It is written once. Actors of one node read its arrays in the same memory, without copying them.
    Ray resolves the reference before the method sees it, hence the type.
    """
    return cast(Value, ray.put(value))


class Call(Generic[Result_co]):
    """A call in progress, which can be looked at without waiting for it."""

    def __init__(self, actor: RemoteActor[object], method: str, reference: ray.ObjectRef) -> None:
        self.actor, self.method, self.reference = actor, method, reference
        self.began = time.monotonic()

    @property
    def seconds(self) -> float:
        """Since it was made."""
        return time.monotonic() - self.began

    def is_done(self) -> bool:
        """Whether there is an outcome. Does not wait."""
        return self.is_answered() or own_ray.has_lost_actors()

    def is_answered(self) -> bool:
        with errors_of_signals():
            return bool(ray.wait([self.reference], timeout=0)[0])

    def outcome(self, doing: str | None = None) -> Result_co:
        """What a call that is done returned.

        Args:
            doing: what an error says of it; None: the method's name.

        Raises:
            ActorDiedError: the actor's process is gone.
            MgrpoError: what the method raised, if it is one of ours.
        """
        doing = doing or self.method
        if own_ray.has_lost_actors() and not self.is_answered():
            raise died(self.actor.name, doing)
        try:
            with errors_of_signals():
                result: Result_co = ray.get(self.reference, timeout=FETCH_S)
        except GetTimeoutError:
            raise self.too_late(f"{doing}: its result", FETCH_S, "nothing") from None
        except (RayTaskError, *PROCESS_LOST) as error:
            raise translated(error, self.actor.name, doing) from error
        return result

    def result(self, *, deadline_s: float, setting: str) -> Result_co:
        """Wait for what it returns.

        Raises:
            DeadlineError: no answer within `deadline_s`; the message names `setting`.
            ActorDiedError, MgrpoError: as `outcome`.
        """
        return wait_for([self], deadline_s=deadline_s, setting=setting)[0]

    async def answer(
        self, *, deadline_s: float | None, setting: str, progress: Counter | None = None
    ) -> Result_co:
        """`result` for an event loop. Cancelling it cancels the actor's work, too.

        Args:
            deadline_s: None if the caller limits the wait.
            progress: see `wait_for`.
        """
        answer: asyncio.Future[Result_co] = asyncio.wrap_future(self.reference.future())
        patience = None if deadline_s is None else Patience(deadline_s, progress)
        try:
            while not answer.done():
                left_s = None if patience is None else patience.left_s()
                if patience is not None and left_s is not None and left_s <= 0:
                    raise self.too_late(self.method, patience.deadline_s, setting, patience.detail)
                look_s = left_s if progress is None or left_s is None else min(left_s, LOOK_S)
                # Not `wait_for`: after a pause of this loop it forgets an answer that has come.
                await asyncio.wait({answer}, timeout=look_s)
                if own_ray.has_lost_actors():
                    self.outcome()
            return answer.result()
        except (RayTaskError, *PROCESS_LOST) as error:
            raise translated(error, self.actor.name, self.method) from error
        finally:
            if not answer.done():
                answer.cancel()  # its result is not needed
                ray.cancel(self.reference)

    def too_late(
        self, doing: str, deadline_s: float, setting: str, detail: str = ""
    ) -> DeadlineError:
        return DeadlineError(
            f"{self.actor.name} ({doing})", deadline_s=deadline_s, setting=setting, detail=detail
        )


def wait_for(
    calls: Sequence[Call[Result]],
    *,
    doing: str | None = None,
    deadline_s: float,
    setting: str,
    meanwhile: Callable[[], None] | None = None,
    progress: Counter | None = None,
) -> list[Result]:
    """Wait for several calls under one deadline; results in the order of `calls`.

    The first failure is raised at once, also while earlier calls of the list are still running.

    Args:
        doing: what errors say of the calls; None: the method's name.
        meanwhile: called about once a second while waiting; must not block.
        progress: the deadline is for a time without any; None: for the whole.
    """
    patience = Patience(deadline_s, progress)
    pending = {call.reference: call for call in calls}
    results: dict[ray.ObjectRef, Result] = {}
    while pending:
        left_s = patience.left_s()
        with errors_of_signals():
            timeout_s = min(max(0.001, left_s), LOOK_S)
            done, _ = ray.wait(list(pending), num_returns=1, timeout=timeout_s)
        for reference in done:
            results[reference] = pending.pop(reference).outcome(doing)
        if not done and patience.left_s() <= 0:
            late = next(iter(pending.values()))
            raise late.too_late(doing or late.method, deadline_s, setting, patience.detail)
        if pending and own_ray.has_lost_actors():
            next(iter(pending.values())).outcome(doing)
        if meanwhile is not None and not done:
            meanwhile()
    return [results[call.reference] for call in calls]


@contextmanager
def errors_of_signals() -> Iterator[None]:
    """What a signal's handler raises during a wait in Ray is raised; Ray makes a SystemError of it,
    which has it as its cause."""
    try:
        yield
    except SystemError as error:
        if error.__cause__ is None:
            raise
        raise error.__cause__ from None


def translated(error: Exception, actor: str, doing: str) -> Exception:
    """Our own errors stay as they are; a lost process becomes an ActorDiedError with its name."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, MgrpoError):
        return cause
    if isinstance(error, PROCESS_LOST):
        return died(actor, doing, error)
    return MgrpoError(f"{actor} failed to {doing}: {error}")


def died(actor: str, doing: str, error: Exception | None = None) -> ActorDiedError:
    """
    Args:
        error: Ray's; None: it has not noticed that the actor's node is gone.
    """
    if error is None or own_ray.has_lost_actors():
        why = f"{own_ray.what_is_lost()}. Repeat the command to resume."
    else:
        why = (
            f"{error}. Its log is in the run's logs folder; if memory ran out, lower "
            "engines.cpu_kv_cache_gib, engines.gpu_memory_utilization or "
            "learner.microbatch_tokens."
        )
    return ActorDiedError(f"{actor} died during the call to {doing}: {why}")
