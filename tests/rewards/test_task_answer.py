"""reasoning-gym's tasks: right answers of every form are right, and nothing else is."""

from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mgrpo.config import ReasoningGymSource
from mgrpo.config.rewards import CheckTerm, RewardsConfig
from mgrpo.data.problems import load_problems
from mgrpo.errors import DataError
from mgrpo.types import Problem
from rewards.math_answer import math_answer
from rewards.pool import RewardPool
from rewards.task_answer import Task, task_answer, task_of, tasks_of

WITHOUT_REFERENCE = (
    "boxnet",
    "graph_color",
    "propositional_logic",
    "rubiks_cube",
    "rush_hour",
)


def task_problem(name: str, answer: str, question: str = "", **metadata: object) -> Problem:
    """A problem such as `load_generated` makes."""
    metadata |= Task(name, "{}").metadata
    return Problem(problem_id=f"{name}/0", question=question, answer=answer, metadata=metadata)


COUNTDOWN = task_problem(
    "countdown", "40*(94 - 90) + 83 - 74", numbers=[40, 94, 90, 83, 74], target=169
)
PUZZLE24 = task_problem("puzzle24", "4*8 - 6 - 2", numbers=[4, 8, 6, 2])


def is_right(boxed: str, problem: Problem) -> bool:
    return math_answer(f"So \\boxed{{{boxed}}}", problem).correct


# --- countdown and puzzle24 ---


@pytest.mark.parametrize(
    "boxed",
    [
        "40*(94 - 90) + 83 - 74",
        "83 - 74 + (94-90)*40",
        "40 \\times (94 - 90) + 83 - 74",
        "40 \\cdot \\left(94 - 90\\right) + 83 - 74",
        "40\u00d7(94\u221290)+83\u221274",
        "40*(94 - 90) + 83 - 74 = 169",
        "-(74 - 83) - 40*(90 - 94)",
        "$40*[94 - 90] + 83 - 74$",
    ],
)
def test_every_expression_of_the_given_numbers_with_the_target_is_right(boxed: str):
    assert is_right(boxed, COUNTDOWN)


@pytest.mark.parametrize(
    "boxed",
    [
        "169",
        "169 = 169",
        "40*(94 - 90) + 83 - 74 = 170",
        "40*(94 - 90) + 9",
        "40*(94 - 90) + 83 - 74 + 0",
        "40*4 + 83 - 74",
        "40 + 94 + 90 + 83 + 74",
        "40*(94 - 90) + 83 - 74 - 0*40",
        "169 + 0*(40 + 94 + 90 + 83 + 74)",
        "40 94 90 83 74",
        "40*(94 - 90) + 83 - 74 if True else 1",
        "40**(94 - 90) + 83 - 74",
        "__import__('os').getpid()",
        "(lambda: 169)()",
        "40*(94 - 90) + 83 - int('74')",
        "9**9**9**9",
        "((((" * 60,
        "",
    ],
)
def test_anything_else_is_not(boxed: str):
    assert not is_right(boxed, COUNTDOWN)


@pytest.mark.parametrize("boxed", ["24", "6*4*1*1", "4*8 - 6 - 2 + 0", "4*8 - 2*4", "49/2", "24.9"])
def test_puzzle24_wants_the_four_numbers_that_were_given(boxed: str):
    assert not is_right(boxed, PUZZLE24)
    assert is_right("8*4-(2+6)", PUZZLE24)


def test_a_value_is_exact_and_not_rounded():
    thirds = task_problem("countdown", "", numbers=[1, 3, 3], target=1)
    assert is_right("3*(1/3)", thirds)
    assert is_right("\\frac{1}{3} * 3", thirds)
    near = task_problem("countdown", "", numbers=[1, 100000, 999], target=999)
    assert not is_right("999 + 1/100000", near)


numbers = st.integers(1, 100)
expressions = st.recursive(
    numbers.map(str),
    lambda part: st.tuples(part, st.sampled_from("+-*/"), part).map(
        lambda t: f"({t[0]}{t[1]}{t[2]})"
    ),
    max_leaves=6,
)


@given(expressions)
def test_the_arithmetic_is_pythons_with_fractions(text: str):
    used = [int(number) for number in re.findall(r"\d+", text)]
    try:
        value = eval(re.sub(r"(\d+)", r"Fraction(\1)", text), {"Fraction": Fraction})
    except ZeroDivisionError:
        assert not is_right(text, task_problem("countdown", "", numbers=used, target=1))
        return
    if value.denominator != 1:
        return
    problem = task_problem("countdown", "", numbers=used, target=int(value))
    assert is_right(text, problem)
    for other in ({"numbers": [*used, 1]}, {"target": int(value) + 1}):
        assert not is_right(text, task_problem("countdown", "", **{**problem.metadata, **other}))


