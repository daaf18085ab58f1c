"""The mutants fit the files as they are, and what becomes of one is told apart."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.mutant_list import MUTANTS, Mutant
from scripts.mutants import ROOT, Outcome, Result, copy_tree, failing_tests, summary, try_mutant

TEST = "test_half.py"


def mutant(old: str, new: str, **changes: bool) -> Mutant:
    return Mutant("halves", "half.py", old, new, (TEST,), **changes)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "half.py").write_text("def half(n):\n    return n // 2\n")
    (tmp_path / TEST).write_text(
        "from half import half\n\ndef test_half():\n    assert half(4) == 2\n"
    )
    return tmp_path


@pytest.mark.parametrize("one", MUTANTS, ids=lambda one: one.name)
def test_a_mutant_changes_one_place_and_names_tests_that_are_there(one: Mutant) -> None:
    text = (ROOT / one.file).read_text(encoding="utf-8")
    assert text.count(one.old) == 1 and one.old != one.new
    compile(text.replace(one.old, one.new), one.file, "exec")
    assert one.tests and all((ROOT / test).is_file() for test in one.tests)


def test_there_are_enough_of_them_and_those_that_a_review_found() -> None:
    assert len(MUTANTS) >= 40
    assert len({one.name for one in MUTANTS}) == len(MUTANTS)
    required = {one.name.split()[0] for one in MUTANTS if one.is_required}
    assert required == {"R1", "R2", "Q2", "Q3", "W1"}


@pytest.mark.parametrize(
    ("old", "new", "outcome"),
    [
        ("n // 2", "n // 3", Outcome.KILLED),
        ("n // 2", "n / 2", Outcome.SURVIVED),
        ("n % 2", "n", Outcome.BROKEN),
        ("def half", "def third", Outcome.BROKEN),  # the test cannot even be collected
    ],
)
def test_what_becomes_of_a_mutant(tree: Path, old: str, new: str, outcome: Outcome) -> None:
    before = (tree / "half.py").read_text()
    assert try_mutant(mutant(old, new), tree).outcome is outcome
    assert (tree / "half.py").read_text() == before


def test_a_test_that_fails_anyway_is_no_witness(tree: Path) -> None:
    one = mutant("n // 2", "n // 3")
    assert failing_tests([one], tree) == ""
    (tree / TEST).write_text("def test_half():\n    assert False\n")
    assert "assert False" in failing_tests([one], tree)


def test_the_exit_code_allows_a_tenth_of_those_that_are_not_required(
    capsys: pytest.CaptureFixture[str],
) -> None:
    killed = Result(mutant("a", "b"), Outcome.KILLED, 1.0)
    survived = Result(mutant("a", "b"), Outcome.SURVIVED, 1.0)
    required = Result(mutant("a", "b", is_required=True), Outcome.SURVIVED, 1.0)
    broken = Result(mutant("a", "b"), Outcome.BROKEN, 0.0)
    assert summary([killed] * 9 + [survived]) == 0
    assert "10 mutants: 9 killed, 1 survived (0 of them required" in capsys.readouterr().out
    assert summary([killed] * 8 + [survived]) == 1
    assert summary([killed] * 9 + [required]) == 1
    assert summary([killed] * 9 + [broken]) == 1


def test_the_copy_has_what_git_would_take(tmp_path: Path) -> None:
    copy_tree(tmp_path / "copy")
    assert (tmp_path / "copy" / "mgrpo" / "training" / "loop.py").is_file()
    assert not (tmp_path / "copy" / ".venv").exists()
