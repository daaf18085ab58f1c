"""Following a job's log to the job's end, through lost connections and a server that is away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import aiohttp

from cluster.jobs.client import Job, JobServer
from mgrpo.errors import JobError

STREAM_S = 30.0  # how long a stream is read before the job is asked whether it is still running
PAUSE_S = 0.5
LOST_DEADLINE_S = 300.0  # how long a server may be away before following ends

Write = Callable[[str], None]


def follow(
    server: JobServer, job: Job, write: Write, *, lost_deadline_s: float = LOST_DEADLINE_S
) -> Job:
    """Write the job's log from its beginning, as it comes, until the job is over.

    Args:
        server: where the job is.
        job: any record of it.
        write: gets each piece of text once.
        lost_deadline_s: the longest that the server may be away in one go, in seconds.

    Returns:
        The job as it ended.

    Raises:
        JobError: the server was away for too long. The job may go on without it being seen.
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
                    f"Lost sight of the job {job.submission_id} for {lost_deadline_s:g} s; it may "
                    f"be running still. {error}"
                ) from error
        time.sleep(PAUSE_S)
    try:
        log.add(server.logs(job), position=0)  # its last words may not have come by the stream
    except JobError as error:  # its node may be gone; how it ended is known all the same
        write(f"(the end of the log cannot be read: {error})\n")
    return job


class OnceWritten:
    """A log of which each character is written once, although every stream starts at its start."""

    def __init__(self, write: Write) -> None:
        self.write = write
        self.num_written = 0

    def add(self, piece: str, position: int) -> None:
        """Write the part of a piece, found at `position` in the log, that was not written yet."""
        new = piece[max(0, self.num_written - position) :]
        if new:
            self.write(new)
            self.num_written += len(new)


async def read_stream(server: JobServer, job: Job, log: OnceWritten) -> None:
    """Add what the server sends, until it ends the stream or STREAM_S have passed."""
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
