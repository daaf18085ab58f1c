"""A job server as Ray's, as far as HTTP goes: for what a real one does not do on demand.

Tests against a real one are in tests/end_to_end/test_cluster_jobs.py.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from aiohttp import WSCloseCode, web

START_DEADLINE_S = 20


class ScriptedJobServer:
    """Jobs that a test changes while they are looked at."""

    def __init__(self, token: str | None = None) -> None:
        self.token = token
        self.jobs: dict[str, dict[str, Any]] = {}
        self.logs: dict[str, str] = {}
        self.submitted: list[dict[str, Any]] = []
        self.packages: dict[str, bytes] = {}  # zip files by name
        self.tails: list[list[str]] = []  # what each stream of a log sends before it breaks off
        self.silent_streams_until_over: list[str] = []  # jobs that fail while theirs is read
        self.url = ""

    def add(self, submission_id: str, status: str, **changes: Any) -> None:
        self.jobs[submission_id] = {
            "type": "SUBMISSION",
            "submission_id": submission_id,
            "status": status,
            "entrypoint": "python -m mgrpo train recipe.yaml",
            "start_time": 1000 * (1 + len(self.jobs)),
            "metadata": {},
            **changes,
        }

    def add_run(self, run: str, attempt: int, status: str, **changes: Any) -> None:
        metadata = {"mgrpo_run": run, "mgrpo_attempt": str(attempt)}
        self.add(f"mgrpo-{run}-{attempt}", status, metadata=metadata, **changes)

    # --- what is served ---

    def application(self) -> web.Application:
        app = web.Application(middlewares=[self.check_token], client_max_size=2**27)
        app.router.add_get("/api/version", self.version)
        app.router.add_get("/api/jobs/", self.list_jobs)
        app.router.add_post("/api/jobs/", self.submit)
        app.router.add_get("/api/jobs/{id}", self.describe)
        app.router.add_get("/api/jobs/{id}/logs", self.log)
        app.router.add_get("/api/jobs/{id}/logs/tail", self.tail)
        app.router.add_post("/api/jobs/{id}/stop", self.stop)
        app.router.add_get("/api/packages/{protocol}/{name}", self.has_package)
        app.router.add_put("/api/packages/{protocol}/{name}", self.take_package)
        return app

    @web.middleware
    async def check_token(self, request: web.Request, handler: Any) -> web.StreamResponse:
        if self.token is not None:
            header = request.headers.get("Authorization")
            if header is None:
                return web.Response(status=401, text="Unauthorized: Missing authentication token")
            if header != f"Bearer {self.token}":
                return web.Response(status=403, text="Forbidden: Invalid authentication token")
        response: web.StreamResponse = await handler(request)
        return response

    async def version(self, request: web.Request) -> web.Response:
        return web.json_response({"version": "4", "ray_version": "2.60.0", "ray_commit": "x"})

    async def list_jobs(self, request: web.Request) -> web.Response:
        return web.json_response(list(self.jobs.values()))

    async def submit(self, request: web.Request) -> web.Response:
        asked = await request.json()
        self.submitted.append(asked)
        self.add(asked["submission_id"], "PENDING", metadata=asked["metadata"])
        answer = {"job_id": asked["submission_id"], "submission_id": asked["submission_id"]}
        return web.json_response(answer)

    async def describe(self, request: web.Request) -> web.Response:
        return web.json_response(self.jobs[request.match_info["id"]])

    async def log(self, request: web.Request) -> web.Response:
        return web.json_response({"logs": self.logs[request.match_info["id"]]})

    async def tail(self, request: web.Request) -> web.WebSocketResponse:
        stream = web.WebSocketResponse()
        await stream.prepare(request)
        if request.match_info["id"] in self.silent_streams_until_over:
            self.jobs[request.match_info["id"]]["status"] = "FAILED"
            await stream.receive()  # until the client leaves
            return stream
        for piece in self.tails.pop(0) if self.tails else []:
            await stream.send_str(piece)
        if not self.tails:  # the last one: the job is over with it
            self.jobs[request.match_info["id"]]["status"] = "SUCCEEDED"
            await stream.close()
        else:
            await stream.close(code=WSCloseCode.ABNORMAL_CLOSURE)
        return stream

    async def stop(self, request: web.Request) -> web.Response:
        self.jobs[request.match_info["id"]]["status"] = "STOPPED"
        return web.json_response({"stopped": True})

    async def has_package(self, request: web.Request) -> web.Response:
        return web.Response(status=200 if request.match_info["name"] in self.packages else 404)

    async def take_package(self, request: web.Request) -> web.Response:
        self.packages[request.match_info["name"]] = await request.read()
        return web.Response()


@contextmanager
def serving(server: ScriptedJobServer) -> Iterator[ScriptedJobServer]:
    """Serve it on a free port of the loopback interface, from a thread of its own."""
    loop = asyncio.new_event_loop()
    runner = web.AppRunner(server.application())

    async def start() -> str:
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        return f"http://127.0.0.1:{runner.addresses[0][1]}"

    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        starting = asyncio.run_coroutine_threadsafe(start(), loop)
        server.url = starting.result(timeout=START_DEADLINE_S)
        yield server
    finally:
        ending = asyncio.run_coroutine_threadsafe(runner.cleanup(), loop)
        ending.result(timeout=START_DEADLINE_S)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(timeout=START_DEADLINE_S)
        loop.close()
