"""Connects to Ray, or starts a local Ray for one run and stops it."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import shutil
import signal
import sys
import tempfile
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import ray
import yaml
from ray._private import ray_constants
from ray._private.runtime_env import packaging
from ray._private.thirdparty.pathspec.patterns import GitWildMatchPattern
from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]
from ray.exceptions import AuthenticationError, RpcError

from cluster import own_ray
from cluster.folders import ENGINE_PREFIX, RAY_PREFIX, RAY_SUBFOLDER, ray_folder
from cluster.gcs_probe import CLIENT
from cluster.jobs.job_config import is_in_job, job_variables
from cluster.jobs.left_behind import links_not_followed
from cluster.left_over import private_folder, remove_left_over
from cluster.private_variables import handed_over, split_secrets
from cluster.reach import await_cluster, cannot_connect, open_to_all
from cluster.stacks import RUN_VARIABLE
from mgrpo.config import ClusterConfig
from mgrpo.errors import ClusterError
from mgrpo.rooms import PRIVATE_VARIABLES

REPOSITORY_ROOT = Path(__file__).resolve().parent.parent
WORKER_SETUP = {"worker_process_setup_hook": "mgrpo.rooms.prepare_ray_worker"}
"""Ray puts the current folder first in sys.path, where a user's rewards.py would shadow our
package."""
RUNTIME_ENV_FILE = Path(__file__).with_name("runtime_env.yaml")

LOOPBACK = "127.0.0.1"
"""Address of a local Ray's node. Ray's processes then listen on it alone, not on all interfaces."""
TOKEN_VARIABLES = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")

QUIET_ENVIRONMENT = {
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "TOKENIZERS_PARALLELISM": "false",
}


START_TRIES = 3
LATE = "timed out during startup"
"""Of the bare exception by which Ray says that its processes took longer than 30 s, a limit that it
does not let anybody change."""

SMALLEST_STORE_BYTES, LARGEST_STORE_BYTES = 256 << 20, 4 << 30
"""Of a local Ray's object store."""


@dataclass(frozen=True)
class Runtime:
    """A live connection to Ray."""

    is_local: bool  # started by this run, so no nodes can be added
    node_address: str
    run_id: str  # in the environment of each of the run's processes
    session_logs: Path | None  # of a local Ray
    dashboard_url: str | None = None  # where Ray has one
    token_file: Path | None = None  # of a local Ray


def allowed_environment(prefixes: list[str]) -> dict[str, str]:
    """The environment variables passed to actors: an allow-list, because a whole environment can
    exceed the limits of exec (SkyRL#224) and leaks secrets into logs."""
    return {name: value for name, value in os.environ.items() if name.startswith(tuple(prefixes))}


def actor_environment(variables: dict[str, str]) -> dict[str, str]:
    """The variables that this run adds to its actors' environment.

    Variables of a job's runtime environment reach every actor without this. Ray refuses to set such
    a variable a second time, even to the same value.
    """
    wanted = {**QUIET_ENVIRONMENT, **variables}
    return {name: value for name, value in wanted.items() if name not in job_variables()}


def code_for_actors() -> dict[str, object]:
    """The runtime environment's entries that bring this program to other machines.

    A job brought its own code, and an installed package is in every node's image; a clone is
    uploaded, without its development files, secrets and links that lead out of it.
    """
    if is_in_job() or not (REPOSITORY_ROOT / "pyproject.toml").is_file():
        return {}
    excludes = yaml.safe_load(RUNTIME_ENV_FILE.read_text(encoding="utf-8"))["excludes"]
    is_excluded = packaging._get_excludes(REPOSITORY_ROOT, excludes)
    for link, reason in links_not_followed(REPOSITORY_ROOT, REPOSITORY_ROOT, is_excluded):
        path = link.relative_to(REPOSITORY_ROOT).as_posix()
        print(f"note: not sent to the cluster: {path} {reason}", file=sys.stderr, flush=True)
        excludes.append(f"/{GitWildMatchPattern.escape(path)}")
    return {"working_dir": str(REPOSITORY_ROOT), "excludes": excludes}


