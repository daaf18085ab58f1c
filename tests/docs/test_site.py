"""No page of the documentation site runs or loads what the site does not consist of."""

from __future__ import annotations

import re
import subprocess
import sys
from html import unescape
from pathlib import Path

import pytest

from mgrpo.report.page import source_hash
from tests.mgrpo.report.test_page import HOSTILE, Outline
from tests.repository import REPOSITORY

DEADLINE_S = 300
LINE = f"A cell that says {HOSTILE} in a line."
LINK = "[open](javascript:alert(1))"
SVG = '<svg onload="alert(2)"></svg>'
PAGE = f"# A run\n\n{LINE}\n\n{HOSTILE}\n\n{SVG}\n\n{LINK}\n\n| A |\n| - |\n| {HOSTILE} |\n"
COMMENTS = "<!-- measured: begin -->\n\nA figure.\n\n<!--><script>alert(3)</script>-->\n"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site of one page, built by the settings of the real one."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "pages").mkdir()
    (folder / "pages" / "README.md").write_text(f"{PAGE}\n{COMMENTS}", encoding="utf-8")
    command = [sys.executable, "-m", "sphinx", "--quiet", "-c", str(REPOSITORY / "docs")]
    subprocess.run([*command, folder / "pages", folder / "site"], check=True, timeout=DEADLINE_S)
    return folder / "site"


def outline_of(page: Path) -> Outline:
    outline = Outline()
    outline.feed(page.read_text(encoding="utf-8"))
    return outline


@pytest.mark.parametrize("name", ["index.html", "README.html", "search.html", "genindex.html"])
def test_a_page_has_a_policy_before_all_that_it_is_about(site: Path, name: str) -> None:
    elements = outline_of(site / name).elements
    places = [at for at, (_, given) in enumerate(elements) if "http-equiv" in given]
    policy = elements[places[0]][1]["content"]
    assert policy is not None and policy.startswith(
        "default-src 'none'; script-src 'self' 'sha256-"
    )
    assert "unsafe" not in policy.replace("style-src 'self' 'unsafe-inline'", "")
    first = next(at for at, (tag, _) in enumerate(elements) if tag in ("link", "script", "style"))
    assert len(places) == 1 and places[0] < first


def test_the_policy_names_the_one_script_that_the_theme_writes_into_a_page(site: Path) -> None:
    html = (site / "search.html").read_text(encoding="utf-8")
    [script] = re.findall(r"<script>(.*?)</script>", html, flags=re.DOTALL)
    assert f"'{source_hash(script)}'" in html


def test_hostile_text_of_a_page_stays_text(site: Path) -> None:
    html = (site / "README.html").read_text(encoding="utf-8")
    outline = outline_of(site / "README.html")
    scripts = [given for tag, given in outline.elements if tag == "script"]
    assert [given for given in scripts if "src" not in given] == [{}]  # the theme's
    assert not any(name.startswith("on") for _, given in outline.elements for name in given)
    assert not any("alert" in str(given.get("href")) for _, given in outline.elements)
    text = unescape(re.sub(r"<[^>]*>", "", html))
    assert text.count("</script><script>alert(") == 3 and SVG in text  # quotes become curly
    assert "A figure." in text and "measured" not in text and "alert(3)" not in text
