"""Jobs at a Ray cluster's job server: submitted, listed, followed and stopped over HTTP.

Ray's client waits for an answer for ever and lets every library's errors through; here each
call has a deadline and ends in a JobError that says what to do.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from ray.exceptions import AuthenticationError
from ray.job_submission import JobSubmissionClient

from cluster.jobs.job_token import WHERE_TO_PUT_IT, Token, find_token
from mgrpo.errors import JobError, NoServerError

DEFAULT_ADDRESS = "http://127.0.0.1:8265"
CALL_DEADLINE_S = 60.0  # Ray itself waits up to 30 s for the head's agent
RUN_KEY, ATTEMPT_KEY = "mgrpo_run", "mgrpo_attempt"  # of a job's metadata
STOPPED_EXIT_CODE = 143  # 128 + SIGTERM: what a stopped run's driver exits with
NO_CODE_EXIT_CODE = JobError.exit_code  # the job failed before its driver printed anything


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
    metadata: dict[str, str] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)  # of its runtime environment

    @property
    def is_over(self) -> bool:
        return self.status in ("SUCCEEDED", "FAILED", "STOPPED")

    @property
    def process_exit_code(self) -> int:
        """The exit code for a command that streamed this job to its end; 0 only for success."""
        if self.status == "SUCCEEDED":
            return 0
        if self.status == "STOPPED":
            return STOPPED_EXIT_CODE
        if not self.exit_code:
            return NO_CODE_EXIT_CODE
        return 128 - self.exit_code if self.exit_code < 0 else self.exit_code


class DeadlineClient(JobSubmissionClient):
    """Ray's client with a deadline for each call."""

    def _do_request(self, method: str, endpoint: str, **kwargs: Any) -> Any:
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
        logging.getLogger("ray").setLevel(logging.ERROR)
        for name in ("dashboard_sdk", "job.sdk"):  # set to INFO by themselves
            logging.getLogger(f"ray.dashboard.modules.{name}").setLevel(logging.ERROR)
        headers = {"Authorization": f"Bearer {self.token.value}"} if self.token else None
        with self.errors("reach"), address_of_ray(self.address):
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
                f"No Ray job server answers at {self.address}: {first_line(error)} Check that the "
                "cluster runs and that --address is its dashboard's (http://HOST:8265); a server "
                "behind a firewall is reached through a tunnel: ssh -L 8265:127.0.0.1:8265 HEAD."
            ) from error
        except (RuntimeError, ValueError, KeyError) as error:
            raise JobError(
                f"The server at {self.address} refused to {doing}: {server_words(error)}"
            ) from error

    def jobs(self) -> list[Job]:
        """Every submitted job that the cluster remembers, oldest first."""
        with self.errors("list its jobs"):
            found = self.client.list_jobs()
        jobs = [job_record(one) for one in found if one.submission_id]
        return sorted(jobs, key=lambda job: job.started_s or 0.0)

    def jobs_of(self, run: str) -> list[Job]:
        """The attempts of a run, oldest first; or the one job with that id."""
        jobs = self.jobs()
        return [job for job in jobs if job.run == run] or [
            job for job in jobs if job.submission_id == run
        ]

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
            return job_record(self.client.get_job_info(submission_id))

    def submit(
        self,
        run: str,
        command: str,
        *,
        runtime_env: dict[str, Any],
        metadata: dict[str, str],
        resources: dict[str, Any] | None = None,
    ) -> Job:
        """Submit a run. Its id is mgrpo-RUN-ATTEMPT, so concurrent submissions conflict.

        Args:
            run: the run's name.
            command: for a shell, in the package's folder.
            runtime_env: with `working_dir` a local folder, which is uploaded.
            metadata: shown in the dashboard; the run and the attempt are added.
            resources: further arguments of Ray's `submit_job`, such as entrypoint_num_cpus.

        Raises:
            JobError: the run is running already, or the server refuses it.
        """
        earlier = self.jobs_of(run)
        for job in earlier:
            if not job.is_over:
                raise JobError(already_running(job))
        attempt = 1 + max((job.attempt for job in earlier), default=0)
        with self.errors("accept the job"):
            submission_id = self.client.submit_job(
                entrypoint=command,
                submission_id=f"mgrpo-{run}-{attempt}",
                runtime_env=runtime_env,
                metadata={RUN_KEY: run, ATTEMPT_KEY: str(attempt), **metadata},
                **(resources or {}),
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
def address_of_ray(address: str) -> Iterator[None]:
    """Ray's client prefers RAY_ADDRESS to the given address; here the given one is used."""
    name = "RAY_API_SERVER_ADDRESS"
    before = os.environ.get(name)
    os.environ[name] = address
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def resolve_address(address: str | None, environment: Mapping[str, str] = os.environ) -> str:
    """The job server's address with its scheme and without a trailing slash."""
    if address is None:
        of_ray = environment.get("RAY_ADDRESS", "")
        is_http = of_ray.startswith(("http://", "https://"))
        address = environment.get("RAY_API_SERVER_ADDRESS") or (of_ray if is_http else None)
    address = (address or DEFAULT_ADDRESS).rstrip("/")
    if "://" not in address:
        return f"http://{address}"
    if not address.startswith(("http://", "https://")):
        raise JobError(
            f"{address} is not the address of a job server. Give the dashboard's address: "
            "http://HOST:8265, or https:// behind a proxy."
        )
    return address


def job_record(details: Any) -> Job:
    """A `Job` from Ray's job details."""
    metadata = dict(details.metadata or {})
    attempt = metadata.get(ATTEMPT_KEY, "1")
    return Job(
        submission_id=details.submission_id,
        run=metadata.get(RUN_KEY, details.submission_id),
        attempt=int(attempt) if attempt.isdecimal() else 1,
        status=str(getattr(details.status, "value", details.status)),
        message=details.message or "",
        exit_code=details.driver_exit_code,
        started_s=details.start_time / 1000 if details.start_time else None,
        ended_s=details.end_time / 1000 if details.end_time else None,
        entrypoint=details.entrypoint,
        metadata=metadata,
        variables=dict((details.runtime_env or {}).get("env_vars") or {}),
    )


def already_running(job: Job) -> str:
    return (
        f"The run {job.run} is {job.status.lower()} already, as job {job.submission_id}. Stream "
        f"its log with `mgrpo logs {job.run} --follow`, stop it with `mgrpo stop {job.run}`, or "
        "give this "
        "one another name: --run NAME."
    )


def authentication_message(address: str, token: Token | None, said: str) -> str:
    """The error for a missing token or for a refused one: they have different remedies."""
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


def first_line(error: BaseException) -> str:
    """An error's message, without the layers that libraries wrap around it."""
    text = str(error).strip().splitlines()
    line = text[0] if text else type(error).__name__
    return line if line.endswith(".") else f"{line}."


def server_words(error: BaseException) -> str:
    """The server's answer: the last line of its traceback if it sent one."""
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    if len(lines) > 1 and "Traceback" in "".join(lines[:2]):
        return lines[-1].rstrip(" .") + "."
    return "\n".join(lines[:20]).rstrip(".") + "." if lines else type(error).__name__
