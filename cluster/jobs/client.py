"""Jobs at a Ray cluster's job server: submitted, listed, streamed and stopped over HTTP.

Ray's client waits for an answer for ever and lets every library's errors through; here each
call has a deadline, and its JobError has a remedy.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobSubmissionClient

from cluster.jobs.job_token import WHERE_TO_PUT_IT, Token, find_token
from mgrpo.errors import JobError, NoServerError

DEFAULT_ADDRESS = "http://127.0.0.1:8265"
ADDRESS_VARIABLE = "RAY_API_SERVER_ADDRESS"
CALL_DEADLINE_S = 60.0  # Ray itself waits up to 30 s for the head's agent
RUN_KEY, ATTEMPT_KEY = "mgrpo_run", "mgrpo_attempt"  # of a job's metadata
STOPPED_EXIT_CODE = 143  # 128 + SIGTERM: what a stopped run's driver exits with


@dataclass(frozen=True, slots=True)
class Job:
    """One submission, as the job server knows it."""

    submission_id: str
    run: str  # the run's name; the submission id where the job was not submitted by mgrpo
    attempt: int  # counted from 1; each submission of a run is one
    status: str  # PENDING, RUNNING, SUCCEEDED, FAILED or STOPPED
    message: str
    exit_code: int | None  # of the driver, where Ray recorded it
    started_s: float | None  # Unix time
    ended_s: float | None
    entrypoint: str
    variables: dict[str, str]  # of its runtime environment

    @classmethod
    def of(cls, details: JobDetails) -> Job:
        metadata = details.metadata or {}
        attempt = metadata.get(ATTEMPT_KEY, "1")
        return cls(
            submission_id=details.submission_id,
            run=metadata.get(RUN_KEY, details.submission_id),
            attempt=int(attempt) if attempt.isdecimal() else 1,
            status=details.status.value,
            message=details.message or "",
            exit_code=details.driver_exit_code,
            started_s=details.start_time / 1000 if details.start_time else None,
            ended_s=details.end_time / 1000 if details.end_time else None,
            entrypoint=details.entrypoint,
            variables=dict((details.runtime_env or {}).get("env_vars") or {}),
        )

    @property
    def is_over(self) -> bool:
        return self.status in ("SUCCEEDED", "FAILED", "STOPPED")

    @property
    def process_exit_code(self) -> int:
        """The exit code for a command that streamed this job to its end; 0 only for success."""
        if self.status in ("SUCCEEDED", "STOPPED"):
            return 0 if self.status == "SUCCEEDED" else STOPPED_EXIT_CODE
        if not self.exit_code:
            return JobError.exit_code  # it failed before its driver printed anything
        return 128 - self.exit_code if self.exit_code < 0 else self.exit_code


class DeadlineClient(JobSubmissionClient):
    """Ray's client with a deadline for each call."""

    def _do_request(self, method: str, endpoint: str, **kwargs: object) -> Any:
        return super()._do_request(method, endpoint, timeout=CALL_DEADLINE_S, **kwargs)


