"""The report as a page that follows its runs: served to this machine, drawn after each step."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path

from aiohttp import web

from mgrpo.errors import RunDirectoryError
from mgrpo.metrics.log import ALARMS_FILE, EVALUATION_FILE, METRICS_FILE, ROLLOUTS_DIR
from mgrpo.report.page import report_page
from mgrpo.report.run_data import CONFIG_FILE, load_run
from mgrpo.report.several import comparison_page

HOST = "127.0.0.1"
SAFE_NAMES = (HOST, "localhost", "[::1]")
"""Names of this machine in a browser's address. Another site's name, bound to this address, would
let that site's scripts read the page."""
FOLLOWED = (CONFIG_FILE, METRICS_FILE, EVALUATION_FILE, ALARMS_FILE)
POLL_S = 1.0
SHUTDOWN_S = 1.0
"""For pages that are still connected."""


class LiveReport:
    """The page about some runs, drawn when a request finds that their files have changed."""

    def __init__(self, run_dirs: Sequence[Path], *, poll_s: float = POLL_S) -> None:
        """
        Args:
            run_dirs: one run, whose own report is shown, or several, which are compared.
            poll_s: seconds between two looks at the runs' files.
        """
        self.run_dirs, self.poll_s = run_dirs, poll_s
        self._drawn = ("", "")  # the state that is drawn, and its page
        self._drawing = asyncio.Lock()

    def state(self) -> str:
        """Changes when a run writes a step, its completions, an evaluation or an alarm."""
        known = []
        for folder in self.run_dirs:
            rollouts = sorted((folder / ROLLOUTS_DIR).glob("*.jsonl"))
            for file in [*(folder / name for name in FOLLOWED), *rollouts]:
                with suppress(OSError):
                    status = file.stat()
                    known.append((str(file), status.st_size, status.st_mtime_ns))
        return hashlib.sha256(repr(known).encode()).hexdigest()[:16]

    async def page(self) -> str:
        """
        Raises:
            RunDirectoryError: a directory holds no run, or a damaged one.
        """
        async with self._drawing:
            if (state := self.state()) != self._drawn[0]:
                self._drawn = (state, await asyncio.to_thread(self._draw, state))
            return self._drawn[1]

    def _draw(self, state: str) -> str:
        if len(self.run_dirs) == 1:
            return report_page(self.run_dirs[0], live_state=state)
        return comparison_page(self.run_dirs, live_state=state)

    async def show(self, request: web.Request) -> web.Response:
        try:
            page = await self.page()
        except RunDirectoryError as error:
            # A file may be half written: the browser asks again.
            return web.Response(text=f"{error}\n", status=503, headers={"Refresh": "5"})
        return web.Response(
            text=page, content_type="text/html", headers={"Cache-Control": "no-store"}
        )

    async def events(self, request: web.Request) -> web.StreamResponse:
        """Server-sent events: the state at once, and each time that it changes."""
        answer = web.StreamResponse(
            headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"}
        )
        await answer.prepare(request)
        told = ""
        with suppress(ConnectionResetError):  # the browser has left
            while True:
                # A comment line else, whose failure shows that the browser has left.
                line = ": no change" if (state := self.state()) == told else f"data: {state}"
                await answer.write(f"{line}\n\n".encode())
                told = state
                await asyncio.sleep(self.poll_s)
        return answer


def make_app(report: LiveReport) -> web.Application:
    app = web.Application(middlewares=[refuse_other_names])
    app.add_routes([web.get("/", report.show), web.get("/events", report.events)])
    return app


@web.middleware
async def refuse_other_names(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    name = request.host.rsplit(":", 1)[0]
    if name not in SAFE_NAMES:
        reason = f"This page is served as http://{HOST}, not as {name}: use a tunnel (ssh -L).\n"
        return web.Response(text=reason, status=403)
    return await handler(request)


def serve_report(run_dirs: Sequence[Path], port: int, announce: Callable[[str], None]) -> None:
    """Serve the page on 127.0.0.1 until SIGINT or SIGTERM.

    Args:
        announce: is called with the page's address once it answers.

    Raises:
        RunDirectoryError: a directory holds no run, or a damaged one.
        OSError: the port is taken.
    """
    for folder in run_dirs:
        load_run(folder)
    web.run_app(
        make_app(LiveReport(run_dirs)),
        host=HOST,
        port=port,
        print=lambda _: announce(f"http://{HOST}:{port}"),
        access_log=None,
        shutdown_timeout=SHUTDOWN_S,
    )