@contextmanager
def ray_runtime(
    config: ClusterConfig, *, num_cpus: float, logs_to: Path | None
) -> Iterator[Runtime]:
    """Connect to the cluster that the recipe names, or run a local Ray.

    Args:
        config: where to, and which variables to pass on.
        num_cpus: logical CPUs for a local Ray: what the plan asks for. On a small machine that
            this exceeds its cores on purpose: engines and learner take turns.
        logs_to: actor logs of a local Ray are copied here when it ends.

    Raises:
        ClusterError: the cluster does not answer, or refuses the token; or no folder for the files
        of a local Ray is available.
    """
    # A process id would not be unique: drivers of two nodes may have the same.
    run_id = f"mgrpo-{uuid.uuid4().hex[:12]}"
    options: dict[str, object] = {
        "log_to_driver": False,
        "configure_logging": False,
        "namespace": run_id,  # names of actors are unique in here
    }
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if config.starts_ray:
        refuse_local_in_job(config.address)
        options["include_dashboard"] = config.dashboard
        # Its processes inherit this one's variables. What is handed over Ray writes to its logs.
        environment = actor_environment({RUN_VARIABLE: run_id})
        yield from local_ray(environment, options, num_cpus=num_cpus, logs_to=logs_to)
        return
    address, deadline_s = await_cluster(config), config.deadlines.connect_s
    variables = {**allowed_environment(config.env_prefixes), RUN_VARIABLE: run_id}
    environment, secret = split_secrets(actor_environment(variables))
    if secret and address.startswith(CLIENT):  # that server has no such store
        print(f"note: through {CLIENT} Ray logs {', '.join(secret)}", file=sys.stderr, flush=True)
        environment, secret = environment | secret, {}
    environment[PRIVATE_VARIABLES] = " ".join(secret)
    runtime_env = {"env_vars": environment, **WORKER_SETUP, **code_for_actors()}
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(handed_over(address, run_id, secret, deadline_s))
            url = init_ray(address=address, runtime_env=runtime_env, **options)
        except (AuthenticationError, ConnectionError, ValueError, RpcError) as error:
            # Ray reports a wrong token as a failed connection.
            raise ClusterError(cannot_connect(config, str(error))) from error
        stack.callback(ray.shutdown)
        head = address if address.startswith(CLIENT) else ray.get_runtime_context().gcs_address
        if said := open_to_all(head, os.environ):
            print(f"warning: {said}", file=sys.stderr, flush=True)
        yield Runtime(False, ray.util.get_node_ip_address(), run_id, None, url)


def refuse_local_in_job(address: str) -> None:
    if is_in_job():
        raise ClusterError(
            f"cluster.address is {address!r}, so this job would start a local Ray on its driver's "
            "node and not use the cluster. Set cluster.address: auto."
        )


def local_ray(
    environment: dict[str, str],
    options: dict[str, object],
    *,
    num_cpus: float,
    logs_to: Path | None,
) -> Iterator[Runtime]:
    """A local Ray for one run; stops it at the end."""
    place, said = ray_folder()
    if said:
        print(f"note: {said}", file=sys.stderr, flush=True)
    folder = private_folder(place, RAY_PREFIX)
    # vLLM does not delete its sockets: they are deleted with this folder.
    environment = {"VLLM_RPC_BASE_PATH": str(folder), **environment}
    if said:  # a short TMPDIR also for other sockets, such as those of multiprocessing
        (folder / "tmp").symlink_to(tempfile.gettempdir())
        environment = {**environment, "TMPDIR": str(folder / "tmp")}
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # Ray starts workers at niceness 15. Beside other programs of the machine they then get a small
    # part of its cores, and the driver's own processes a large one.
    os.environ.setdefault("RAY_worker_niceness", "0")
    # The GCS keeps 100,000 calls for the dashboard: it grew by 0.3 MiB a step.
    os.environ.setdefault("RAY_task_events_max_num_task_in_gcs", "1000")
    try:
        options |= {
            "address": "local",
            "num_cpus": max(1, int(num_cpus + 0.999)),
            "_temp_dir": str(folder / RAY_SUBFOLDER),
            "_node_ip_address": LOOPBACK,
            "object_store_memory": object_store_bytes(),
            "runtime_env": {
                "env_vars": {**environment, "PYTHONPATH": str(REPOSITORY_ROOT)},
                **WORKER_SETUP,
            },
        }
        with token_of_its_own(folder) as token:
            try:
                with this_machine_alone():
                    url = start_local(options, folder)
                own_ray.remember()
                logs = folder / RAY_SUBFOLDER / "session_latest" / "logs"
                yield Runtime(True, LOOPBACK, environment[RUN_VARIABLE], logs, url, token)
            finally:
                own_ray.shut_down()
                # An actor that was still starting, or hung, was killed: it has left its own.
                remove_left_over(Path(tempfile.gettempdir()), ENGINE_PREFIX)
    finally:
        try:
            if logs_to is not None:
                copy_actor_logs(folder / RAY_SUBFOLDER, logs_to)
        except OSError as error:  # such as a full disk: it must not hide the run's own error
            print(f"warning: the actors' logs were not kept: {error}", file=sys.stderr)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def token_of_its_own(folder: Path) -> Iterator[Path]:
    """Ray's processes answer those alone who know a token that only this user can read, whatever
    the environment says of tokens."""
    file = folder / "token"
    file.touch(mode=0o600)
    file.write_text(secrets.token_hex(32), encoding="ascii")
    before = {name: os.environ.pop(name) for name in TOKEN_VARIABLES if name in os.environ}
    os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(file)}
    read_token_again()
    try:
        yield file
    finally:
        for name in TOKEN_VARIABLES:
            os.environ.pop(name, None)
        os.environ |= before
        read_token_again()


