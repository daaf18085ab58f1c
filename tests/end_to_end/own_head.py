"""A Ray head of a test's own, started and ended by Ray's own command, with a token."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.end_to_end.local_cluster import ROOT, free_port, remove

START_S = 120.0


@dataclass(frozen=True)
class Head:
    """A head, and what the processes need that talk to it.

    Args:
        folder: Ray's temporary one.
        address: of its node, 127.0.0.x.
        options: more of `ray start`.
        cpus: of the head's node.
    """

    folder: Path
    address: str
    port: int
    environment: dict[str, str]
    options: tuple[str, ...]
    cpus: int

    @property
    def gcs_address(self) -> str:
        return f"{self.address}:{self.port}"

    def processes(self) -> list[psutil.Process]:
        """All that know the folder: Ray's own, and workers."""
        found = []
        for one in psutil.process_iter():
            with suppress(psutil.Error):
                if one.pid != os.getpid() and str(self.folder) in " ".join(one.cmdline()):
                    found.append(one)
        return found

    def gcs(self) -> psutil.Process:
        (found,) = (one for one in self.processes() if one.name() == "gcs_server")
        return found

    def start(self) -> None:
        self.ray(
            *("start", "--head", f"--port={self.port}", f"--node-ip-address={self.address}"),
            *(f"--temp-dir={self.folder}", f"--num-cpus={self.cpus}"),
            *("--include-dashboard=false", "--disable-usage-stats"),
            *(f"--object-store-memory={200 << 20}", *self.options),
        )

    def kill(self) -> None:
        """End all its processes at once, as a machine does that is lost."""
        while left := self.processes():
            for one in left:
                with suppress(psutil.Error):
                    one.kill()
            psutil.wait_procs(left, timeout=5)

    def ray(self, *words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "ray.scripts.scripts", *words],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=START_S,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@contextmanager
def own_head(
    folder: Path,
    address: str,
    *options: str,
    cpus: int = 4,
    variables: Mapping[str, str] | None = None,
) -> Iterator[Head]:
    """A head that runs.

    Args:
        folder: `short_folder()`.
        variables: more of its environment.
    """
    own = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    rays = {
        "RAY_TMPDIR": str(folder),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
    }
    (folder / "ray").mkdir()
    environment = {**own, **rays, **(variables or {})}
    head = Head(folder, address, free_port(address), environment, options, cpus)
    try:
        head.start()
        yield head
    finally:
        head.kill()


@contextmanager
def short_folder() -> Iterator[Path]:
    """Unix sockets allow 107 bytes."""
    folder = Path(tempfile.mkdtemp(prefix="mgrpo-r-"))
    try:
        yield folder
    finally:
        remove(folder)


@contextmanager
def training(head: Head, recipe: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """The run's process, and where it writes."""
    log = recipe.with_name("log")
    with log.open("a") as said:
        run = subprocess.Popen(
            [sys.executable, "-m", "mgrpo", "train", str(recipe), "--run", "run"],
            cwd=ROOT,
            env={**head.environment, "PYTHONPATH": str(ROOT)},
            stdout=said,
            stderr=subprocess.STDOUT,
            text=True,
        )
    try:
        yield run, log
    finally:
        run.kill()
        run.wait()
