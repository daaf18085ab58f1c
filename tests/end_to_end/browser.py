"""A page in a real, headless Chromium: what stands on it, and a picture of it.

Spoken to over its DevTools protocol. As a command, to look at a page by eye:

    python -m tests.end_to_end.browser URL PICTURE.png [TEXT TO WAIT FOR]
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
START_DEADLINE_S = 60.0
CALL_DEADLINE_S = 30.0
LOOK_S = 0.5
BLANK = "about:blank"


def find_chromium() -> str | None:
    return next((found for name in PROGRAMS if (found := shutil.which(name))), None)


class Page:
    """One tab."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket, self.numbers = socket, itertools.count(1)

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self.numbers)
        await self.socket.send_json({"id": number, "method": method, "params": parameters})
        async with asyncio.timeout(CALL_DEADLINE_S):
            while True:
                message = await self.socket.receive_json()
                if message.get("id") == number:
                    assert "error" not in message, f"{method}: {message['error']}"
                    result: dict[str, Any] = message["result"]
                    return result

    async def text(self) -> str:
        """What a person can read on the page."""
        return str(await self.evaluate("document.body ? document.body.innerText : ''"))

    async def evaluate(self, expression: str) -> Any:
        found = await self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        return found["result"].get("value")

    async def open(self, url: str, *, until: Callable[[str], bool], deadline_s: float) -> str:
        """Go there and wait until the text is as wanted. Returns the text.

        A page in which only the part after "#" changes is loaded anew too.
        """
        await self.call("Page.navigate", url=BLANK)
        await self.call("Page.navigate", url=url)
        end = time.monotonic() + deadline_s
        while not until(text := await self.text()):
            assert time.monotonic() < end, f"{url} after {deadline_s:g} s shows:\n{text}"
            await asyncio.sleep(LOOK_S)
        return text

    async def picture(self, path: Path, *, height_below: int = 0) -> None:
        """Take a picture of the page from its top, `height_below` pixels taller than the window."""
        view = (await self.call("Page.getLayoutMetrics"))["cssLayoutViewport"]
        height = view["clientHeight"] + height_below
        clip = {"x": 0, "y": 0, "width": view["clientWidth"], "height": height, "scale": 1}
        shot = await self.call(
            "Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(shot["data"]))


@asynccontextmanager
async def open_browser(
    *, width: int = 1280, height: int = 900, cookies: dict[str, tuple[str, str]] | None = None
) -> AsyncIterator[Page]:
    """A browser with one tab; ends with the context.

    Args:
        width: in pixels.
        height: in pixels.
        cookies: name -> (value, URL that it is for).
    """
    program = find_chromium()
    assert program is not None, "no Chromium"
    folder = Path(tempfile.mkdtemp(prefix="mgrpo-browser-"))
    process = subprocess.Popen(
        [
            program,
            "--headless=new",
            "--no-sandbox",  # containers run tests as root
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--no-proxy-server",
            "--remote-debugging-port=0",
            f"--user-data-dir={folder}",
            f"--window-size={width},{height}",
            BLANK,
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "HOME": str(folder)},
    )
    try:
        port = await devtools_port(folder, process)
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://127.0.0.1:{port}/json/list") as answer:
                tabs = [one for one in await answer.json() if one["type"] == "page"]
            socket = session.ws_connect(tabs[0]["webSocketDebuggerUrl"], max_msg_size=0)
            async with socket as connected:
                page = Page(connected)
                await page.call("Page.enable")
                await page.call(
                    "Emulation.setDeviceMetricsOverride",
                    width=width,
                    height=height,
                    deviceScaleFactor=1,
                    mobile=False,
                )
                for name, (value, url) in (cookies or {}).items():
                    await page.call("Network.setCookie", name=name, value=value, url=url)
                yield page
    finally:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(timeout=10)
        shutil.rmtree(folder, ignore_errors=True)


async def devtools_port(folder: Path, process: subprocess.Popen[bytes]) -> int:
    """Chromium writes down which port it chose."""
    end = time.monotonic() + START_DEADLINE_S
    file = folder / "DevToolsActivePort"
    while not file.exists() or not file.read_text().strip():
        assert process.poll() is None, f"Chromium ended with code {process.returncode}"
        assert time.monotonic() < end, f"Chromium did not start within {START_DEADLINE_S:g} s"
        await asyncio.sleep(LOOK_S)
    return int(file.read_text().splitlines()[0])


async def look(url: str, picture: Path, wanted: str) -> None:
    async with open_browser() as page:
        print(await page.open(url, until=lambda text: wanted in text and text != "", deadline_s=60))
        await page.picture(picture)


if __name__ == "__main__":
    asyncio.run(look(sys.argv[1], Path(sys.argv[2]), " ".join(sys.argv[3:])))