def read_token_again() -> None:
    """Ray keeps what it has once read of its variables and of the token."""
    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()


@contextmanager
def this_machine_alone() -> Iterator[None]:
    """Ray starts as it does on a Mac: it would replace 127.0.0.1 by an address that other machines
    reach, and its processes would listen on all interfaces."""
    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


def start_local(options: dict[str, object], folder: Path) -> str | None:
    """Start Ray's processes, again if a busy machine starts them too slowly for Ray.

    Args:
        folder: of their files; what a failed try leaves there is deleted.

    Raises:
        ClusterError: they did not start in START_TRIES tries.
    """
    number = 0
    while True:
        number += 1
        try:
            return init_ray(**options)
        except Exception as error:
            if LATE not in str(error):
                raise
            end_processes_of(folder)
            load, cores = os.getloadavg()[0], os.cpu_count()
            said = (
                f"Ray's processes did not start within Ray's own limit of 30 s (try {number} of "
                f"{START_TRIES}). The machine's load is {load:.0f} on {cores} cores"
            )
            if number == START_TRIES:
                raise ClusterError(
                    f"{said}: start again when it has less to do, or use a Ray that runs already "
                    "(ray start --head; cluster.address: auto)."
                ) from error
            print(f"note: {said}; trying again", file=sys.stderr, flush=True)


def end_processes_of(folder: Path) -> None:
    """Kill this process's children that name the folder, and delete what they wrote."""
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if str(folder) in " ".join(child.cmdline()):
                child.kill()
                child.wait(timeout=10)
    shutil.rmtree(folder / RAY_SUBFOLDER, ignore_errors=True)


def object_store_bytes() -> int:
    """Room for the columns of a step and of the next, as far as the machine's shared memory goes.

    Ray takes memory as objects come; what does not fit goes to disk.
    """
    shared = Path("/dev/shm")
    free = shutil.disk_usage(shared).free if shared.is_dir() else 0
    return max(SMALLEST_STORE_BYTES, min(LARGEST_STORE_BYTES, free // 4))


def init_ray(**options: object) -> str | None:
    """`ray.init` that keeps our SIGTERM handler; Ray installs its own.

    Returns:
        The dashboard's address, where there is one.
    """
    handler = signal.getsignal(signal.SIGTERM)
    logging.getLogger("ray").setLevel(logging.ERROR)  # no start-up messages
    address = ray.init(**options).dashboard_url
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)
    return f"http://{address}" if address else None


def copy_actor_logs(ray_folder: Path, destination: Path) -> None:
    """Keep the actors' logs, without Ray's internal ones."""
    for log in (ray_folder / "session_latest" / "logs").glob("worker-*"):
        if log.is_file() and log.stat().st_size > 0:
            destination.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(log, destination / log.name)
