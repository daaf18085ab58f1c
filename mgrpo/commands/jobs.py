"""`mgrpo status`, `mgrpo stop` and `mgrpo logs`: runs that were submitted to a cluster; status and
logs of a run of this machine.

Light to import: the command imports heavy packages when it runs.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mgrpo.commands.runs import local_run, show_local_logs, show_local_status
from mgrpo.commands.submit import ADDRESS_HELP, stream_to_end, write_through
from mgrpo.errors import DeadlineError, JobError, NoServerError
from mgrpo.records.json_object import JsonObject

if TYPE_CHECKING:
    from rich.table import Table

    from cluster.jobs.client import Job, JobServer

RUN_HELP = "the run's name, or a job's submission id"
ANY_RUN_HELP = f"a run of this machine (mgrpo runs), or of a cluster: {RUN_HELP}"
STOP_MARGIN_S = 30.0  # beyond the time after which Ray kills the job: for the state to be updated
DEFAULT_STOP_WAIT_S = 3.0  # Ray's default, for a job that sets no other
POLL_S = 1.0
TAIL_LINES = 5
TABLE_WIDTH = 200
GOODBYE = "Stopped by SIGTERM."  # of a driver that ended by itself; Ray keeps no exit code of it


def add_status(parser: argparse.ArgumentParser) -> None:
    listed = "default: list a cluster's jobs"
    add_target(parser, nargs="?", help=f"{ANY_RUN_HELP}; {listed}")
    parser.add_argument("--json", action="store_true", help="a list of attempts, oldest first")
    parser.set_defaults(run_command=run_status)


def add_stop(parser: argparse.ArgumentParser) -> None:
    add_target(parser)
    wait = "seconds to wait for its end; 0: do not wait. Default: the job's own stop deadline"
    parser.add_argument("--wait", metavar="S", type=float, help=wait)
    parser.set_defaults(run_command=run_stop)


def add_logs(parser: argparse.ArgumentParser) -> None:
    add_target(parser, help=ANY_RUN_HELP)
    follow = "stream until the job ends; Ctrl-C does not stop the job"
    parser.add_argument("--follow", action="store_true", help=follow)
    parser.set_defaults(run_command=run_logs)


def add_target(
    parser: argparse.ArgumentParser, *, nargs: str | None = None, help: str = RUN_HELP
) -> None:
    parser.add_argument("run", metavar="RUN", nargs=nargs, help=help)
    parser.add_argument("--address", metavar="URL", help=ADDRESS_HELP)


def run_status(args: argparse.Namespace) -> int:
    if (run_dir := own_run(args)) is not None:
        return show_local_status(run_dir, as_json=args.json)
    try:
        return show_jobs(args)
    except NoServerError as error:
        raise NoServerError(f"{error} mgrpo runs lists the runs of this machine.") from error


def show_jobs(args: argparse.Namespace) -> int:
    from rich.console import Console

    from cluster.jobs.client import JobServer

    server = JobServer(args.address)
    if args.run is not None:
        server.latest(args.run)  # raises where the cluster knows no such run
    jobs = server.jobs(args.run)
    if args.json:
        print(json.dumps([job_facts(job, time.time()) for job in jobs], indent=2))
        return 0
    if not jobs:
        print(f"No job was submitted to {server.address} since it was started.")
        return 0
    console = Console(highlight=False)
    if not console.is_terminal:  # a log or a pipe: nothing to fit into
        console.width = TABLE_WIDTH
    console.print(jobs_table(jobs, time.time()))
    if args.run is not None:
        latest = jobs[-1]
        if latest.exit_code is None and latest.status == "FAILED":  # its log does not say why
            print(f"\n{latest.message.strip()}")
        if lines := last_lines(server.logs(latest), TAIL_LINES):
            print(f"\nlast lines of {latest.submission_id}:\n" + "\n".join(lines))
    return 0


def own_run(args: argparse.Namespace) -> Path | None:
    """The folder of a run of this machine; None where a cluster's is meant."""
    return None if args.run is None or args.address is not None else local_run(args.run)


