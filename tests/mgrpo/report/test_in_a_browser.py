"""The report in a real browser, on a desktop and on a phone, light and dark."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from mgrpo.report import write_report
from tests.end_to_end.browser import find_chromium, open_browser
from tests.mgrpo.report.fake_run import make_run

DESKTOP, PHONE = 1280, 390  # CSS pixels
LEAST_CONTRAST = 4.5  # of text (WCAG 2.1, success criterion 1.4.3)
COLOURS = """
[getComputedStyle(document.body).color, getComputedStyle(document.documentElement).backgroundColor,
 getComputedStyle(document.body).backgroundColor]
"""
CHARTS = "[...document.querySelectorAll('canvas')].filter((one) => one.clientWidth > 100).length"
WIDEST = "document.documentElement.scrollWidth"

pytestmark = pytest.mark.skipif(find_chromium() is None, reason="Chromium is not installed")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = make_run(tmp_path_factory.mktemp("runs") / "sums", steps=40, rollouts_every=10)
    return write_report(folder).resolve().as_uri()


def luminance(colour: str) -> float:
    """Relative luminance of an rgb() colour (WCAG 2.1)."""
    values = [int(one) / 255 for one in re.findall(r"\d+", colour)[:3]]
    linear = [one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in values]
    return sum(part * one for part, one in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one: str, other: str) -> float:
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def test_contrast_is_that_of_the_guideline() -> None:
    assert contrast("rgb(0, 0, 0)", "rgb(255, 255, 255)") == pytest.approx(21)
    assert contrast("rgb(119, 119, 119)", "rgb(255, 255, 255)") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [DESKTOP, PHONE])
def test_the_page_fits_its_window_and_can_be_read(
    report: str, width: int, scheme: str, tmp_path: Path
) -> None:
    async def look() -> None:
        async with open_browser(width=width) as page:
            wanted = {"name": "prefers-color-scheme", "value": scheme}
            await page.call("Emulation.setEmulatedMedia", features=[wanted])
            await page.open(report, until=lambda text: "Written by mgrpo" in text, deadline_s=60)
            await page.picture(tmp_path / "report.png", height_below=2000)
            assert await page.evaluate(WIDEST) <= width, "the page scrolls sideways"
            assert await page.evaluate(CHARTS) >= 2
            ink, root, body = await page.evaluate(COLOURS)
            paper = root if body == "rgba(0, 0, 0, 0)" else body
            assert contrast(ink, paper) >= LEAST_CONTRAST
            assert (luminance(paper) > 0.5) == (scheme == "light")

    asyncio.run(look())
