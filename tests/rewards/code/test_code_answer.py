"""The check on programs: which is read, what is right, what is said."""

from __future__ import annotations

from typing import Any

import pytest

from mgrpo.check.code_sandbox import sandbox_lines
from mgrpo.config import RewardsConfig
from mgrpo.types import Problem, Reward
from rewards.code import sandbox as sandboxes
from rewards.code.check import code_answer
from rewards.code.problem_tests import ProgramTest, read_tests, same_text, same_value
from rewards.code.sandbox import Answer, SandboxError, kind_for
from rewards.pool import RewardPool

UNHURRIED: dict[str, Any] = {"seconds": 60, "total_s": 200, "cpu_s": 20}
SUMS = [{"input": f"{a} {b}\n", "output": f"{a + b}\n"} for a, b in ((1, 2), (-1, 1), (10, 5))]
ADD = "a, b = map(int, input().split())\nprint(a + b)"


@pytest.fixture(autouse=True, scope="module")
def has_a_sandbox() -> None:
    try:
        kind_for("auto")
    except SandboxError as error:
        pytest.skip(str(error))


def problem(tests: Any, answer: str = "x", **metadata: Any) -> Problem:
    return Problem(
        problem_id="p", question="", answer=answer, metadata={"tests": tests, **metadata}
    )


def fenced(program: str, language: str = "python") -> str:
    return f"Some words.\n```{language}\n{program}\n```\nMore words."


def graded(completion: str, tests: Any = SUMS, **settings: Any) -> Reward:
    return code_answer(completion, problem(tests), **{**UNHURRIED, **settings})


def test_a_right_program_earns_1() -> None:
    reward = graded(fenced(ADD))
    assert (reward.value, reward.correct, reward.status) == (1.0, True, "scored")
    assert reward.extracted_answer == ADD
    assert reward.detail == "passed 3 of 3 tests."
    assert reward.feedback == "All tests passed."


def test_a_part_of_the_tests_earns_their_share_and_the_first_failure_is_said() -> None:
    program = "a, b = map(int, input().split())\nprint(a + b if a > 0 else 7)"
    reward = graded(fenced(program))
    assert reward.value == pytest.approx(2 / 3) and not reward.correct
    assert reward.detail.splitlines() == [
        "passed 2 of 3 tests. Test 2: wrong output.",
        "Input: -1 1",
        "Expected: 0",
        "Got: 7",
    ]
    assert graded(fenced(program), partial=False).value == 0.0


def test_what_is_expected_can_be_kept_from_the_text() -> None:
    reward = graded(fenced("print(10 ** 9)"), shown=False)
    assert reward.detail.splitlines() == [
        "passed 0 of 3 tests. Test 1: wrong output.",
        "Got: 1000000000",
    ]


def test_an_error_is_said_with_its_line() -> None:
    reward = graded(fenced("x = [1]\nprint(x[3])"))
    assert "line 2" in reward.detail and "IndexError: list index out of range" in reward.detail
    assert "SyntaxError" in graded(fenced("print((")).detail
    assert "SyntaxError" in graded(fenced("print((")).feedback


@pytest.mark.parametrize(
    "completion",
    ["", "print(3)", "```python\nprint(3)", "```python\n\n```", "```rust\nfn main() {}\n```"],
)
def test_without_a_closed_block_of_python_there_is_no_program(completion: str) -> None:
    reward = graded(completion)
    assert (reward.value, reward.status) == (0.0, "unparsable")


@pytest.mark.parametrize("language", ["python", "Python3", "py", ""])
def test_the_last_block_counts(language: str) -> None:
    completion = f"{fenced('print(0)')}\n{fenced(ADD, language)}"
    assert graded(completion).correct
    assert graded(f"<think>{fenced(ADD)}</think>\\boxed{{{fenced(ADD)}}}").correct
    assert graded(f"\\boxed{{```{language}\n{ADD}\n```}}").correct
    assert graded(f"{fenced('fn main() {}', 'rust')}\nIn Python:\n{fenced(ADD, language)}").correct
    assert graded(f"{fenced(ADD, language)}\n{fenced('$ run', 'sh')}").correct


@pytest.mark.parametrize(
    "program",
    [
        "def add(a, b):\n    return a + b",
        "class Solution:\n    def add(self, a, b):\n        return a + b",
        "import operator\nadd = operator.add",
        "def add(a, b):\n    print('x')\n    return a + b\nif __name__ == '__main__':\n    1 / 0",
    ],
)
def test_functions_are_called_with_data_and_their_values_compared(program: str) -> None:
    tests = [
        {"function": "add", "arguments": [1, 2], "output": 3},
        {"function": "add", "arguments": [[1], [2]], "output": [1, 2]},
        {"function": "add", "arguments": ["a", "b"], "output": "ab"},
    ]
    assert graded(fenced(program), tests).correct


def test_a_missing_function_is_said() -> None:
    tests = [{"function": "add", "arguments": [1, 2], "output": 3}]
    detail = graded(fenced("def plus(a, b): return a + b"), tests).detail
    assert "defines no function 'add'" in detail and "Call: add(1, 2)" in detail


