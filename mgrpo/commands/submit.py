"""`mgrpo submit`: check a recipe here, train it on a cluster, and stream the job's log.

Light to import: the command imports heavy packages when it runs.
"""

from __future__ import annotations

import argparse
import math
import os
import shlex
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mgrpo.errors import ConfigError, ConfigFault, JobError
from mgrpo.records.json_object import JsonObject
from mgrpo.rooms import ROOT

if TYPE_CHECKING:
    from cluster.jobs.client import Job, JobServer
    from mgrpo.config import DeadlinesConfig, RunConfig

ADDRESS_HELP = (
    "the cluster's job server, http://HOST:8265 (its dashboard). Default: RAY_API_SERVER_ADDRESS, "
    "RAY_ADDRESS, or http://127.0.0.1:8265"
)
EXAMPLES = """\
examples:
  mgrpo submit quickstart --address http://127.0.0.1:8265
  mgrpo submit qwen2.5_math_7b steps=200 --run wide --env WANDB_MODE=offline --detach
  mgrpo logs wide --follow
  mgrpo stop wide                               a checkpoint is written first
  mgrpo submit qwen2.5_math_7b steps=200 --run wide      ... and it resumes

The cluster's token is read from RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token.
"""
INTERRUPTED_EXIT_CODE = 130


