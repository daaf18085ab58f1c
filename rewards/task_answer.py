"""The check `reasoning_gym`: a task's own verifier scores the content of the last \\boxed{}.

Many of reasoning-gym's tasks have more right answers than the one in the data, and have a verifier,
`score_answer`. `math_answer` delegates their problems to it, so that a recipe need not name this
check; naming it allows `partial`. An answer is right if the verifier's score is exactly 1. There
are exceptions, each for a weakness of reasoning-gym 0.1.25 that a policy would exploit:

- A reference that is a number is compared by `math_answer`: `coin_flip` gives 1 for "0",
  `gsm_symbolic` reads the first number of any text and loses its sign. Two tasks that ask for a
  rounded number keep their own rounding.
- countdown and puzzle24 are computed here, exactly: theirs evaluate a text as Python, take any four
  numbers for puzzle24's and 24.9 for 24.
- Four tasks are compared word by word (`WORD_BY_WORD`): `game_of_life_halting` takes any text at
  all for right, `number_sorting` numbers that are off by one, the others more words than asked for.
- Some verifiers evaluate the answer as Python. They only see answers of the form that a right one
  has (`FORMS`).
"""

from __future__ import annotations

import ast
import copy
import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any

from mgrpo.records.json_object import JsonObject
from mgrpo.types import Problem, Reward
from rewards.answer_equality import Rules
from rewards.boxed import last_box
from rewards.reference_answer import (
    NO_BOX,
    RIGHT,
    TOO_LONG,
    WRONG,
    reference_answer,
    unparsable,
)

TASK_KEY = "reasoning_gym"  # in Problem.metadata: the task's name and settings
VERIFYING = ("math_answer", "reasoning_gym")  # the checks that come here
ROUNDED = ("decimal_arithmetic", "power_function")  # a number is asked for, but not exactly that
WORD_BY_WORD = ("game_of_life_halting", "number_sorting", "word_sorting", "letter_jumble")
EXPRESSION_TASKS = ("countdown", "puzzle24")
GRADED_HERE = (*EXPRESSION_TASKS, *WORD_BY_WORD)
PUZZLE24_TARGET = 24
MAX_SPARE_CHARS = 1000  # longer than the reference; a verifier's time may grow fast with length
MAX_EXPRESSION_CHARS = 300

NUMBER = re.compile(r"[-+]?(?:0|[1-9]\d*)(?:\.\d+)?")

FUNCTIONS = r"exp|log|sqrt|pi|a?(?:sin|cos|tan)h?"
MATHEMATICS = re.compile(  # possessive: nothing is read in a second way, however long it is
    rf"(?:\s|[-+*/(),]|\d++(?:\.\d++)?|(?<![a-zA-Z])(?:{FUNCTIONS}|[a-zA-Z])(?![a-zA-Z.]))*+"
)
FORMS = {
    "binary_matrix": re.compile(r"[\d\s]*"),
    "spiral_matrix": re.compile(r"[-\d\s]*"),
    "string_insertion": re.compile(r"[A-Z]*"),
    "n_queens": re.compile(r"[Q_\s]*"),
    "complex_arithmetic": re.compile(r"[-+.\d\sij()]*"),  # no "nan", which is as near as can be
    "simple_integration": MATHEMATICS,
    "intermediate_integration": MATHEMATICS,
    "polynomial_multiplication": MATHEMATICS,
}
"""What a right answer of the task is made of; the verifier is not asked about any other."""

SIGNS = {
    r"\times": "*",
    r"\cdot": "*",
    r"\div": "/",
    "\u00d7": "*",
    "\u00b7": "*",
    "\u22c5": "*",
    "\u00f7": "/",
    "\u2212": "-",
    r"\left": "",
    r"\right": "",
    "[": "(",
    "]": ")",
}
FRACTION = re.compile(r"\\[dt]?frac\{([^{}]*)\}\{([^{}]*)\}")
TEXT = re.compile(r"\\(?:text|texttt|mathrm|mathtt|mathbf|textbf)\{([^{}]*)\}")


@dataclass(frozen=True, slots=True)
class Task:
    """A task of reasoning-gym with its settings."""

    name: str
    settings: str  # JSON

    @property
    def metadata(self) -> JsonObject:
        """What marks its problems."""
        return {TASK_KEY: {"name": self.name, "settings": json.loads(self.settings)}}


def task_of(problem: Problem) -> Task | None:
    """The task whose verifier grades this problem; None where `math_answer` does."""
    marked = problem.metadata.get(TASK_KEY)
    if not isinstance(marked, dict):
        return None
    task = Task(marked["name"], json.dumps(marked["settings"], sort_keys=True))
    return None if is_number(problem.answer) and task.name not in ROUNDED else task


def tasks_of(problems: Iterable[Problem]) -> list[Task]:
    """The tasks whose verifiers these problems want, each once."""
    found = dict.fromkeys(task_of(problem) for problem in problems)
    return [task for task in found if task is not None and task.name not in GRADED_HERE]


def is_number(text: str) -> bool:
    """True for a plain decimal: a fraction may be one to simplify, and 1e3 hexadecimal."""
    return NUMBER.fullmatch(text) is not None


