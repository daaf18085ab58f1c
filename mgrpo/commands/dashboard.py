"""`mgrpo dashboard`: the curves of a cluster's runs, in Prometheus and, if installed, Grafana.

Light to import: the command imports heavy packages when it runs.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from mgrpo.errors import ClusterError, RunInterrupted
from mgrpo.training.stop_signals import StopSignals, signals_as_errors

if TYPE_CHECKING:
    from cluster.jobs.job_token import Token
    from cluster.monitoring.services import Service

DEADLINE_S = 60.0
SHUTDOWN_S = 10.0  # of each program, before it is killed
HELD_S = 5.0  # longest that a signal waits for a program to be begun
WATCH_S = 2.0  # between looks at whether the programs still run
LISTED_S = 20.0  # after which Prometheus should know of the cluster's nodes
EXAMPLES = """\
examples:
  mgrpo dashboard                                   a cluster on this machine
  mgrpo dashboard --address http://127.0.0.1:8266   the address that `mgrpo train` prints
  mgrpo dashboard --data ~/mgrpo-metrics            keep the measurements

Run it where the cluster's nodes can be reached, such as on its head node, and reach it from
elsewhere through a tunnel: ssh -L 9090:127.0.0.1:9090 -L 3000:127.0.0.1:3000 HEAD.
"""


def add_dashboard(parser: argparse.ArgumentParser) -> None:
    """Add the options of `mgrpo dashboard` to its parser."""
    parser.epilog = EXAMPLES
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "--address",
        metavar="URL",
        help="of the cluster's Ray dashboard, http://HOST:8265; default: RAY_API_SERVER_ADDRESS, "
        "RAY_ADDRESS where it is such an address, or http://127.0.0.1:8265",
    )
    parser.add_argument(
        "--port",
        metavar="N",
        type=int,
        help="of Prometheus on 127.0.0.1; default: 9090, where Ray's dashboard looks for it, or a "
        "free one",
    )
    parser.add_argument(
        "--data", metavar="DIR", help="keep Prometheus' data here; default: deleted at the end"
    )
    parser.add_argument(
        "--prometheus", metavar="PATH", default="prometheus", help="its program, if not on PATH"
    )
    parser.add_argument("--grafana", metavar="PATH", help="its program, if not on PATH")
    parser.add_argument(
        "--no-grafana", action="store_true", help="only Prometheus, even if Grafana is installed"
    )
    parser.add_argument(
        "--deadline",
        metavar="SECONDS",
        type=float,
        default=DEADLINE_S,
        help=f"longest wait for each program to answer; default: {DEADLINE_S:g}",
    )
    parser.set_defaults(run_command=run_dashboard)


def run_dashboard(args: argparse.Namespace) -> int:
    """Start Prometheus and Grafana, print their addresses, and stop them on Ctrl-C or SIGTERM."""
    from cluster.monitoring.prometheus import find_prometheus

    program = find_prometheus(args.prometheus)  # before the seconds that the cluster takes
    address, token = reach_cluster(args.address)
    try:
        with signals_as_errors() as signals, ExitStack() as stack:
            folder = data_folder(args.data, stack)
            services = start_services(args, program, folder, address, token, stack, signals)
            say_where(address, services)
            watch(services)
    except RunInterrupted:
        print("ended")
    return 0


def reach_cluster(address: str | None) -> tuple[str, Token | None]:
    """The Ray dashboard's address, which answers, and this user's token.

    Raises:
        ClusterError: nothing answers there, or the token is not taken.
    """
    from cluster.jobs.client import resolve_address
    from cluster.jobs.job_token import WHERE_TO_PUT_IT, find_token
    from cluster.monitoring.services import answer_status

    found, token = resolve_address(address), find_token()
    headers = {"Authorization": f"Bearer {token.value}"} if token else {}
    status = answer_status(f"{found}/api/prometheus/sd", headers)
    if status == 200:
        return found, token
    if status in (401, 403):
        used = f" {token!r} was refused." if token else ""
        raise ClusterError(f"The cluster at {found} requires a token.{used} {WHERE_TO_PUT_IT}")
    what = "Nothing" if status is None else f"No Ray dashboard (status {status})"
    raise ClusterError(
        f"{what} answers at {found}. Give the address of a running cluster's dashboard: --address "
        "http://HOST:8265. A local run has one if its recipe has cluster.dashboard: true; `mgrpo "
        "train` then prints its address."
    )


def data_folder(kept: str | None, stack: ExitStack) -> Path:
    """The folder of Prometheus and Grafana; a temporary one is deleted at the end."""
    if kept is None:
        return Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mgrpo-dashboard-")))
    folder = Path(kept).expanduser().resolve()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ClusterError(f"--data {kept} cannot be used: {error}") from error
    return folder


def start_services(
    args: argparse.Namespace,
    program: str,
    folder: Path,
    address: str,
    token: Token | None,
    stack: ExitStack,
    signals: StopSignals,
) -> list[Service]:
    """Prometheus and, where it is installed, Grafana; both answer when this returns."""
    from cluster.monitoring import grafana, prometheus
    from cluster.monitoring.page import write_page
    from cluster.monitoring.services import choose_port

    write_page(folder / "page")
    token_file = None if token is None else write_secret(folder / "token", token.value, stack)
    port = choose_port(args.port, prometheus.PORT)
    signals.hold(HELD_S)  # a program that has begun must be known before all ends
    curves = prometheus.start_prometheus(
        program,
        folder,
        address=address,
        token_file=token_file,
        port=port,
        pages=folder / "page",
    )
    stack.callback(curves.stop, SHUTDOWN_S)
    signals.release()
    curves.wait_until_ready(args.deadline)
    services = [curves]
    found = None if args.no_grafana else grafana.find_grafana(args.grafana)
    if found is None and args.grafana is not None:
        raise ClusterError(f"--grafana {args.grafana}: there is no such program.")
    if found is not None:
        port = choose_port(None, grafana.PORT)
        signals.hold(HELD_S)
        boards = grafana.start_grafana(found, folder, prometheus_url=curves.url, port=port)
        stack.callback(boards.stop, SHUTDOWN_S)
        signals.release()
        boards.wait_until_ready(args.deadline)
        services.append(boards)
    return services


def write_secret(path: Path, secret: str, stack: ExitStack) -> Path:
    """A file that only this user can read; deleted at the end."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(secret)
    stack.callback(path.unlink, missing_ok=True)
    return path


