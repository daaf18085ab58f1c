"""Every suite on rows of our own in the schema of its data set, from the file to the grade."""

from __future__ import annotations

import base64
import json
import pickle
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from mgrpo.cli import main
from mgrpo.config import RunConfig
from mgrpo.config.load import load_recipe
from mgrpo.config.suites import load_suite, suite_files, suite_recipe
from mgrpo.data.problems import load_problems
from mgrpo.errors import ConfigError, DataError
from mgrpo.types import Problem, Reward
from rewards.registry import load_check

STDIN_TEST = {"input": "1 2\n", "output": "3\n", "testtype": "stdin"}
CALL_TEST = {"input": "[1, 2]\n3", "output": "6", "testtype": "functional"}
STARTER = "class Solution:\n    def total(self, xs: List[int], more: int) -> int:\n        "
GPQA_ROW = {
    "Question": "Which planet is the largest?",
    "Correct Answer": "Jupiter\n",
    "Incorrect Answer 1": "Mars",
    "Incorrect Answer 2": "Venus",
    "Incorrect Answer 3": "Earth",
    "High-level domain": "Physics",
    "Subdomain": "Astrophysics",
    "Explanation": "By far.",
}


def packed(tests: Sequence[dict[str, str]]) -> str:
    """Private tests as LiveCodeBench writes them."""
    return base64.b64encode(zlib.compress(pickle.dumps(json.dumps(tests)))).decode()


def code_row(public: Any, private: str, starter: str = "", metadata: str = "{}") -> dict[str, Any]:
    return {
        "question_title": "sums",
        "question_content": "Add the numbers.",
        "platform": "atcoder",
        "question_id": "abc001_a",
        "contest_date": "2025-01-04T00:00:00",
        "starter_code": starter,
        "difficulty": "easy",
        "public_test_cases": json.dumps(public),
        "private_test_cases": private,
        "metadata": metadata,
    }


ROWS: dict[str, list[dict[str, Any]]] = {
    "gsm8k": [{"question": "What is 9 + 9?", "answer": "9 + 9 = <<9+9=18>>18\n#### 18"}],
    "math500": [
        {
            "problem": "Half of $x$?",
            "solution": r"It is $\boxed{\frac{x}{2}}$.",
            "answer": r"\frac{x}{2}",
            "subject": "Algebra",
            "level": 1,
            "unique_id": "test/algebra/1.json",
        }
    ],
    "aime24": [
        {
            "id": 60,
            "problem": "Find $n$.",
            "solution": "...",
            "answer": "033",
            "url": "https://example.org",
            "year": "2024",
        }
    ],
    "aime25": [{"problem": "Find $n$.", "answer": "70"}],
    "amc": [{"id": 0, "problem": "How many miles?", "answer": 27.0, "url": "https://example.org"}],
    "minerva": [{"question": "The luminosity, in erg/s?", "answer": "4.5e33"}],
    "olympiadbench": [
        {
            "id": 1610,
            "question": "The largest $\\mu$?",
            "solution": ["..."],
            "final_answer": ["$\\frac{1}{2 n+2}$"],
            "context": None,
            "image_1": None,
            "modality": "Text-only",
            "difficulty": "Competition",
            "is_multiple_answer": False,
            "unit": None,
            "answer_type": "Expression",
            "error": None,
            "question_type": "Open-ended",
            "subfield": "Algebra",
            "subject": "Math",
            "language": "English",
        }
    ],
    "gpqa": [GPQA_ROW],
    "livecodebench": [
        code_row([STDIN_TEST], packed([{**STDIN_TEST, "input": "5 6\n", "output": "11\n"}])),
        code_row([CALL_TEST], "[]", STARTER, '{"func_name": "total"}'),
    ],
}
RIGHT = {
    "gsm8k": [r"\boxed{18}"],
    "math500": [r"\boxed{x/2}"],
    "aime24": [r"\boxed{33}"],
    "aime25": [r"\boxed{70}"],
    "amc": [r"\boxed{27}"],
    "minerva": [r"\boxed{4.5 \times 10^{33}}"],
    "olympiadbench": [r"\boxed{\frac{1}{2(n+1)}}"],
    "livecodebench": [
        "```python\nprint(sum(map(int, input().split())))\n```",
        f"```python\n{STARTER}return sum(xs) + more\n```",
    ],
}
WRONG = {"livecodebench": "```python\nprint(3)\n```"}


def on_file(name: str, rows: Sequence[dict[str, Any]], folder: Path) -> RunConfig:
    """The suite's recipe with its rows in a local file."""
    file = folder / f"{name}.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    changes = [f"data.heldout.path={file}", "data.heldout.split=null", "data.heldout.subset=null"]
    return suite_recipe(load_suite(name), "evaluate", changes)


def problems_in(config: RunConfig) -> Sequence[Problem]:
    assert config.data.heldout is not None
    return load_problems(config.data.heldout).problems


