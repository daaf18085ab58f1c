"""What HTTP rewards and judges answer, byte by byte, by a real server."""

from __future__ import annotations

import asyncio
import json
from functools import cache
from pathlib import Path
from typing import Any

from mgrpo.config.services import HttpTerm, JudgeTerm
from mgrpo.errors import MgrpoError
from rewards.score import Outcome
from rewards.services.http_reward import HttpReward
from rewards.services.judge import Judge
from rewards.services.service import Service, ServiceFailure
from tests.fuzz.outcomes import GROUP, check_outcomes
from tests.fuzz.target import Seed, Target

SCORES = b'{"rewards": [{"score": 0.5, "correct": true, "feedback": "no", "x": 1}, 1.0]}'
VERDICT = json.dumps(
    {
        "choices": [
            {"message": {"content": 'So {"critique": "no", "score": 7}'}, "finish_reason": "stop"}
        ]
    }
).encode()


def replies() -> list[Seed]:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n"
    busy = b"HTTP/1.1 503 Busy\r\nRetry-After: 2\r\nContent-Length: 4\r\n\r\nbusy"
    whole = [
        Seed(f"{kind}.reply", form % (len(body), body))
        for kind, body in (("http", SCORES), ("judge", VERDICT))
        for form in (head, chunked)
    ]
    bodies = [Seed("http.json", SCORES), Seed("judge.json", VERDICT)]
    return [*whole, *bodies, Seed("http.reply", busy)]


class AnyServer:
    """Answers each request by the same bytes, on a port of the loopback."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.reply = b""
        self.server = self.loop.run_until_complete(
            asyncio.start_server(self.answer, "127.0.0.1", 0)
        )
        port = self.server.sockets[0].getsockname()[1]
        url = f"http://127.0.0.1:{port}/v1"
        limits: Any = {"deadline_s": 2.0, "max_retries": 0}
        self.services: dict[str, Service] = {
            "http": HttpReward(HttpTerm(http=url, **limits)),
            "judge": Judge(JudgeTerm(judge="j", url=url, verdict="json", **limits)),
        }

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(line for line in head.lower().split(b"\r\n") if b"content-length" in line)
        await reader.readexactly(int(length.partition(b":")[2]))
        writer.write(self.reply)
        writer.close()

    def outcomes(self, kind: str, reply: bytes) -> list[Outcome]:
        self.reply = reply
        scoring = self.services[kind].score(GROUP, lambda: None)
        return self.loop.run_until_complete(scoring)


any_server = cache(AnyServer)


def read_reply(folder: Path, given: Seed) -> None:
    kind, _, form = given.name.partition(".")
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(given.data)
    whole = given.data if form == "reply" else head + given.data
    found = any_server().outcomes(kind, whole)
    assert len(found) == len(GROUP.texts)
    check_outcomes(found)


TARGETS = (Target("HTTP replies", replies, read_reply, (MgrpoError, ServiceFailure)),)
