"""Words that had several meanings keep the glossary's, where they had another one."""

from __future__ import annotations

import re

import pytest

from tests.contracts.sources import ROOT, python_files, shown

GLOSSARY = ROOT / "docs" / "guides" / "glossary.md"
NOT_IN = {
    "judge": ("learner", "actors", "cluster", "benchmarks", "mgrpo/check", "mgrpo/methods"),
    "verdict": ("learner", "cluster/fleet", "benchmarks", "mgrpo/check", "mgrpo/training"),
    "signal": ("learner", "mgrpo/explanation", "mgrpo/methods"),
}
"""Word -> folders whose code has nothing of what it means."""


@pytest.mark.parametrize("word", NOT_IN)
def test_a_word_is_not_used_where_it_had_another_meaning(word: str) -> None:
    assert f"\n| {word} |" in GLOSSARY.read_text(encoding="utf-8")
    pattern = re.compile(rf"(?<!training ){word}", re.IGNORECASE)
    used = [
        shown(path)
        for path in python_files(*NOT_IN[word])
        if pattern.search(path.read_text(encoding="utf-8"))
    ]
    assert used == [], f"{word} means what the glossary says"