def say_where(address: str, services: list[Service]) -> None:
    from cluster.monitoring.grafana import HINT

    print(f"Ray dashboard  {address}")
    print(f"Curves         {services[0].url}/user/index.html")
    print(f"Prometheus     {services[0].url} (alerts: {services[0].url}/alerts)")
    if len(services) > 1:
        print(f"Grafana        {services[1].url}/dashboards")
    else:
        print(f"Grafana        {HINT}")
    print("Ctrl-C ends them.", flush=True)


def watch(services: list[Service]) -> None:
    """Wait until a signal is raised; report each node that does not answer once.

    Raises:
        ClusterError: a program ended by itself.
    """
    silent: set[str] = set()
    began = time.monotonic()
    while True:
        time.sleep(WATCH_S)
        for service in services:
            if not service.is_running:
                raise ClusterError(
                    f"{service.name} ended with code {service.process.returncode}.\n"
                    f"{service.last_lines()}"
                )
        down = nodes_without_metrics(services[0])
        if time.monotonic() - began < LISTED_S:
            down.pop(services[0].url, None)
        for node in sorted(down.keys() - silent):
            print(f"no metrics from {node}: {down[node]}", flush=True)
        silent |= down.keys()


def nodes_without_metrics(prometheus: Service) -> dict[str, str]:
    """Address -> reason, of the nodes that Prometheus does not reach; its own if it is stuck."""
    from cluster.monitoring.prometheus import targets

    try:
        found = targets(prometheus.url)
    except ClusterError as error:
        return {prometheus.url: str(error)}
    if not found:
        return {prometheus.url: f"it knows of no nodes.\n{prometheus.last_lines()}"}
    return {one.address: one.error for one in found if one.error}