def graded(config: RunConfig, problem: Problem, completion: str) -> Reward:
    [term] = config.rewards.terms
    settings = term.settings
    if term.function == "code_answer":  # our own programs, on any machine
        settings = {**settings, "sandbox": "none", "seconds": 60, "cpu_s": 60}
    reward = load_check(term.function)(completion, problem, **settings)
    assert isinstance(reward, Reward)
    return reward


def test_there_are_rows_for_every_suite_with_rows_of_its_own() -> None:
    assert {name for name in suite_files() if load_suite(name).heldout} == ROWS.keys()


@pytest.mark.parametrize("name", RIGHT)
def test_rows_become_problems_whose_right_answer_is_graded_right(name: str, tmp_path: Path) -> None:
    config = on_file(name, ROWS[name], tmp_path)
    problems = problems_in(config)
    assert len(problems) == len(ROWS[name])
    for problem, right in zip(problems, RIGHT[name], strict=True):
        reward = graded(config, problem, right)
        assert reward.correct, reward.detail
        assert not graded(config, problem, WRONG.get(name, r"\boxed{-5}")).correct


def test_options_are_in_an_order_that_only_the_row_decides(tmp_path: Path) -> None:
    questions = [f"{GPQA_ROW['Question']} ({number})" for number in range(40)]
    rows = [{**GPQA_ROW, "Question": question} for question in questions]
    config = on_file("gpqa", rows, tmp_path)
    problems = problems_in(config)
    assert {one.answer for one in problems} == set("ABCD")
    for one in problems:
        assert f"({one.answer}) Jupiter" in one.question
        assert graded(config, one, rf"\boxed{{{one.answer}}}").correct
        wrong = "ABCD".replace(one.answer, "")[0]
        assert not graded(config, one, rf"\boxed{{({wrong})}}").correct
    assert {one.domain for one in problems} == {"Physics"}

    swapped = {"Incorrect Answer 1": "Earth", "Incorrect Answer 3": "Mars"}
    again = problems_in(on_file("gpqa", [{**one, **swapped} for one in rows[::-1]], tmp_path))
    assert [one.question for one in again[::-1]] == [one.question for one in problems]


def test_a_prompt_says_how_a_program_is_given(tmp_path: Path) -> None:
    reads, begins = problems_in(on_file("livecodebench", ROWS["livecodebench"], tmp_path))
    assert "standard input" in reads.question and "```python" in reads.question
    assert "class Solution" in begins.question
    assert begins.metadata["tests"] == [
        {"function": "total", "arguments": [[1, 2], 3], "output": 6}
    ]
    assert reads.domain == "easy"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (code_row([CALL_TEST], "[]"), "tests that cannot be read"),
        (code_row([STDIN_TEST], base64.b64encode(b"nothing").decode()), "cannot be read"),
        (
            code_row([STDIN_TEST], base64.b64encode(zlib.compress(pickle.dumps(print))).decode()),
            "tests that cannot be read (UnpicklingError)",
        ),
        ({"question_content": "Add."}, "without the column 'metadata'"),
    ],
)
def test_rows_with_tests_that_cannot_be_read_are_left_out_and_run_nothing(
    row: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError) as refused:
        problems_in(on_file("livecodebench", [row], tmp_path))
    assert reason in str(refused.value)


def test_a_suite_keeps_the_prompts_and_lengths_of_the_recipe() -> None:
    recipe, suite = load_recipe("methods/igrpo"), load_suite("math500")
    config = suite_recipe(suite, "methods/igrpo", ["evaluation.max_problems=7"])
    assert config.layers == recipe.layers and config.plugins == recipe.plugins
    assert config.data.heldout is not None and config.data.heldout != recipe.data.heldout
    assert (config.evaluation.guidance, config.evaluation.max_problems) == ("random", 7)


def test_the_papers_protocol_is_one_greedy_correction_of_each_greedy_attempt() -> None:
    config = suite_recipe(load_suite("mgrpo"), "evaluate")
    settings = config.evaluation
    assert (settings.decoding, settings.guidance) == ("greedy", "first")
    assert settings.samples_per_problem == 1
    parts = [load_suite(name) for name in load_suite("mgrpo").suites]
    assert load_suite("mgrpo").num_problems == sum(part.num_problems for part in parts)
    assert len(config.layers) == 2


def test_a_score_says_where_it_is_from() -> None:
    for name in suite_files():
        suite = load_suite(name)
        assert suite.scores or "no public model's score" in " ".join(suite.note.split()), name
        assert all(score.source and score.how for score in suite.scores)


def test_an_unknown_suite_is_answered_with_a_similar_one() -> None:
    with pytest.raises(ConfigError) as refused:
        load_suite("gms8k")
    assert "Did you mean gsm8k?" in str(refused.value)


def test_suites_are_listed_and_explained(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["suites"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in suite_files())
    assert main(["suites", "gsm8k"]) == 0
    text = capsys.readouterr().out
    assert "1,319 problems" in text and "path: openai/gsm8k" in text
    assert main(["suites", "--json"]) == 0
    assert json.loads(capsys.readouterr().out).keys() == suite_files().keys()
