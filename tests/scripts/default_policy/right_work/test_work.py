import random

import pytest

from mgrpo.types import Problem
from rewards.task_answer import task_answer
from scripts.default_policy.right_work.work import countdown_solutions, right_work


def countdown(numbers: list[int], target: int) -> Problem:
    task = {"name": "countdown", "settings": {}}
    metadata = {"numbers": numbers, "target": target, "reasoning_gym": task}
    return Problem(
        problem_id="c/0", question="", answer="1+1", domain="countdown", metadata=metadata
    )


def test_a_sum_is_worked_out_term_by_term():
    question = "State the final answer to the following arithmetic problem: 23 + 48 - 17 - 60 ="
    problem = Problem(problem_id="s/0", question=question, answer="-6", domain="chain_sum")
    assert right_work(problem, random.Random(0)) == (
        "23+48: 60+11=71. 71-17: 60-6=54. 54-60: -10+4=-6.\n\\boxed{-6}"
    )


def test_countdown_finds_the_ways_without_negative_steps():
    assert countdown_solutions((7, 4, 5), 31) == ["7*5=35, 35-4=31.\n\\boxed{7*5-4}"]
    assert countdown_solutions((2, 9, 3), 15) == [
        "3*2=6, 9+6=15.\n\\boxed{9+3*2}",
        "9*2=18, 18-3=15.\n\\boxed{9*2-3}",
    ]
    assert countdown_solutions((5, 2, 20), 13) == [
        "20-2=18, 18-5=13.\n\\boxed{20-2-5}",
        "20-5=15, 15-2=13.\n\\boxed{20-5-2}",
        "5+2=7, 20-7=13.\n\\boxed{20-(5+2)}",
    ]


@pytest.mark.parametrize(
    "numbers, target", [((3, 3, 12), 72), ((20, 4, 2), 32), ((1, 1, 19), 19), ((6, 7, 7), 6)]
)
def test_the_check_of_a_run_accepts_every_way(numbers, target):
    problem = countdown(list(numbers), target)
    for work in countdown_solutions(numbers, target):
        assert task_answer(work, problem).correct, work


def test_an_impossible_target_is_refused():
    with pytest.raises(ValueError, match=r"No way from \(1, 1, 1\) to 99"):
        countdown_solutions((1, 1, 1), 99)


def test_one_of_several_ways_is_drawn_by_the_seed():
    problem = countdown([5, 2, 20], 13)
    drawn = {right_work(problem, random.Random(seed)) for seed in range(40)}
    assert drawn == set(countdown_solutions((5, 2, 20), 13))