def add_submit(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `mgrpo submit` to its parser."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EXAMPLES
    parser.add_argument("recipe", metavar="RECIPE", help="as for `mgrpo train`")
    parser.add_argument(
        "overrides", metavar="key=value", nargs="*", help="change a key of the recipe: steps=20"
    )
    parser.add_argument("--address", metavar="URL", help=ADDRESS_HELP)
    parser.add_argument("--run", metavar="NAME", help="the run's name, instead of the recipe's")
    parser.add_argument(
        "--overwrite", action="store_true", help="delete an earlier run of the same name first"
    )
    parser.add_argument(
        "--detach", action="store_true", help="return once it is submitted; do not stream its log"
    )
    parser.add_argument(
        "--env",
        metavar="NAME[=VALUE]",
        action="append",
        default=[],
        help="pass this environment variable to the job, with its value here; no other is passed. "
        "Ray logs it, so a secret is refused: those are set on the cluster's nodes",
    )
    parser.add_argument(
        "--include",
        metavar="PATH",
        action="append",
        default=[],
        help="pack this file or folder too. Data and modules that the recipe names are packed "
        "automatically",
    )
    parser.add_argument(
        "--runtime-env",
        metavar="FILE",
        type=Path,
        help="start from this runtime environment instead of cluster/runtime_env.yaml",
    )
    parser.add_argument(
        "--skip-check",
        action="store_true",
        help="do not run `mgrpo check` here: data or model exist only on the cluster; the job "
        "checks there anyway",
    )
    parser.set_defaults(run_command=run_submit)


def run_submit(args: argparse.Namespace) -> int:
    from mgrpo.config.load import load_recipe

    overrides = list(args.overrides)
    if args.run is not None:
        overrides.append("name='" + args.run.replace("'", "''") + "'")
    config = load_recipe(args.recipe, overrides)
    refuse_local_address(config.cluster.address)
    variables = named_variables(args.env)
    runtime_env = read_runtime_env(args.runtime_env)

    from cluster.jobs.client import JobServer

    server = JobServer(args.address)  # before the seconds that the check takes
    server.next_attempt(config.name)  # refuses a run that is running
    if not args.skip_check:
        exit_code = check_here(config)
        if exit_code:
            return exit_code
    job = hand_in(server, config, args, runtime_env, variables)
    print(f"submitted {job.submission_id} to {server.address}", flush=True)
    if args.detach:
        print(next_steps(config.name, args.address))
        return 0
    return stream_to_end(server, job, args.address)


def check_here(config: RunConfig) -> int:
    from rich.console import Console

    from mgrpo.check import check_recipe

    report = check_recipe(config, on_cluster=True)
    report.show(Console(stderr=True, highlight=False))
    if report.exit_code:
        print(
            "Nothing was submitted. If the missing files exist on the cluster: --skip-check.",
            file=sys.stderr,
        )
    return report.exit_code


def hand_in(
    server: JobServer,
    config: RunConfig,
    args: argparse.Namespace,
    runtime_env: JsonObject,
    variables: dict[str, str],
) -> Job:
    """Pack the program and the recipe, and submit them."""
    from mgrpo.commands.job_package import RECIPE_FILE, pack
    from mgrpo.storage.provenance import git_revision

    revision = git_revision()
    if revision is not None:
        variables = {"MGRPO_REVISION": revision, **variables}
    stop_deadline = {
        "RAY_JOB_STOP_WAIT_TIME_S": str(
            stop_deadline_s(config.cluster.deadlines, config.checkpoints.on_signal_s)
        )
    }
    runtime_env["env_vars"] = {**(runtime_env.get("env_vars") or {}), **stop_deadline, **variables}
    command = ["python", "-m", "mgrpo", "train", RECIPE_FILE]
    if args.overwrite:
        command.append("--overwrite")
    metadata = {
        "recipe": str(args.recipe),
        "overrides": " ".join(args.overrides),
        "method": config.method,
        "model": config.model.path,
    }
    with tempfile.TemporaryDirectory(prefix="mgrpo-job-") as folder:
        package = pack(config, Path(folder), include=args.include)
        size_mib = package.size_bytes / 2**20
        print(f"packed {size_mib:.1f} MiB: the program, the recipe and what it names")
        for path, reason in package.left_out.items():
            print(f"note: left out: {path} {reason}", file=sys.stderr)
        runtime_env["working_dir"] = folder
        return server.submit(
            config.name, shlex.join(command), runtime_env=runtime_env, metadata=metadata
        )


def stream_to_end(server: JobServer, job: Job, address: str | None) -> int:
    """Stream the driver's log until the job is over; returns its exit code."""
    from cluster.jobs.job_log import stream_log

    try:
        job = stream_log(server, job, write_through)
    except KeyboardInterrupt:
        print(f"\nno longer streaming the log; the job continues.\n{next_steps(job.run, address)}")
        return INTERRUPTED_EXIT_CODE
    show_end(job)
    return job.process_exit_code


def show_end(job: Job) -> None:
    """A job's outcome, in a line, and what to do if it was not a success."""
    if job.status == "SUCCEEDED":
        print(f"{job.submission_id} has succeeded")
        return
    if job.status == "STOPPED":
        end = f"was stopped; submit {job.run} again to resume from its newest checkpoint"
    elif job.exit_code is None:  # the driver never ran, or was lost: its log does not say why
        end = f"has failed: {job.message.strip()}"
    else:
        end = f"has failed with exit code {job.exit_code}"
    print(f"{job.submission_id} {end}", file=sys.stderr)


def next_steps(run: str, address: str | None) -> str:
    at = f" --address {address}" if address else ""
    return (
        f"log:    mgrpo logs {run} --follow{at}\n"
        f"state:  mgrpo status {run}{at}\n"
        f"stop:   mgrpo stop {run}{at}"
    )


def write_through(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def refuse_local_address(address: str) -> None:
    if address != "auto":
        reason = "a submitted run trains on the cluster that it is submitted to."
        hint = "Leave cluster.address at auto; --address selects the cluster."
        raise ConfigError([ConfigFault("cluster.address", address, reason, hint)])


def named_variables(entries: Sequence[str]) -> dict[str, str]:
    """The variables of `--env NAME` and `--env NAME=VALUE`.

    Raises:
        JobError: a variable is named that is not set here, or whose name says that it is secret.
    """
    variables = {}
    for entry in entries:
        name, equals, value = entry.partition("=")
        if not equals and name not in os.environ:
            raise JobError(
                f"--env {name}: this variable is not set here. Set it, or give --env {name}=VALUE."
            )
        variables[name] = value if equals else os.environ[name]
    refuse_secrets(variables, "--env")
    return variables


def refuse_secrets(variables: Mapping[str, str], origin: str) -> None:
    """Refuse those whose names say that they are secret: a job's variables are not.

    Raises:
        JobError: with the names, without the values.
    """
    from cluster.private_variables import split_secrets

    _, secret = split_secrets(variables)
    if secret:
        raise JobError(
            f"{origin} {', '.join(secret)}: Ray writes a job's variables to its logs and shows "
            "them in its dashboard, and by its name this is a secret. Set it on the cluster's "
            "nodes, or name a file there that holds it, such as --env HF_TOKEN_PATH=/shared/token "
            '(docs/guides/jobs.md, "Variables and secrets").'
        )


def read_runtime_env(file: Path | None) -> JsonObject:
    """A runtime environment without the keys about the folder to upload.

    Raises:
        JobError: the file cannot be read, holds no map, or has a secret among its variables.
    """
    import yaml

    file = file or ROOT / "cluster" / "runtime_env.yaml"
    try:
        tree = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise JobError(f"The runtime environment {file} cannot be read: {error}") from error
    if not isinstance(tree, dict):
        raise JobError(f"The runtime environment {file} is not a map such as {{env_vars: ...}}.")
    refuse_secrets(tree.get("env_vars") or {}, f"{file}:")
    return {key: value for key, value in tree.items() if key not in ("working_dir", "excludes")}


def stop_deadline_s(deadlines: DeadlinesConfig, on_signal_s: float) -> int:
    """The longest that a stopped run may take by its own deadlines, in whole seconds.

    It may be in an update, whose weights then go to the engines; it writes a checkpoint, and
    engines, learner and Ray are taken down. Mostly it is seconds.
    """
    longest = deadlines.update_s + deadlines.weight_sync_s + on_signal_s + 3 * deadlines.shutdown_s
    return math.ceil(longest)
