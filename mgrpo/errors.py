"""Every error that a user, a config or the cluster can cause.

MgrpoError
├── ConfigError            the recipe is wrong; nothing was started
├── DataError              a data file or data set cannot be used
├── ModelError             a model or tokenizer cannot be used
├── HubUnreachable         a hub name is not in the cache and the hub does not answer
├── RewardError            rewards fail too often, or cannot be loaded
├── RunDirectoryError      the run's directory cannot be used
├── TrackerError           a tracker of metrics cannot be started
├── StorageError           files cannot be moved to or from shared storage
├── ClusterError
│   ├── PlacementError     the requested resources are not available
│   ├── ActorDiedError     a process of the run died
│   │   └── LearnerLostError   a rank of the learner died, or hangs
│   ├── RequestError       a healthy engine cannot sample one request
│   ├── JobError           a job cannot be submitted, found, streamed or stopped
│   │   └── NoServerError  no job server answers, or not yet
│   └── DeadlineError      a call did not finish within its deadline
├── SamplingError          an engine's samples cannot be trained on
├── WeightSyncError        weights did not arrive, or not as they were sent
├── LearnerError           the update cannot be computed (a loss that is not finite, …)
├── AlarmError             an alert with `action: stop` fired
└── RunInterrupted         Ctrl-C or SIGTERM

Each has an `exit_code` for the process.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from mgrpo.records.secret_values import redacted, redacted_value


class MgrpoError(Exception):
    """Base of all errors with a message for the user who started the run.

    The message is without secrets (`mgrpo.records.secret_values`), also those that a library's
    error has.
    """

    exit_code = 1

    def __init__(self, message: str = "") -> None:
        super().__init__(redacted(message))

    def __reduce__(self) -> tuple[object, ...]:
        # Errors cross processes; the default would call __init__ with the message alone.
        return rebuild_error, (type(self), str(self), dict(self.__dict__))


@asynccontextmanager
async def task_group() -> AsyncIterator[asyncio.TaskGroup]:
    """`asyncio.TaskGroup`, whose first failure is raised as it is, not inside a group."""
    try:
        async with asyncio.TaskGroup() as group:
            yield group
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from failures


def rebuild_error(cls: type[MgrpoError], message: str, state: dict[str, object]) -> MgrpoError:
    """Unpickle an error without running its __init__."""
    error = cls.__new__(cls)
    Exception.__init__(error, message)
    error.__dict__.update(state)
    return error


@dataclass(frozen=True, slots=True)
class ConfigFault:
    """A fault of a recipe: key, value, reason and a valid alternative, all without secrets."""

    path: str  # "layers.1.group_size"
    value: str  # as written, shortened
    reason: str
    suggestion: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "value", redacted_value(self.path, self.value))
        for name in ("path", "reason", "suggestion"):
            object.__setattr__(self, name, redacted(getattr(self, name)))

    def __str__(self) -> str:
        hint = f" {self.suggestion}" if self.suggestion else ""
        return f"{self.path} = {self.value}: {self.reason}{hint}"


Faults = Iterable[ConfigFault]
"""What a check of a recipe finds; most checks are generators."""


def must_be(path: str, given: object, wanted: object, why: str, hint: str = "") -> Faults:
    """The fault of a key that has another value than the rest of the recipe asks for."""
    if given != wanted:
        key = path.strip("()").rpartition(".")[2]
        yield ConfigFault(path, f"{given}", why, hint or f"Use {key}: {wanted}.")


def at_most(path: str, given: int, most: int, why: str) -> Faults:
    """The fault of a number that is larger than the rest of the recipe allows."""
    if given > most:
        yield ConfigFault(path, f"{given}", why, f"Nearest valid value: {most}.")


class ConfigError(MgrpoError):
    """The recipe is wrong. Lists all faults at once."""

    exit_code = 2

    def __init__(self, faults: Sequence[ConfigFault], *, source: str = "the recipe") -> None:
        self.faults = list(faults)
        count = len(self.faults)
        noun = "fault" if count == 1 else "faults"
        lines = "\n".join(f"  - {fault}" for fault in self.faults)
        super().__init__(f"{source} has {count} {noun}:\n{lines}")


class DataError(MgrpoError):
    """A data file or data set cannot be used."""

    exit_code = 2


class ModelError(MgrpoError):
    """A model or tokenizer cannot be used."""

    exit_code = 2


class HubUnreachable(MgrpoError):
    """A file of the Hugging Face hub is needed, and the hub does not answer."""

    exit_code = 2

    def __init__(self, what: str, setting: str) -> None:
        super().__init__(
            f"{what} is not in the local cache and the Hugging Face hub cannot be reached from "
            f"here. Download it on a machine with a network and set {setting} to its folder."
        )


class RewardError(MgrpoError):
    """A reward cannot be loaded, or fails so often that its values mean nothing."""

    exit_code = 3


class RunDirectoryError(MgrpoError):
    """The run's directory cannot be used."""

    exit_code = 2


class TrackerError(MgrpoError):
    """A tracker of metrics cannot be started; one that fails later only warns."""

    exit_code = 2


class StorageError(MgrpoError):
    """Files cannot be moved to or from shared storage; the message names the URL."""

    exit_code = 8


class ClusterError(MgrpoError):
    """Base of the errors of placement, processes, jobs and deadlines."""

    exit_code = 4


class PlacementError(ClusterError):
    """The run asks for resources that the cluster does not have free."""


class ActorDiedError(ClusterError):
    """A process of the run died."""


class LearnerLostError(ActorDiedError):
    """A rank of the learner died, or does not answer; others may take their places."""


class RequestError(ClusterError):
    """A healthy engine cannot sample one request; another engine may."""


class JobError(ClusterError):
    """A job cannot be submitted, found, streamed or stopped."""


class NoServerError(JobError):
    """No job server answers; it may still be starting."""


class DeadlineError(ClusterError):
    """A call did not finish within its deadline; the message names the call and the setting."""

    def __init__(
        self, waited_for: str, *, deadline_s: float, setting: str, detail: str = ""
    ) -> None:
        extra = f" {detail}" if detail else ""
        super().__init__(
            f"Waited {deadline_s:g} s for {waited_for} and gave up.{extra} "
            f"If that is merely slow, raise {setting} in the recipe."
        )
        self.waited_for, self.deadline_s, self.setting = waited_for, deadline_s, setting


class SamplingError(MgrpoError):
    """An engine's completions cannot be trained on; sampling them again would not help."""

    exit_code = 9


class WeightSyncError(MgrpoError):
    """Weights did not arrive at an engine, or not as the learner sent them."""

    exit_code = 5


class LearnerError(MgrpoError):
    """The update cannot be computed."""

    exit_code = 6


class AlarmError(MgrpoError):
    """A training alert fired whose action is stop."""

    exit_code = 7

    def __init__(self, alarm: str, message: str) -> None:
        super().__init__(
            f"{message} The run stopped because alarms.{alarm}.action is stop; set it to warn to "
            f"continue training, or change alarms.{alarm}.threshold."
        )
        self.alarm = alarm


class RunInterrupted(MgrpoError):
    """The run was stopped by a signal and ended cleanly."""

    def __init__(self, signal_name: str, exit_code: int) -> None:
        super().__init__(f"Stopped by {signal_name}.")
        self.exit_code = exit_code
