import numpy as np
import pytest

from mgrpo.types import Problem
from scripts.default_policy.right_work import measure
from scripts.default_policy.right_work.measure import Interval, two_turns
from scripts.default_policy.right_work.turns import SENTENCES, Turns, tokenizer_texts
from scripts.default_policy.tiny_tokenizer import train_tokenizer

TASK = {"name": "chain_sum", "settings": {}}
PROBLEMS = [
    Problem(
        problem_id=f"s/{number}",
        question=f"State the final answer to the following arithmetic problem: 1{number} + 12 =",
        answer=str(22 + number),
        domain="chain_sum",
        metadata={"reasoning_gym": TASK},
    )
    for number in range(2)
]
TOKENIZER = train_tokenizer(tokenizer_texts(PROBLEMS), SENTENCES)
TURNS = Turns(TOKENIZER, TOKENIZER.eos_token_id)


def boxed(answer: int) -> list[int]:
    return [*TURNS.builder.encode(f"\\boxed{{{answer}}}"), TURNS.end_of_turn_id]


def test_first_attempts_are_counted_by_hand(monkeypatch):
    """Problem 0, of answer 22, has two right attempts of 16, problem 1 has none."""
    first = [boxed(a) for a in (22, 0, 22, 0, *[9] * 12)] + [boxed(8)] * 16
    scripted = iter([first, [boxed(answer) for answer in (22, 22, 23, 8)]])
    monkeypatch.setattr(measure, "sample", lambda *_, **__: next(scripted))
    found = two_turns(None, TURNS, PROBLEMS, num_seconds=2)
    assert found["t1"].startswith("6.2 ")  # 2 of 32
    assert found["pass@16"].startswith("50.0 ")
    assert next(scripted, None) is None


def test_transitions_are_shares_of_what_they_start_from(monkeypatch):
    first = [boxed(a) for a in (22, 0, 22, 0, *[9] * 12)] + [boxed(8)] * 16
    second = [boxed(a) for a in (7, 22, 23, 8)]  # of 22, 0 | 8, 8
    scripted = iter([first, second])
    monkeypatch.setattr(measure, "sample", lambda *_, **__: next(scripted))
    found = two_turns(None, TURNS, PROBLEMS, num_seconds=2)
    assert found["t2"].startswith("50.0 ")
    assert found["t2 - independent"].startswith("25.0 ")  # 2 of 4 against 1 of 4
    assert (found["right->wrong"], found["wrong->right"]) == (100.0, 66.7)
    # Attempts 2 and 3 of problem 0 are 22 (beside the right 22) and 0 (beside the wrong 0).
    assert found["right->wrong, independent"] == 0.0
    assert found["wrong->right, independent"] == 0.0
    assert found["wrong copied"] == 33.3


def test_an_interval_holds_its_mean_and_a_constant_has_none():
    assert str(Interval.of(np.full(10, 0.5))) == "50.0 (50.0 to 50.0)"
    half = Interval.of(np.array([0.0, 1.0] * 50))
    assert half.low == pytest.approx(50 - 9.8, abs=1.5)
    assert half.high == pytest.approx(50 + 9.8, abs=1.5)