@pytest.mark.parametrize(
    "given",
    [
        '[{"input": "1 2", "output": "3"}]',
        {"inputs": ["1 2"], "outputs": ["3"]},
        '{"inputs": ["1 2"], "outputs": ["3"]}',
        {"inputs": [["1 2"]], "outputs": [["3"]]},
        [{"input": "1 2", "output": "3", "testtype": "stdin"}],
    ],
)
def test_tests_are_read_in_the_forms_of_other_data_sets(given: Any) -> None:
    assert graded(fenced(ADD), given).correct
    alone = Problem(problem_id="p", question="", answer=given if isinstance(given, str) else "[]")
    if isinstance(given, str):
        assert [test.asked for test in read_tests(alone, "tests")] == [{"stdin": "1 2"}]


def test_functions_are_read_from_columns() -> None:
    given = {"inputs": [[1, 2]], "outputs": [3], "fn_name": "add"}
    (test,) = read_tests(problem(given), "tests")
    assert test == ProgramTest({"function": "add", "arguments": [1, 2]}, 3)


@pytest.mark.parametrize(
    "given", [[], "no json", "7", [{"input": 1, "output": "x"}], [{"testtype": "functional"}], {}]
)
def test_tests_in_no_known_form_are_an_error_and_no_zero(given: Any) -> None:
    with pytest.raises(ValueError, match="p has no test"):
        graded(fenced(ADD), given)


@pytest.mark.parametrize(
    ("given", "right", "is_same"),
    [
        ("3", "3\n", True),
        ("3  \n\n", "3", True),
        ("1\n2", "1\n2\n", True),
        ("1 2", "1\n2", False),
        ("0.3333333", "0.33333333", True),
        ("0.34", "0.333333", False),
        ("3", "3.0", True),
        ("3.0", "3", False),
        ("nan", "1.0", False),
        ("x", "1.0", False),
        ("", "0", False),
        ("YES", "yes", False),
    ],
)
def test_texts(given: str, right: str, is_same: bool) -> None:
    assert same_text(given, right, tolerance=1e-6) is is_same


@pytest.mark.parametrize(
    ("given", "right", "is_same"),
    [
        (1, 1, True),
        (1, 1.0, True),
        (1, True, False),
        (0.1 + 0.2, 0.3, True),
        ([1, [2]], [1, [2]], True),
        ([1], [1, 2], False),
        ({"a": 1}, {"a": 1}, True),
        ({"a": 1}, {"b": 1}, False),
        (None, None, True),
        ("1", 1, False),
        (float("nan"), 1.0, False),
    ],
)
def test_values(given: object, right: object, is_same: bool) -> None:
    assert same_value(given, right, tolerance=1e-6) is is_same


def test_an_exit_code_is_part_of_the_answer() -> None:
    test = ProgramTest({"stdin": ""}, "3")
    assert test.passes(Answer(out="3", end="exit 0"), tolerance=0)
    assert not test.passes(Answer(out="3", end="exit 1"), tolerance=0)
    assert not test.passes(Answer(out="3", end="exit 0", is_cut=True), tolerance=0)


def test_a_machine_without_a_sandbox_runs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandboxes, "fault_of", lambda kind: f"{kind} is not here.")
    with pytest.raises(SandboxError, match="sandbox: none") as error:
        graded(fenced(ADD))
    assert "namespaces is not here." in str(error.value)
    lines = [*sandbox_lines(rewards_with())]
    assert [line.status for line in lines] == ["fail"]


def test_an_unknown_sandbox_is_refused() -> None:
    choice: Any = "docker"
    with pytest.raises(SandboxError, match="Known: auto, namespaces, bubblewrap, none"):
        kind_for(choice)


def test_the_check_of_a_recipe_names_the_sandbox_and_what_it_lacks() -> None:
    kind = kind_for("auto")
    (line,) = sandbox_lines(rewards_with())
    assert kind in line.detail and "8 processes of 256 MiB" in line.detail
    assert (line.status == "ok") is (sandboxes.weaknesses(kind) == ())
    open_line, late = sandbox_lines(rewards_with(sandbox="none", total_s=20.0))
    assert open_line.status == "warn" and "reads this user's files" in open_line.detail
    assert late.status == "warn" and "deadline_s = 10 s" in late.detail
    assert [*sandbox_lines(RewardsConfig())] == []


def test_it_runs_in_the_pool_by_its_name() -> None:
    with RewardPool(rewards_with(**UNHURRIED)) as pool:
        good, bad = pool.score_blocking(problem(SUMS), [fenced(ADD), "no program"])
    assert (good.correct, bad.status) == (True, "unparsable")


def rewards_with(**settings: Any) -> RewardsConfig:
    terms = [{"check": "code_answer", "settings": settings}]
    deadline_s = 250.0 if settings.get("seconds") else 10.0
    return RewardsConfig.model_validate(
        {"num_processes": 1, "deadline_s": deadline_s, "terms": terms}
    )
