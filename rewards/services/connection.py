"""Requests to a server: turns, retries, a deadline for all of them, and errors that say what to do.

A status 408, 429 or 5xx and a lost connection are tried again; every other answer is final.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any

import aiohttp

from mgrpo.config.services import Auth, RemoteTerm
from mgrpo.errors import RewardError
from rewards.services.service import Progress, ServiceFailure, ServiceTimeout

FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0
MAX_ANSWER_BYTES = 8 * 2**20
EXCERPT_CHARS = 200
HIDDEN_SECRET = "(the secret)"
ADVICE = {
    401: "It wants another secret: set `auth: {from_env: NAME}` of the term, and that variable.",
    403: "It wants another secret: set `auth: {from_env: NAME}` of the term, and that variable.",
    404: "Nothing is at that address: correct it.",
    405: "Nothing at that address takes a POST: correct it.",
    413: "The request is too large for it.",
    429: "It refuses so many requests: lower max_concurrent or requests_per_s of the term.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """An answer that is JSON."""

    data: Any
    text: str
    seconds: float  # of the request with its retries, without waiting for its turn
    retries: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """What one try of a request led to."""

    what: str  # for a message: "answered 503 (Service Unavailable): 'busy'"
    text: str = ""
    status: int = 0  # 0: no answer
    wait_s: float = 0.0  # the server's Retry-After

    @property
    def may_be_repeated(self) -> bool:
        return self.status in (0, 408, 429) or self.status >= 500


class Pace:
    """Gives turns, so many in a second."""

    def __init__(self, per_second: float | None) -> None:
        self.interval_s = 1 / per_second if per_second else 0.0
        self.next_at = 0.0

    async def turn(self) -> None:
        now = time.monotonic()
        await asyncio.sleep(self.reserve(now) - now)

    def reserve(self, now: float) -> float:
        """When the next turn begins, in the seconds of `now`."""
        begin = max(now, self.next_at)
        self.next_at = begin + self.interval_s
        return begin


class Connection:
    """Posts JSON to one address.

    Args:
        url: of the server.
        term: its deadline, retries, limits and secret.

    Raises:
        RewardError: the environment variable of the secret is not set.
    """

    def __init__(self, url: str, term: RemoteTerm) -> None:
        self.url = url
        self.shown_url = url.partition("?")[0]
        self.term = term
        self.secret = secret_of(term.auth)
        self.slots = asyncio.Semaphore(term.max_concurrent)
        self.pace = Pace(term.requests_per_s)
        self.session: aiohttp.ClientSession | None = None

    async def post(self, body: Mapping[str, object], on_progress: Progress) -> Answered:
        """The answer to a JSON body.

        Raises:
            ServiceTimeout: there was none within the deadline.
            ServiceFailure: it is final and no JSON, or still an error after the last retry.
        """
        sent = json.dumps(body)
        async with self.slots:
            answered = await self.persist(sent)
        on_progress()
        return answered

    async def persist(self, sent: str) -> Answered:
        left = deadline_s = self.term.deadline_s
        for retries in itertools.count():
            await self.pace.turn()
            began = time.monotonic()
            try:
                async with asyncio.timeout(left) as limit:
                    attempt = await self.attempt(sent)
            except TimeoutError:
                if not limit.expired():
                    raise
                raise ServiceTimeout(self.too_slow(retries)) from None
            left -= time.monotonic() - began
            if not attempt.may_be_repeated:
                return self.read(attempt, seconds=deadline_s - left, retries=retries)
            pause_s = max(attempt.wait_s, pause_before(retries + 1))
            if retries == self.term.max_retries or pause_s >= left:
                raise ServiceFailure(self.gave_up(attempt, retries + 1, pause_s, left))
            await asyncio.sleep(pause_s)
            left -= pause_s
        raise AssertionError("unreachable")

    async def attempt(self, sent: str) -> Attempt:
        """One try: the answer, or why there is none."""
        headers = {"Content-Type": "application/json", **header_of(self.term.auth, self.secret)}
        try:
            async with self.opened().post(
                self.url, data=sent, headers=headers, allow_redirects=False
            ) as response:
                text = await limited_text(response)
                status, wait_s = response.status, retry_after_s(response.headers)
        except aiohttp.ClientSSLError as error:
            raise ServiceFailure(
                f"{self.shown_url} has no certificate to trust: {error}"
            ) from error
        except (aiohttp.ClientError, OSError) as error:
            return Attempt(what=f"could not be asked ({type(error).__name__}: {error})")
        what = f"answered {status} ({phrase_of(status)}): {self.excerpt(text)}"
        return Attempt(what=what, text=text, status=status, wait_s=wait_s)

    def opened(self) -> aiohttp.ClientSession:
        """The session, which has to be made where the event loop runs."""
        if self.session is None:
            timeout = aiohttp.ClientTimeout(total=None, connect=None, sock_connect=None)
            connector = aiohttp.TCPConnector(limit=0)
            self.session = aiohttp.ClientSession(connector=connector, timeout=timeout)
        return self.session

    def read(self, attempt: Attempt, *, seconds: float, retries: int) -> Answered:
        """The JSON of a final answer."""
        if attempt.status != HTTPStatus.OK:
            advice = ADVICE.get(attempt.status, "It does not take this request.")
            if 300 <= attempt.status < 400:
                advice = "Redirections are not followed: give the address that it leads to."
            raise ServiceFailure(f"{self.shown_url} {attempt.what}. {advice}")
        try:
            data = json.loads(attempt.text)
        except (ValueError, RecursionError):
            raise ServiceFailure(f"{self.shown_url} {attempt.what}, which is not JSON.") from None
        return Answered(data=data, text=attempt.text, seconds=seconds, retries=retries)

    def wrong(self, said: str, why: str, advice: str) -> ServiceFailure:
        """The error of an answer that is JSON, and not what it must be."""
        shown = self.excerpt(said)
        return ServiceFailure(f"{self.shown_url} answered 200 (OK): {shown}: {why}. {advice}")

    def excerpt(self, text: str) -> str:
        """The beginning of what a server said, without the secret if it repeats it."""
        shown = text.replace(self.secret, HIDDEN_SECRET) if self.secret else text
        short = " ".join(shown[: 4 * EXCERPT_CHARS].split())
        return repr(short if len(short) <= EXCERPT_CHARS else f"{short[:EXCERPT_CHARS]}...")

    def too_slow(self, retries: int) -> str:
        again = f", after {retries} that failed" if retries else ""
        return (
            f"{self.shown_url} did not answer within {self.term.deadline_s:g} s{again}. Raise "
            "deadline_s of the term, or lower max_concurrent if the server is overloaded"
        )

    def gave_up(self, last: Attempt, tries: int, pause_s: float, left: float) -> str:
        times = "once" if tries == 1 else f"{tries} times"
        text = f"{self.shown_url} {last.what}; asked {times}"
        if pause_s >= left:
            asked = "it asks to wait" if last.wait_s else "the next pause is"
            text += f", and {asked} {pause_s:.3g} s, more than is left of deadline_s"
        advice = ADVICE.get(last.status)
        if advice is None:
            advice = (
                "Look at the server's log, or raise max_retries and deadline_s of the term."
                if last.status
                else "Start the server, or correct the address."
            )
        return f"{text}. {advice}"


def secret_of(auth: Auth | None) -> str:
    """The value of the environment variable; "" without one in the recipe.

    Raises:
        RewardError: it is not set.
    """
    if auth is None:
        return ""
    value = os.environ.get(auth.from_env, "").strip()
    if not value:
        raise RewardError(
            f"The environment variable {auth.from_env}, named by auth.from_env of a reward term, "
            "is not set. Export it where the run is started; `mgrpo submit --env "
            f"{auth.from_env}` passes it to a job."
        )
    if not value.isprintable() or not value.isascii():
        raise RewardError(
            f"The environment variable {auth.from_env} has characters that no header may have."
        )
    return value


def header_of(auth: Auth | None, secret: str) -> dict[str, str]:
    return {} if auth is None else {auth.header: f"{auth.scheme} {secret}".strip()}


async def limited_text(response: aiohttp.ClientResponse) -> str:
    """The answer's text.

    Raises:
        ServiceFailure: it is longer than MAX_ANSWER_BYTES.
    """
    parts, size = [], 0
    async for part in response.content.iter_any():
        parts.append(part)
        size += len(part)
        if size > MAX_ANSWER_BYTES:
            raise ServiceFailure(
                f"{response.url.with_query(None)} answered {response.status} with more than "
                f"{MAX_ANSWER_BYTES // 2**20} MiB."
            )
    return b"".join(parts).decode(errors="replace")


def pause_before(retry: int) -> float:
    """Seconds before a retry, the first being 1: doubled each time, and less by chance, so that
    requests that failed together do not come again together."""
    longest = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(retry - 1, 30))
    return random.uniform(longest / 2, longest)


def retry_after_s(headers: Mapping[str, str], now: datetime | None = None) -> float:
    """Seconds of the header Retry-After, which is a number or a date; 0 without a valid one."""
    value = headers.get("Retry-After", "").strip()
    if value.isascii() and value.isdecimal():
        return float(value[:9])
    try:
        at = parsedate_to_datetime(value)
    except (ValueError, TypeError, IndexError):
        return 0.0
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return max(0.0, (at - (now or datetime.now(UTC))).total_seconds())


def phrase_of(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "not a status of HTTP"