@given(st.text(max_size=30) | st.text("0123456789+-*/() =.e_", max_size=30))
def test_no_text_raises_and_no_text_without_the_numbers_is_right(text: str):
    for problem in (COUNTDOWN, PUZZLE24):
        used = sorted(int(n) for n in re.findall(r"(?<![\d.])\d{1,9}(?![\d.])", text, re.ASCII))
        right = task_answer(f"\\boxed{{{text}}}", problem).correct
        assert not right or [n for n in used if n in problem.metadata["numbers"]]


# --- holes in reasoning-gym's verifiers ---


@pytest.mark.parametrize(
    ("name", "answer", "metadata", "wrong"),
    [
        ("coin_flip", "0.171875", {}, ["0", "0.1", "0.1718"]),
        ("gsm_symbolic", "-5", {}, ["5", "5 or -5"]),
        ("game_of_life_halting", "True", {}, ["False", "anything", "0"]),
        ("number_sorting", "['-3.5', '2', '10']", {}, ["['-4', '2', '10']", "['2', '-3.5', '10']"]),
        ("word_sorting", "a, b, c", {}, ["a, b, c, d", "a, c, b", "a, b"]),
        ("letter_jumble", "two words", {}, ["two words more", "words two"]),
        ("spell_backward", "olleh", {}, ["ollehx", "olle", "hello"]),
        ("complex_arithmetic", "3.0 - 2.0i", {"result": (3.0, -2.0)}, ["nan", "nan + nani", "3"]),
        ("bitwise_arithmetic", "0x1d6b0", {"problem": "(0x1d6b0 + 0x0)"}, ["0x0", "0xffff", "0"]),
        ("calendar_arithmetic", "-1", {"task": "recurring_event_calculations"}, ["0", "1000"]),
    ],
)
def test_what_a_policy_would_find_is_not_right(name, answer, metadata, wrong):
    problem = task_problem(name, answer, **metadata)
    assert is_right(answer, problem)
    for boxed in wrong:
        assert not is_right(boxed, problem), boxed


EVALUATING = {
    "string_insertion": "ABCAD",
    "spiral_matrix": "1 2 3",
    "binary_matrix": "0 1\n1 0",
    "n_queens": "_ Q\nQ _",
    "simple_integration": "x**2 + C",
    "intermediate_integration": "x**2 + C",
    "polynomial_multiplication": "x**2",
}


@pytest.mark.parametrize("name", EVALUATING)
def test_what_a_policy_writes_is_never_run(name: str, tmp_path: Path):
    target = tmp_path / "written"
    metadata = {"valid_answers": [], "variable": "x", "integrand": "2*x", "solution": []}
    problem = task_problem(name, EVALUATING[name], **metadata)
    for code in (
        f"open({str(target)!r}, 'w')",
        f"[open({str(target)!r}, 'w')]",
        f"__import__('pathlib').Path({str(target)!r}).touch()",
        f"x.__class__.__base__.__subclasses__() or open({str(target)!r}, 'w')",
    ):
        assert not is_right(code, problem)
    assert not target.exists()


# --- who grades what ---


def test_many_right_answers_are_right_by_the_tasks_own_verifier():
    source = ReasoningGymSource(tasks=[{"name": "simple_integration"}], size=2, seed=5)
    for problem in load_problems(source).problems:
        assert is_right(problem.answer, problem)
        assert is_right(problem.answer.replace("+ C", "+ 7").replace("**", "^"), problem)
        assert not is_right(f"{problem.answer} + {problem.metadata['variable']}", problem)


def test_numbers_are_compared_as_everywhere_else_and_load_no_verifier():
    source = ReasoningGymSource(tasks=[{"name": "chain_sum"}, {"name": "leg_counting"}], size=6)
    problems = load_problems(source).problems
    assert tasks_of(problems) == []
    for problem in problems:
        plain = Problem(problem_id="", question="", answer=problem.answer)
        for boxed in (problem.answer, f"{problem.answer}.0", "3 + 4", f"{problem.answer}1", "many"):
            completion = f"\\boxed{{{boxed}}}"
            assert math_answer(completion, problem) == math_answer(completion, plain)


@pytest.mark.parametrize(
    ("name", "answer", "is_compared"),
    [
        ("gcd", "12", True),
        ("decimal_chain_sum", "-12.50", True),
        ("decimal_arithmetic", "4.86090", False),  # rounded as the task says
        ("fraction_simplification", "3/4", False),  # 6/8 is no simplest form
        ("base_conversion", "1e3", False),  # hexadecimal
        ("string_manipulation", "0011", False),
    ],
)
def test_plain_decimals_alone_are_compared_as_numbers(name: str, answer: str, is_compared: bool):
    assert (task_of(task_problem(name, answer)) is None) == is_compared


