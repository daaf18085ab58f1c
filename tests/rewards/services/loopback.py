"""A real HTTP server on the loopback address that answers as a test's script says."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

from aiohttp import web

DEADLINE_S = 30.0
Reply = Callable[[web.Request, Any], Awaitable[web.StreamResponse]]


class Server:
    """Takes a POST at any path. The replies of `script` are given first, each once."""

    def __init__(self, reply: Reply) -> None:
        self.reply = reply
        self.script: list[Reply] = []
        self.bodies: list[Any] = []
        self.headers: list[dict[str, str]] = []
        self.num_inside = 0
        self.most_inside = 0
        self.released = threading.Event()
        self.loop = asyncio.new_event_loop()
        self.url = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = json.loads(await request.read())
        self.bodies.append(body)
        self.headers.append(dict(request.headers))
        self.num_inside += 1
        self.most_inside = max(self.most_inside, self.num_inside)
        try:
            reply = self.script.pop(0) if self.script else self.reply
            return await reply(request, body)
        finally:
            self.num_inside -= 1

    async def begin(self) -> web.AppRunner:
        app = web.Application()
        app.router.add_post("/{path:.*}", self.handle)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        return runner


@contextmanager
def serving(reply: Reply) -> Iterator[Server]:
    server = Server(reply)
    thread = threading.Thread(target=server.loop.run_forever, daemon=True)
    thread.start()

    def call(coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, server.loop).result(timeout=DEADLINE_S)

    runner = call(server.begin())
    try:
        yield server
    finally:
        call(runner.cleanup())
        server.loop.call_soon_threadsafe(server.loop.stop)
        thread.join(timeout=DEADLINE_S)


def says(body: Any, status: int = 200, **headers: str) -> Reply:
    """JSON, or a text as it is."""

    async def reply(request: web.Request, asked: Any) -> web.Response:
        text = body if isinstance(body, str) else json.dumps(body)
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.Response(text=text, status=status, headers=names)

    return reply


async def drops(request: web.Request, asked: Any) -> web.StreamResponse:
    """Closes the connection without an answer."""
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def never(request: web.Request, asked: Any) -> web.StreamResponse:
    """Does not answer as long as the client waits."""
    while True:
        await asyncio.sleep(0.05)
        if request.transport is None or request.transport.is_closing():
            return web.Response()


def chat_reply(text: str | None, finish_reason: str = "stop") -> dict[str, Any]:
    """What an OpenAI-compatible endpoint answers."""
    return {"choices": [{"message": {"content": text}, "finish_reason": finish_reason}]}
