"""Detects a hanging engine, and distinguishes it from a hanging request."""

from __future__ import annotations

import asyncio

from cluster.engine_actor import EngineActor
from cluster.progress_board import ProgressBoard
from cluster.remote import RemoteActor
from mgrpo.errors import DeadlineError, MgrpoError, RequestError
from mgrpo.records.turns import Prompt
from mgrpo.types import Generation

GENERATE_S = "cluster.deadlines.generate_s"
LOOK_S = 5.0  # between two looks at an engine's progress, at most
ANSWER_S = 30.0  # longest wait for the single test token


class ProgressWatch:
    """Ends the wait for requests of an engine that generates no tokens.

    A request may be queued as long as other requests of its engine get tokens: what counts is the
    engine's progress. Without progress every open request is cancelled, and one token of another
    prompt decides whether the engine is lost or only those requests.

    Args:
        actor: the engine's.
        deadline_s: longest time without a token, the test token included.
        board: is told of tokens.
    """

    def __init__(
        self, actor: RemoteActor[EngineActor], *, deadline_s: float, board: ProgressBoard
    ) -> None:
        self.actor, self.deadline_s, self.board = actor, deadline_s, board
        self.look_s = min(LOOK_S, deadline_s / 8)
        self.answer_s = min(ANSWER_S, deadline_s / 4)
        self.requests: dict[asyncio.Task[list[Generation]], Prompt] = {}  # and their prompts
        self.is_over = False  # no progress: new requests belong to the next watch
        self.failure = asyncio.create_task(self.watch())

    async def outcome(
        self, request: asyncio.Task[list[Generation]], prompt: Prompt
    ) -> list[Generation]:
        """The result of a request, or its error.

        Raises:
            DeadlineError, ActorDiedError: the engine is lost.
            RequestError: the engine is healthy, and this request makes no progress.
        """
        self.requests[request] = prompt
        try:
            while True:
                if request.done() and not request.cancelled():
                    return request.result()
                if self.failure.done():
                    raise self.failure.result()
                open_tasks = [task for task in (request, self.failure) if not task.done()]
                await asyncio.wait(
                    open_tasks, timeout=self.deadline_s, return_when=asyncio.FIRST_COMPLETED
                )
        finally:
            request.cancel()
            del self.requests[request]

    def end(self) -> None:
        """Stop watching: no request is open."""
        self.failure.cancel()

    async def watch(self) -> MgrpoError:
        """Watch until there is no progress, then fail the open requests."""
        num_requests = 0
        try:
            await self.until_nothing_moves()
            self.is_over = True
            num_requests = len(self.requests)
            first = next(iter(self.requests.values()))
            prompt = Prompt.of(first.token_ids[:1])
            for request in self.requests:
                request.cancel()
            one_token = self.actor.submit(
                EngineActor.generate,
                prompt,
                num_samples=1,
                max_tokens=1,
                temperature=0.0,
                seed=0,
            )
            await one_token.answer(deadline_s=self.answer_s, setting=GENERATE_S)
        except DeadlineError:
            self.is_over = True
            return DeadlineError(
                f"a token from {self.actor.name}",
                deadline_s=self.deadline_s,
                setting=GENERATE_S,
                detail=f"None of its {num_requests or len(self.requests)} requests got one, nor "
                "does it answer a new one.",
            )
        except MgrpoError as error:
            self.is_over = True
            return error
        return RequestError(
            f"{self.actor.name} generated no token for {num_requests} requests in "
            f"{self.deadline_s:g} s ({GENERATE_S}), but answers another request."
        )

    async def until_nothing_moves(self) -> None:
        clock = asyncio.get_running_loop().time
        num_tokens, quiet_s, looked_at = -1, 0.0, clock()
        while True:
            left_s = self.deadline_s - quiet_s
            found = await self.actor.submit(EngineActor.num_sampled_tokens).answer(
                deadline_s=max(left_s, self.look_s), setting=GENERATE_S
            )
            # The loop stands still during a broadcast, when engines may be paused.
            passed_s, looked_at = min(clock() - looked_at, 2 * self.look_s), clock()
            quiet_s = quiet_s + passed_s if found == num_tokens else 0.0
            if found != num_tokens:
                self.board.did(f"tokens of {self.actor.name}")
            num_tokens = found
            if quiet_s >= self.deadline_s - self.answer_s - self.look_s:
                return
            await asyncio.sleep(self.look_s)
