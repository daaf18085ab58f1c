"""Starts helper programs, waits until they answer, and ends them."""

from __future__ import annotations

import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path

from mgrpo.errors import ClusterError

HOST = "127.0.0.1"
POLL_S = 0.2
ANSWER_DEADLINE_S = 5.0
LOG_LINES = 15  # shown of a program that did not start


class Service:
    """One program with an HTTP address on this machine."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        url: str,
        ready_path: str,
        log: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Start it; `wait_until_ready` waits for its answer.

        Args:
            name: for messages.
            command: program and arguments.
            url: where it will answer.
            ready_path: answers with 200 once it is ready.
            log: gets what the program prints.
            environment: all of its environment; None: this process's.
        """
        self.name, self.url, self.ready_url, self.log = name, url, url + ready_path, log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=None if environment is None else dict(environment),
                start_new_session=True,  # Ctrl-C is for us, and we end it in order
            )

    @property
    def is_running(self) -> bool:
        return self.process.poll() is None

    def wait_until_ready(self, deadline_s: float) -> None:
        """Return once it answers.

        Raises:
            ClusterError: it ended, or did not answer in time; with the end of its log.
        """
        end = time.monotonic() + deadline_s
        while not answers(self.ready_url):
            if not self.is_running:
                raise ClusterError(
                    f"{self.name} failed at its start with exit code {self.process.returncode}.\n"
                    f"{self.last_lines()}"
                )
            if time.monotonic() > end:
                raise ClusterError(
                    f"{self.name} did not answer at {self.ready_url} within {deadline_s:g} s. "
                    f"Raise --deadline if it is merely slow.\n{self.last_lines()}"
                )
            time.sleep(POLL_S)

    def last_lines(self) -> str:
        """The last lines of the program's output."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(f"  {line}" for line in lines[-LOG_LINES:])

    def stop(self, deadline_s: float) -> None:
        """End it: first by SIGTERM, then by SIGKILL after `deadline_s`."""
        if not self.is_running:
            return
        self.process.terminate()
        try:
            self.process.wait(timeout=deadline_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(timeout=deadline_s)


def answers(url: str) -> bool:
    """Whether something answers there with success."""
    return answer_status(url) == 200


def answer_status(url: str, headers: Mapping[str, str] | None = None) -> int | None:
    """The HTTP status of an answer; None where there is none."""
    try:
        request = urllib.request.Request(url, headers=dict(headers or {}))
        with urllib.request.urlopen(request, timeout=ANSWER_DEADLINE_S) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except (OSError, ValueError):
        return None


def is_free(port: int) -> bool:
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            server.bind((HOST, port))
        except OSError:
            return False
        return True


def choose_port(wanted: int | None, usual: int) -> int:
    """The requested port; otherwise the usual one if it is free, or any.

    Raises:
        ClusterError: the requested port is in use.
    """
    if wanted is not None:
        if not is_free(wanted):
            raise ClusterError(
                f"Port {wanted} of {HOST} is in use. Choose another, or omit --port."
            )
        return wanted
    if is_free(usual):
        return usual
    with socket.socket() as server:
        server.bind((HOST, 0))
        return int(server.getsockname()[1])