def task_answer(completion: str, problem: Problem, *, partial: bool = False) -> Reward:
    """1 for an answer that the task's own verifier accepts, else 0.

    Args:
        completion: the policy's text.
        problem: one that `data.*.source: reasoning_gym` made.
        partial: give a wrong answer the score that the verifier has for it, below 1. Some score any
            well-formed answer.

    Raises:
        ValueError: the problem is not one of reasoning-gym.
    """
    if TASK_KEY not in problem.metadata:
        raise ValueError(
            f"{problem.problem_id} is not a problem of reasoning-gym, which the check "
            "reasoning_gym requires; use math_answer, which handles both kinds of problems"
        )
    box = last_box(completion)
    if box is None or not box.content.strip():
        return unparsable("no closed \\boxed{} with an answer", NO_BOX)
    task = task_of(problem)
    if task is None:
        return reference_answer(completion, problem, Rules())
    answer = box.content.strip()
    if len(answer) > len(problem.answer) * 2 + MAX_SPARE_CHARS:
        detail = f"the boxed answer has {len(answer)} characters, {len(problem.answer)} are asked"
        return unparsable(detail, TOO_LONG)
    score = max(score_of(task, reading, problem) for reading in readings(answer))
    correct = score == 1.0  # exactly: sums of partial credit come near it
    shown = min(max(score, 0.0), 1.0) if math.isfinite(score) else 0.0
    below_one = shown if shown < 1.0 else 0.0  # a score above 1 is a verifier's mistake
    return Reward(
        value=1.0 if correct else below_one * partial,
        correct=correct,
        extracted_answer=answer,
        detail=f"{task.name} scores it {score:g}",
        feedback=RIGHT if correct else WRONG,
    )


def readings(answer: str) -> list[str]:
    """The answer as it stands, and without LaTeX's wrapping."""
    plain = TEXT.sub(r"\1", answer.replace("$", ""))
    plain = re.sub(r"\\([{}_%#&$ ])", r"\1", plain).replace(r"\\", "\n").replace("^", "**").strip()
    return list(dict.fromkeys([answer, plain]))


def score_of(task: Task, answer: str, problem: Problem) -> float:
    """The verifier's score; 0 if it cannot parse the answer."""
    if task.name in WORD_BY_WORD:
        return float(words_of(answer) == words_of(problem.answer))
    if task.name in EXPRESSION_TASKS:
        return float(solves(answer, problem))
    form = FORMS.get(task.name)
    if form is not None and form.fullmatch(answer) is None:
        return 0.0
    entry = {
        "question": problem.question,
        "answer": problem.answer,
        "metadata": copy.deepcopy(problem.metadata),  # some write into it
    }
    own = verifier(task)
    try:
        return float(own.score_answer(answer, entry))
    except MemoryError:
        raise  # says nothing about the answer
    except Exception:  # verifiers raise nearly anything for an answer of another form
        return 0.0


@lru_cache(maxsize=256)
def verifier(task: Task) -> Any:
    """The task's data set, of which only `score_answer` is used."""
    import reasoning_gym.factory  # a second, and only where it is needed

    return reasoning_gym.factory.create_dataset(task.name, **json.loads(task.settings))


def words_of(text: str) -> list[str | float]:
    """The words and numbers of a list, in order, whatever stands around them."""
    words = re.findall(r"[^\s,'\"\[\]]+", text.casefold())
    return [float(word) if is_number(word) else word for word in words]


def solves(answer: str, problem: Problem) -> bool:
    """Is this arithmetic with each given number once, and the value asked for?"""
    target = Fraction(problem.metadata.get("target", PUZZLE24_TARGET))
    text, equals, result = arithmetic(answer).rpartition("=")
    if equals and result.strip() != str(target):
        return False
    try:
        tree = ast.parse((text if equals else result).strip(), mode="eval").body
        numbers: list[Any] = [
            node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)
        ]
        given = sorted(problem.metadata["numbers"])
        return sorted(numbers) == given and value_of(tree) == target
    except (SyntaxError, ValueError, TypeError, ZeroDivisionError, RecursionError, MemoryError):
        return False


def arithmetic(answer: str) -> str:
    """LaTeX's signs as plain ones; empty for what is no arithmetic."""
    for sign, plain in SIGNS.items():
        answer = answer.replace(sign, plain)
    answer = FRACTION.sub(r"((\1)/(\2))", answer)
    is_arithmetic = re.fullmatch(r"[\d\s+*/()=-]*", answer) is not None
    return answer if is_arithmetic and len(answer) <= MAX_EXPRESSION_CHARS else ""


def value_of(node: ast.expr) -> Fraction:
    """The exact value of a tree of sums, products and quotients of whole numbers.

    Raises:
        ValueError: there is something else in it.
        ZeroDivisionError: it divides by zero.
    """
    match node:
        case ast.Constant(value=int(number)):
            return Fraction(number)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -value_of(operand)
        case ast.BinOp(left=left, op=op, right=right):
            first, second = value_of(left), value_of(right)
            match op:
                case ast.Add():
                    return first + second
                case ast.Sub():
                    return first - second
                case ast.Mult():
                    return first * second
                case ast.Div():
                    return first / second
    raise ValueError(f"{type(node).__name__} is no arithmetic")
