"""The code of a service's process: an event loop that many groups are in at a time."""

from __future__ import annotations

import asyncio
import signal
from contextlib import suppress
from multiprocessing.connection import Connection as Pipe

from mgrpo.config.services import HttpTerm, JudgeTerm, ModelTerm, ServiceTerm
from mgrpo.errors import RewardError
from rewards.conventions import Group
from rewards.score import Outcome, failed
from rewards.services.service import Service, ServiceFailure, ServiceTimeout
from rewards.worker import description, die_with_parent

READY, PROGRESS, ALIVE = -1, -2, -3
"""What is sent in place of a group's number."""
ALIVE_EVERY_S = 1.0


def serve(term: ServiceTerm, pipe: Pipe) -> None:
    """Answer (number, group) by (number, outcomes); (number, None) takes a group back.

    The first message is (READY, ""), or why the service cannot be used. From then on (ALIVE, None)
    is sent once a second.
    """
    for signalled in (signal.SIGTERM, signal.SIGINT):  # the pool ends it, as it does its others
        signal.signal(signalled, signal.SIG_IGN)
    die_with_parent()
    loop = asyncio.new_event_loop()
    try:
        service = open_service(term)
    except RewardError as error:
        pipe.send((READY, str(error)))
        return
    except BaseException as error:
        pipe.send((READY, f"The reward term {term.function} failed: {description(error)}"))
        return
    pipe.send((READY, ""))
    tasks: dict[int, asyncio.Task[None]] = {}

    def take() -> None:
        try:
            number, group = pipe.recv()
        except (EOFError, OSError):
            loop.stop()
            return
        if group is not None:
            tasks[number] = loop.create_task(answer(service, number, group, pipe))
            tasks[number].add_done_callback(lambda _: tasks.pop(number))
        elif number in tasks:
            tasks[number].cancel()

    def say_alive() -> None:
        with suppress(OSError):  # the pool has gone, as the reader finds
            pipe.send((ALIVE, None))
        loop.call_later(ALIVE_EVERY_S, say_alive)

    loop.add_reader(pipe.fileno(), take)
    say_alive()
    loop.run_forever()


def open_service(term: ServiceTerm) -> Service:
    """The service of a term; each kind imports what it needs.

    Raises:
        RewardError: it cannot be used.
    """
    if isinstance(term, HttpTerm):
        from rewards.services.http_reward import HttpReward

        return HttpReward(term)
    if isinstance(term, JudgeTerm):
        from rewards.services.judge import Judge

        return Judge(term)
    assert isinstance(term, ModelTerm), term
    from rewards.services.reward_model import RewardModel

    return RewardModel(term)


async def answer(service: Service, number: int, group: Group, pipe: Pipe) -> None:
    """One group's outcomes; whatever goes wrong is the outcome of all of its completions."""
    try:
        outcomes = await service.score(group, lambda: pipe.send((PROGRESS, None)))
    except asyncio.CancelledError:
        raise
    except ServiceTimeout as error:
        outcomes = all_failed(group, failed("timeout", str(error)))
    except ServiceFailure as error:
        outcomes = all_failed(group, failed("error", str(error)))
    except BaseException as error:
        outcomes = all_failed(group, failed("error", description(error)))
    pipe.send((number, outcomes))


def all_failed(group: Group, outcome: Outcome) -> list[Outcome]:
    return [outcome] * len(group.texts)
