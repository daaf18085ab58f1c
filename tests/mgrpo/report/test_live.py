"""The page that follows a run."""

from __future__ import annotations

import asyncio
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
from aiohttp.test_utils import TestClient, TestServer

from mgrpo.cli import main
from mgrpo.report.live import LiveReport, make_app
from tests.end_to_end.browser import find_chromium, open_browser
from tests.mgrpo.report.fake_run import make_run

DEADLINE_S = 60


@asynccontextmanager
async def client_of(*run_dirs: Path) -> AsyncIterator[TestClient]:
    app = make_app(LiveReport(run_dirs, poll_s=0.02))
    async with TestClient(TestServer(app)) as client, asyncio.timeout(DEADLINE_S):
        yield client


def test_the_page_is_drawn_anew_when_a_step_was_written(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "sums", steps=3, planned_steps=20)

    async def look() -> None:
        async with client_of(folder) as client:
            first = await (await client.get("/")).text()
            assert "3 of 20" in first and "connect-src &#39;self&#39;" in first
            assert await (await client.get("/")).text() == first, "nothing changed"
            make_run(folder, steps=4, planned_steps=20)
            assert "4 of 20" in await (await client.get("/")).text()

    asyncio.run(look())


def test_a_browser_is_told_the_state_at_once_and_after_each_step(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "sums", steps=3, planned_steps=20)

    async def listen() -> None:
        async with client_of(folder) as client:
            page = await (await client.get("/")).text()
            events = await client.get("/events")
            assert events.content_type == "text/event-stream"
            told = await next_state(events.content)
            assert f'const drawnState = "{told}";' in page
            make_run(folder, steps=4, planned_steps=20)
            assert await next_state(events.content) != told

    asyncio.run(listen())


def test_completions_that_follow_their_step_are_a_change(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "sums", steps=3, planned_steps=20, rollouts_every=1)
    report = LiveReport([folder])
    before = report.state()
    assert report.state() == before
    (newest,) = (folder / "rollouts").glob("*-000002.jsonl")
    newest.write_text(newest.read_text() * 2)
    assert report.state() != before


async def next_state(lines: asyncio.StreamReader) -> str:
    while not (line := (await lines.readline()).decode()).startswith("data: "):
        assert line, "the stream has ended"
    return line.removeprefix("data: ").strip()


def test_several_runs_are_followed_on_one_page(tmp_path: Path) -> None:
    folders = [make_run(tmp_path / name, steps=3, planned_steps=20) for name in ("wide", "plain")]

    async def look() -> None:
        async with client_of(*folders) as client:
            assert "wide · plain" in await (await client.get("/")).text()
            make_run(folders[1], steps=7, planned_steps=20)
            assert "7 of 20" in await (await client.get("/")).text()

    asyncio.run(look())


def test_another_site_s_name_is_refused_and_a_damaged_run_is_said(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "sums", steps=3)

    async def look() -> None:
        async with client_of(folder) as client:
            other = await client.get("/", headers={"Host": "evil.example:80"})
            assert (other.status, "evil.example" in await other.text()) == (403, True)
            (folder / "config.yaml").write_text("- a list")
            damaged = await client.get("/")
            assert (damaged.status, "config.yaml" in await damaged.text()) == (503, True)

    asyncio.run(look())


def test_a_page_that_stands_for_itself_connects_to_nothing(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "sums", steps=1)
    assert main(["report", str(folder)]) == 0
    page = (folder / "report.html").read_text()
    assert "connect-src" not in page and "EventSource" not in page


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--port", "9000"], "--port = 9000: belongs to --live"),
        (["--live", "--output", "x.html"], "--output = x.html: is written, and --live serves"),
        (["--output", "x.html"], "--output = x.html: is for several runs"),
    ],
)
def test_options_that_do_not_belong_together_are_refused(
    tmp_path: Path, options: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_run(tmp_path / "sums", steps=1)
    assert main(["report", str(folder), *options]) == 2
    assert reason in " ".join(capsys.readouterr().err.split())


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The command, as a user runs it; ended by Ctrl-C."""
    process = subprocess.Popen(
        [sys.executable, "-m", "mgrpo", "report", str(folder), "--live"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+", address)
        yield address
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(DEADLINE_S) == 0


def test_the_command_serves_until_it_is_interrupted(tmp_path: Path) -> None:
    with served(make_run(tmp_path / "sums", steps=3, planned_steps=20)) as address:
        assert "3 of 20" in text_at(address)
    with pytest.raises(urllib.error.URLError):
        text_at(address)


def text_at(address: str) -> str:
    with urllib.request.urlopen(address, timeout=DEADLINE_S) as answer:
        return str(answer.read().decode())


@pytest.mark.skipif(find_chromium() is None, reason="Chromium is not installed")
def test_a_browser_follows_the_run_or_waits_if_its_reader_wants(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "sums", steps=3, planned_steps=20)

    async def watch(address: str) -> None:
        async with open_browser() as page:

            async def until(words: str) -> None:
                async with asyncio.timeout(DEADLINE_S):
                    while words not in await page.text():
                        await asyncio.sleep(0.1)

            await page.open(address, until=lambda text: "live" in text, deadline_s=DEADLINE_S)
            await until("3 of 20")
            make_run(folder, steps=4, planned_steps=20)
            await until("4 of 20")
            async with asyncio.timeout(DEADLINE_S):  # files that were written meanwhile are drawn
                while await page.evaluate("drawnState") != LiveReport([folder]).state():
                    await asyncio.sleep(0.1)
            await page.evaluate("document.querySelector('.live input').click()")
            make_run(folder, steps=5, planned_steps=20)
            await until("Show the new steps")
            assert "4 of 20" in await page.text()
            await page.picture(tmp_path / "live.png")
            await page.evaluate("document.querySelector('.live button').click()")
            await until("5 of 20")

    with served(folder) as address:
        asyncio.run(watch(address))