class JobServer:
    """The job server of one cluster.

    Args:
        address: http://HOST:PORT of the cluster's dashboard. None: RAY_API_SERVER_ADDRESS, then
            RAY_ADDRESS where it is such an address, then http://127.0.0.1:8265.

    Raises:
        JobError: it does not answer, is not a job server, or refuses the token.
    """

    def __init__(self, address: str | None = None) -> None:
        self.address = resolve_address(address)
        self.token = find_token()
        for name in ("ray", "ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk"):
            logging.getLogger(name).setLevel(logging.ERROR)  # the last two set themselves to INFO
        headers = {"Authorization": f"Bearer {self.token.value}"} if self.token else None
        with self.errors("answer"), address_for_ray(self.address):
            self.client = DeadlineClient(self.address, headers=headers)

    @contextmanager
    def errors(self, doing: str) -> Iterator[None]:
        """Convert connection errors to a JobError."""
        try:
            yield
        except AuthenticationError as error:
            raise JobError(authentication_message(self.address, self.token, str(error))) from error
        except (OSError, aiohttp.ClientError) as error:  # requests' errors are OSErrors
            raise NoServerError(
                f"No Ray job server answers at {self.address}: {error_text(error)} Check that the "
                "cluster runs and that --address is its dashboard's (http://HOST:8265); a server "
                "behind a firewall is reached through a tunnel: ssh -L 8265:127.0.0.1:8265 HEAD."
            ) from error
        except (RuntimeError, ValueError, KeyError) as error:
            raise JobError(
                f"The server at {self.address} refused to {doing}: {error_text(error)}"
            ) from error

    def jobs(self, run: str | None = None) -> list[Job]:
        """Every submitted job that the cluster remembers, or the attempts of a run; oldest first.

        A job that mgrpo did not submit is a run named by its submission id.
        """
        with self.errors("list its jobs"):
            found = [
                Job.of(details) for details in self.client.list_jobs() if details.submission_id
            ]
        found.sort(key=lambda job: job.started_s or 0.0)
        return [job for job in found if run is None or run in (job.run, job.submission_id)]

    def latest(self, run: str) -> Job:
        """The newest attempt of a run.

        Raises:
            JobError: there is none; the message lists the existing runs.
        """
        jobs = self.jobs()
        found = [job for job in jobs if run in (job.run, job.submission_id)]
        if not found:
            names = list(dict.fromkeys(job.run for job in reversed(jobs)))[:10]
            raise JobError(
                f"The cluster at {self.address} has no run {run!r}. Its runs, newest first: "
                f"{', '.join(names) or 'none'}. A cluster forgets its jobs when it is restarted."
            )
        return found[-1]

    def job(self, submission_id: str) -> Job:
        with self.errors("describe the job"):
            return Job.of(self.client.get_job_info(submission_id))

    def next_attempt(self, run: str) -> int:
        """The number of a run's next submission.

        Raises:
            JobError: the run has not ended yet.
        """
        earlier = self.jobs(run)
        for job in earlier:
            if not job.is_over:
                raise JobError(
                    f"The run {job.run} is {job.status.lower()} already, as job "
                    f"{job.submission_id}. Stream its log with `mgrpo logs {job.run} --follow`, "
                    "stop it "
                    f"with `mgrpo stop {job.run}`, or give this one another name: --run NAME."
                )
        return 1 + max((job.attempt for job in earlier), default=0)

    def submit(
        self, run: str, command: str, *, runtime_env: dict[str, object], metadata: dict[str, str]
    ) -> Job:
        """Submit a run as job mgrpo-RUN-ATTEMPT; two concurrent submissions of one run conflict.

        Args:
            run: the run's name.
            command: for a shell, in the package's folder.
            runtime_env: with `working_dir` a local folder, which is uploaded.
            metadata: shown in the dashboard; the run and the attempt are added.

        Raises:
            JobError: the run is running already, or the server refuses it.
        """
        attempt = self.next_attempt(run)
        with self.errors("accept the job"):
            submission_id = self.client.submit_job(
                entrypoint=command,
                submission_id=f"mgrpo-{run}-{attempt}",
                runtime_env=runtime_env,
                metadata={RUN_KEY: run, ATTEMPT_KEY: str(attempt), **metadata},
            )
        return self.job(submission_id)

    def stop(self, job: Job) -> None:
        """Ask a job to end, with SIGTERM to all of its processes. Does not wait for it."""
        with self.errors("stop the job"):
            self.client.stop_job(job.submission_id)

    def logs(self, job: Job) -> str:
        """The log of the job's driver so far."""
        with self.errors("return the job's log"):
            return str(self.client.get_job_logs(job.submission_id))


@contextmanager
def address_for_ray(address: str) -> Iterator[None]:
    """Ray's client prefers RAY_ADDRESS to the given address; here the given one is used."""
    before = os.environ.get(ADDRESS_VARIABLE)
    os.environ[ADDRESS_VARIABLE] = address
    try:
        yield
    finally:
        del os.environ[ADDRESS_VARIABLE]
        if before is not None:
            os.environ[ADDRESS_VARIABLE] = before


def resolve_address(address: str | None, environment: Mapping[str, str] = os.environ) -> str:
    """The job server's address with its scheme and without a trailing slash."""
    of_ray = environment.get("RAY_ADDRESS", "")
    if not of_ray.startswith(("http://", "https://")):  # a cluster's address, not a job server's
        of_ray = ""
    address = address or environment.get(ADDRESS_VARIABLE) or of_ray or DEFAULT_ADDRESS
    address = address.rstrip("/") if "://" in address else f"http://{address}"
    if not address.startswith(("http://", "https://")):
        raise JobError(
            f"{address} is not the address of a job server. Give the dashboard's address: "
            "http://HOST:8265, or https:// behind a proxy."
        )
    return address


def authentication_message(address: str, token: Token | None, said: str) -> str:
    """The error for a token that is missing, was removed on the way, or is refused."""
    if token is None:
        return f"The cluster at {address} requires a token, and none was found. {WHERE_TO_PUT_IT}"
    if "Authentication required" in said:
        return (
            f"The cluster at {address} received no token, although {token.source} has one. Check "
            "whether a proxy on the way removes the Authorization header."
        )
    return (
        f"The cluster at {address} refuses {token!r}: it belongs to another cluster, or is "
        "outdated. "
        f"{WHERE_TO_PUT_IT}"
    )


def error_text(error: BaseException) -> str:
    """An error's message; of a traceback from the server, the last line."""
    lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    is_traceback = "Traceback" in "".join(lines[:2])
    return "\n".join(lines[-1:] if is_traceback else lines[:20]).strip(" .") + "."
