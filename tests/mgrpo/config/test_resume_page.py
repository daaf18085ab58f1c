"""The guide's table of what may change on a resume is that of `mgrpo.config.resume`."""

from __future__ import annotations

import re

from mgrpo.config.resume import ON_RESUME, OnResume
from tests.repository import REPOSITORY

BEGINNINGS: dict[OnResume, str] = {
    "fixed": "may not change",
    "free": "may change",
    "onward": "may change; a run that it stopped goes on",
    "length": "may change, not below what is done",
    "phases": "may change, if the finished steps keep their settings",
    "evaluation": "may change; evaluations before and after are not comparable",
}


def rows() -> list[tuple[list[str], str]]:
    """Keys and text of each line of the table."""
    page = (REPOSITORY / "docs" / "guides" / "resume.md").read_text(encoding="utf-8")
    section = page.partition("## What may change")[2].partition("\n## ")[0]
    cells = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("| `")]
    return [(re.findall(r"`([^`]+)`", keys), text.strip()) for keys, text in cells]


def test_the_table_has_every_key_once_in_its_class() -> None:
    listed = [(key.replace(".N.", ".*."), text) for keys, text in rows() for key in keys]
    assert sorted(key for key, _ in listed) == sorted(ON_RESUME)
    for key, text in listed:
        kinds = [kind for kind, said in BEGINNINGS.items() if text.startswith(said)]
        assert max(kinds, key=lambda kind: len(BEGINNINGS[kind])) == ON_RESUME[key], (key, text)