def job_facts(job: Job, now_s: float) -> JsonObject:
    """One attempt in plain values; times in seconds, null where there is none yet."""
    return {
        "run": job.run,
        "attempt": job.attempt,
        "submission_id": job.submission_id,
        "state": job.status.lower(),
        "is_over": job.is_over,
        "exit_code": job.process_exit_code if job.is_over else None,
        "message": job.message,
        "started_unix_s": job.started_s,
        "took_s": None if job.started_s is None else (job.ended_s or now_s) - job.started_s,
        "entrypoint": job.entrypoint,
    }


def jobs_table(jobs: Sequence[Job], now_s: float) -> Table:
    """A row per submission, oldest first."""
    from rich.table import Table

    from mgrpo.report.words import MISSING, duration

    table = Table(box=None, pad_edge=False, padding=(0, 2), header_style="dim")
    for head in ("run", "attempt", "state", "exit code", "started", "took", "job"):
        table.add_column(head, no_wrap=True)
    for job in jobs:
        facts = job_facts(job, now_s)
        started, took, code = facts["started_unix_s"], facts["took_s"], facts["exit_code"]
        table.add_row(
            job.run,
            str(job.attempt),
            facts["state"],
            MISSING if code is None else str(code),
            MISSING if not started else time.strftime("%m-%d %H:%M", time.localtime(started)),
            MISSING if took is None else duration(took),
            job.submission_id,
        )
    return table


def run_stop(args: argparse.Namespace) -> int:
    from cluster.jobs.client import JobServer

    server = JobServer(args.address)
    job = server.latest(args.run)
    if job.is_over:
        print(f"{job.submission_id} is over already: {job.status.lower()}")
        return 0
    wait_s = args.wait if args.wait is not None else stop_wait_s(job) + STOP_MARGIN_S
    server.stop(job)
    if wait_s <= 0:
        print(f"asked {job.submission_id} to stop")
        return 0
    print(
        f"stopping {job.submission_id}: it finishes its current update and writes a checkpoint "
        f"(waiting up to {wait_s:.0f} s)",
        flush=True,
    )
    return tell_stopped(server, wait_for_end(server, job, wait_s))


def stop_wait_s(job: Job) -> float:
    """After how long Ray kills the job, as the job was submitted, in seconds."""
    try:
        return float(job.variables.get("RAY_JOB_STOP_WAIT_TIME_S", DEFAULT_STOP_WAIT_S))
    except ValueError:
        return DEFAULT_STOP_WAIT_S


def wait_for_end(server: JobServer, job: Job, wait_s: float) -> Job:
    end = time.monotonic() + wait_s
    while not (job := server.job(job.submission_id)).is_over:
        if time.monotonic() > end:
            raise DeadlineError(
                f"the end of {job.submission_id}", deadline_s=wait_s, setting="--wait"
            )
        time.sleep(POLL_S)
    return job


def tell_stopped(server: JobServer, job: Job) -> int:
    """Print the outcome of a job that was asked to stop. 0: stopped with a checkpoint."""
    log = server.logs(job)
    if job.status != "STOPPED":  # it finished by itself in the meantime
        print(f"{job.submission_id} had already ended: {job.status.lower()}")
    elif GOODBYE in log:
        write_through("".join(f"  {line}\n" for line in last_lines(log, TAIL_LINES)))
        print(f"stopped. Submit {job.run} again to resume.")
    else:
        print(
            f"{job.submission_id} was killed before it could write a checkpoint. Submitted again, "
            "it resumes from its newest earlier checkpoint, if there is one.",
            file=sys.stderr,
        )
        return JobError.exit_code
    return 0


def last_lines(log: str, count: int) -> list[str]:
    return [line for line in log.splitlines() if line.strip()][-count:]


def run_logs(args: argparse.Namespace) -> int:
    from cluster.jobs.client import JobServer

    if not args.follow and (run_dir := own_run(args)) is not None:
        return show_local_logs(run_dir)
    server = JobServer(args.address)
    job = server.latest(args.run)
    if args.follow:
        return stream_to_end(server, job, args.address)
    write_through(server.logs(job))
    return 0