def test_a_sorted_list_may_be_written_in_other_ways():
    numbers = task_problem("number_sorting", "['-3.5', '2', '10']")
    for boxed in ("[-3.5, 2, 10]", "-3.50, 2.0, 10", '["-3.5", "2", "10"]'):
        assert is_right(boxed, numbers)
    assert is_right("[a, B]", task_problem("word_sorting", "a, b"))


def test_an_unsimplified_fraction_is_not_the_simplest_form():
    source = ReasoningGymSource(tasks=[{"name": "fraction_simplification"}], size=4, seed=2)
    for problem in load_problems(source).problems:
        top, bottom = (problem.metadata[key] for key in ("numerator", "denominator"))
        assert is_right(problem.answer, problem)
        assert not is_right(f"{top}/{bottom}", problem)


def test_partial_values_are_asked_for_by_name():
    near = f"\\boxed{{{COUNTDOWN.answer}}}".replace("74", "73")
    assert task_answer(near, COUNTDOWN, partial=True).value == 0.0  # computed: right or wrong
    words = task_problem("sentence_reordering", "We go out")
    almost = "\\boxed{We out go}"
    assert task_answer(almost, words).value == 0.0
    reward = task_answer(almost, words, partial=True)
    assert not reward.correct
    assert reward.value == pytest.approx(1 / 3)


def test_a_problem_of_other_data_is_an_error_that_names_the_other_check():
    with pytest.raises(ValueError, match="use math_answer"):
        task_answer("\\boxed{7}", Problem(problem_id="p", question="", answer="7"))


def test_a_pool_loads_the_verifiers_before_the_first_deadline():
    source = ReasoningGymSource(tasks=[{"name": "countdown"}, {"name": "word_ladder"}], size=4)
    problems = load_problems(source).problems
    config = RewardsConfig(terms=[CheckTerm(check="math_answer")], deadline_s=5, num_processes=1)
    with RewardPool(config, problems=problems) as pool:
        assert [task.name for task in pool.tasks] == ["word_ladder"]
        for problem in problems:
            texts = [f"\\boxed{{{problem.answer}}}", "\\boxed{169}", "\\boxed{}", "none"]
            rewards = pool.score_blocking(problem, texts)
            assert [reward.correct for reward in rewards] == [True, False, False, False]
            assert [reward.status for reward in rewards[2:]] == ["unparsable"] * 2


@pytest.mark.parametrize("name", WITHOUT_REFERENCE)
def test_a_task_without_reference_answers_is_refused(name: str):
    with pytest.raises(DataError, match="has no reference answer"):
        load_problems(ReasoningGymSource(tasks=[{"name": name}], size=2))


# --- all tasks ---

GUESSES = (
    "0",
    "1",
    "-1",
    ".",
    "True",
    "False",
    "[]",
    "{}",
    "No",
    "Yes",
    "x",
    "nan",
    "inf",
    "nan + nani",
    "24",
    "24.9",
    "6*4*1*1",
)


def all_tasks() -> list[str]:
    import reasoning_gym.factory

    names = set(reasoning_gym.factory.DATASETS) - {"composite", *WITHOUT_REFERENCE}
    return sorted(names)


def spelling(text: str) -> str:
    return re.sub(r"[^a-z0-9+*/-]", "", text.casefold().replace("+0", "+"))


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_of_every_task_the_reference_is_right_and_what_stands_in_the_question_is_not():
    refused, earned = [], []
    for name in all_tasks():
        source = ReasoningGymSource(tasks=[{"name": name}], size=6, seed=900)
        for problem in load_problems(source).problems:
            if not is_right(problem.answer, problem):
                refused.append((name, problem.answer))
            words = re.findall(r"\d+", problem.question)[:40] + problem.question.split()[:60]
            earned += [
                (name, guess, problem.answer)
                for guess in sorted({*GUESSES, *words})
                if is_right(guess, problem) and not is_the_same(guess, problem.answer)
            ]
    assert refused == []
    assert earned == []


def is_the_same(guess: str, answer: str) -> bool:
    """Another way of writing the reference: 0. and 0x0 for 0, 14 for "14 days"."""
    numbers = [re.search(r"-?\d[\d,]*(?:\.\d+)?(?:e\+?\d+)?", text) for text in (guess, answer)]
    if all(numbers):
        first, second = (float(found.group().replace(",", "")) for found in numbers)
        return first == pytest.approx(second)
    return spelling(guess) == spelling(answer)
