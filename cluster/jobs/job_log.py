"""Streams a job's log to the job's end, through lost connections and server restarts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import aiohttp

from cluster.jobs.client import Job, JobServer
from mgrpo.errors import JobError

STREAM_S = 30.0  # how long a stream is read between checks of the job's state
PAUSE_S = 0.5
LOST_DEADLINE_S = 300.0  # longest absence of the server before streaming ends

Write = Callable[[str], None]


def stream_log(
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
    log = OnceWritten(write)
    seen_s = time.monotonic()
    while True:
        try:
            job = server.job(job.submission_id)
            seen_s = time.monotonic()
            if job.is_over:
                break
            asyncio.run(read_stream(server, job, log))
        except JobError as error:
            if time.monotonic() - seen_s > lost_deadline_s:
                raise JobError(
                    f"No connection to the job {job.submission_id} for {lost_deadline_s:g} s; it "
                    f"may still be running. {error}"
                ) from error
        time.sleep(PAUSE_S)
    try:
        log.add(server.logs(job), position=0)  # the stream may have missed its end
    except JobError as error:  # its node may be gone; how it ended is known all the same
        write(f"(the end of the log cannot be read: {error})\n")
    return job


class OnceWritten:
    """A log that writes each character once, although every stream starts at the beginning."""

    def __init__(self, write: Write) -> None:
        self.write = write
        self.num_written = 0

    def add(self, piece: str, position: int) -> None:
        """Write the new part of a piece that starts at `position` of the log."""
        new = piece[max(0, self.num_written - position) :]
        if new:
            self.write(new)
            self.num_written += len(new)


async def read_stream(server: JobServer, job: Job, log: OnceWritten) -> None:
    """Add the server's stream, until it ends or STREAM_S have passed."""
    position = 0
    try:
        async with asyncio.timeout(STREAM_S):
            async for piece in server.client.tail_job_logs(job.submission_id):
                log.add(piece, position)
                position += len(piece)
    except TimeoutError:
        return
    except (OSError, RuntimeError, aiohttp.ClientError) as error:
        raise JobError(f"The stream of its log ended: {error}") from error
