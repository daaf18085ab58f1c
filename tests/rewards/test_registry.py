import sys

import pytest

from mgrpo.errors import RewardError
from rewards.format import format_answer
from rewards.math_answer import math_answer
from rewards.registry import load_check

MODULE = "tests.rewards.example_checks"


def test_built_in_checks_have_short_names():
    assert load_check("math_answer") is math_answer
    assert load_check("format") is format_answer


def test_a_users_check_is_found_by_module_and_function():
    assert load_check(f"{MODULE}:says_yes")("yes", None) is True


def test_a_module_in_the_current_directory_is_found(tmp_path, monkeypatch):
    (tmp_path / "checks_of_mine.py").write_text("def good(completion, problem):\n    return 1\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert load_check("checks_of_mine:good")("", None) == 1


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("math_anser", {}, "Did you mean 'math_answer'?"),
        ("nothing_like_it", {}, "name your own as `module:function`"),
        ("no_such_module_anywhere:check", {}, "Searched: "),
        (f"{MODULE}:says_yess", {}, "Did you mean 'says_yes'?"),
        (f"{MODULE}:os", {}, "expected a function"),
        (f"{MODULE}:length", {"scales": 2}, "scales"),
        ("math_answer", {"tolerance": 1}, "tolerance"),
        ("tests.rewards.broken_module:check", {}, "ZeroDivisionError: this module divides"),
    ],
)
def test_a_check_that_cannot_be_used_says_why(name, settings, message):
    with pytest.raises(RewardError) as caught:
        load_check(name, settings)
    assert message in str(caught.value)
    assert name in str(caught.value)
