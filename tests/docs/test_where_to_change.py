"""The page that tells a newcomer which file to open names files that exist, once per question."""

from __future__ import annotations

import re

from tests.repository import REPOSITORY

PAGE = REPOSITORY / "docs" / "guides" / "where_to_change.md"
ROW = re.compile(r"^\| (?!---|I want)(.+?) \| (.+) \|$", re.MULTILINE)


def test_every_question_is_answered_by_a_file_that_exists() -> None:
    rows = ROW.findall(PAGE.read_text(encoding="utf-8"))
    assert len(rows) >= 10
    assert len({question for question, _ in rows}) == len(rows)
    for question, answer in rows:
        paths = re.findall(r"`([\w/.]+)`", answer)
        assert paths, question
        for path in paths:
            assert (REPOSITORY / path).exists(), f"{question}: {path} does not exist"
