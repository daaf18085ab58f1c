"""Streams a job's log to the job's end, through pauses, lost connections and server restarts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable

import aiohttp

from cluster.jobs.client import Job, JobServer
from mgrpo.errors import JobError

POLL_S = 2.0  # interval of status checks of a silent job
LOST_DEADLINE_S = 300.0  # longest absence of the server before streaming ends

Write = Callable[[str], None]


def follow(
    server: JobServer, job: Job, write: Write, *, lost_deadline_s: float = LOST_DEADLINE_S
) -> Job:
    """Stream the job's log from its beginning until the job ends.

    Args:
        server: where the job is.
        job: any record of it.
        write: gets each piece of text once.
        lost_deadline_s: longest absence of the server at a time, in seconds.

    Returns:
        The job as it ended.

    Raises:
        JobError: the server was absent for too long. The job may still be running.
    """
    return asyncio.run(Follower(server, job, write, lost_deadline_s).run())


class Follower:
    """One log and the number of characters already written."""

    def __init__(self, server: JobServer, job: Job, write: Write, lost_deadline_s: float) -> None:
        self.server, self.job, self.write = server, job, write
        self.lost_deadline_s = lost_deadline_s
        self.num_written = 0

    async def run(self) -> Job:
        lost_since: float | None = None
        while True:
            try:
                job = await self.state()
                lost_since = None
                if job.is_over:
                    await self.write_rest()
                    return job
                await self.stream()
            except JobError as error:
                now = time.monotonic()
                lost_since = lost_since or now
                if now - lost_since > self.lost_deadline_s:
                    raise JobError(
                        f"No connection to the job {self.job.submission_id} for "
                        f"{self.lost_deadline_s:g} s; it may still be running. {error}"
                    ) from error
            await asyncio.sleep(POLL_S / 4)

    async def state(self) -> Job:
        return await asyncio.to_thread(self.server.job, self.job.submission_id)

    async def stream(self) -> None:
        """Write the stream until the server ends it or the job is over."""
        pieces: AsyncIterator[str] = self.server.client.tail_job_logs(self.job.submission_id)
        position = 0  # in the log: each stream begins at its beginning
        pending: asyncio.Task[str] | None = None
        try:
            while True:
                # A task, because a pause must not cancel the read.
                pending = pending or asyncio.ensure_future(anext(pieces))
                await asyncio.wait([pending], timeout=POLL_S)
                if not pending.done():
                    if (await self.state()).is_over:
                        return
                    continue
                piece, pending = pending.result(), None
                self.write_new(piece, position)
                position += len(piece)
        except StopAsyncIteration:
            return
        except (OSError, RuntimeError, aiohttp.ClientError) as error:
            raise JobError(f"The stream of its log ended: {error}") from error
        finally:
            if pending is not None:
                pending.cancel()
                await asyncio.wait([pending], timeout=POLL_S)  # lets it close its connection

    def write_new(self, piece: str, position: int) -> None:
        """Write the new part of a piece that starts at this position of the log."""
        new = piece[max(0, self.num_written - position) :]
        if new:
            self.write(new)
            self.num_written += len(new)

    async def write_rest(self) -> None:
        """Write the end of the log, which the stream may have missed."""
        try:
            log = await asyncio.to_thread(self.server.logs, self.job)
        except JobError as error:  # its node may be gone; how it ended is known all the same
            self.write(f"(the end of the log cannot be read: {error})\n")
        else:
            self.write_new(log, 0)
