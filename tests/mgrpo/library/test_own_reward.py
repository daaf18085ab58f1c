"""Reward functions of a calling program, as processes that know nothing of it load them."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from mgrpo.errors import RewardError
from mgrpo.library.own_reward import reward_terms
from tests.repository import REPOSITORY
from tests.rewards import example_checks

LOAD = """
import sys
from mgrpo.types import Problem
from rewards.registry import load_check
check = load_check(sys.argv[1])
print(check("7", Problem(problem_id="p", question="", answer="7")))
"""


def in_another_process(check: str, folder: Path) -> str:
    """What a check gives in a process that knows its name alone."""
    done = subprocess.run(
        [sys.executable, "-c", LOAD, check],
        cwd=folder,
        env={"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_name_and_a_term_stay_as_they_are(tmp_path: Path) -> None:
    term = {"check": "format", "weight": 0.1}
    assert reward_terms(["math_answer", term], tmp_path) == [{"check": "math_answer"}, term]
    assert reward_terms("format", tmp_path) == [{"check": "format"}]
    assert list(tmp_path.iterdir()) == []


def test_a_module_s_function_goes_by_the_module_s_name(tmp_path: Path) -> None:
    terms = reward_terms(example_checks.says_yes, tmp_path)
    assert terms == [{"check": "tests.rewards.example_checks:says_yes"}]


def test_a_function_of_a_file_goes_by_its_path(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "own_checks_of_a_file.py").write_text(
        "def exact(completion, problem):\n    return 1\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    import own_checks_of_a_file  # type: ignore[import-not-found]

    terms = reward_terms(own_checks_of_a_file.exact, tmp_path / "inputs")
    assert terms == [{"check": "own_checks_of_a_file.py:exact"}]


def test_what_no_process_can_import_is_written_by_value(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    bonus = 2

    def exact(completion: str, problem: object) -> float:
        return float(completion == problem.answer) + bonus  # type: ignore[attr-defined]

    terms = reward_terms([exact, {"check": lambda c, p: len(c), "weight": 0.5}], Path("x.inputs"))
    assert terms == [
        {"check": "x.inputs/exact.py:exact"},
        {"check": "x.inputs/reward.py:reward", "weight": 0.5},
    ]
    assert "completion == problem.answer" in Path("x.inputs/exact.py").read_text()
    assert [in_another_process(term["check"], tmp_path) for term in terms] == ["3.0", "1"]


def test_a_function_written_for_another_system_says_so_by_its_key(tmp_path: Path) -> None:
    (term,) = reward_terms({"trl": lambda completions, **_: [1.0]}, tmp_path)
    assert term == {"trl": f"{tmp_path}/reward.py:reward"}


def test_two_functions_of_one_name_have_a_file_each(tmp_path: Path) -> None:
    terms = reward_terms([lambda c, p: 1, lambda c, p: 2], tmp_path)
    files = [term["check"].removeprefix(f"{tmp_path}/") for term in terms]
    assert files == ["reward.py:reward", "reward_.py:reward"]


def test_what_cannot_leave_the_process_is_refused_with_advice(tmp_path: Path) -> None:
    lock = threading.Lock()

    def locked(completion: str, problem: object) -> bool:
        with lock:
            return True

    with pytest.raises(RewardError, match=r"'locked' cannot be passed .* create that inside"):
        reward_terms(locked, tmp_path)
    with pytest.raises(RewardError, match="a int is no reward"):
        reward_terms(3, tmp_path)
