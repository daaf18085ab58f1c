import pytest

from mgrpo.types import Problem
from rewards.task_answer import task_answer
from scripts.default_policy.right_work.problems import held_out, pools_of
from scripts.default_policy.right_work.work import right_work, solved


def test_a_sum_is_worked_out_term_by_term():
    question = "State the final answer to the following arithmetic problem: 23 + 48 - 17 - 60 ="
    problem = Problem(problem_id="s/0", question=question, answer="-6", domain="chain_sum")
    assert right_work(problem) == ("23+48: 60+11=71. 71-17: 60-6=54. 54-60: -10+4=-6.\n\\boxed{-6}")


@pytest.mark.parametrize(
    "equation, steps, unknown",
    [
        ("19*h + 5 = 81", "19*h=81-5=76, h=4.", 4),
        ("22*t - 16 = 490", "22*t=490+16=506, t=23.", 23),
        ("7 - 3*x = -8", "3*x=7+8=15, x=5.", 5),
        ("20 - 3*x = 8", "3*x=20-8=12, x=4.", 4),
        ("z - 19 = 3", "z=3+19=22.", 22),
    ],
)
def test_an_equation_is_solved_in_two_steps(equation, steps, unknown):
    assert solved(equation) == (steps, unknown)


@pytest.mark.parametrize("equation", ["3*x + 1 = 11", "x*3 + 1 = 10", "3*x = 9 + x", ""])
def test_another_equation_is_refused(equation):
    with pytest.raises(ValueError, match=r"no whole solution|not a linear equation"):
        solved(equation)


def test_the_check_of_a_run_accepts_the_work(monkeypatch):
    monkeypatch.setattr("scripts.default_policy.right_work.problems.NUM_HELD_OUT", 100)
    pools = pools_of(held_out())
    assert {name: len(pool) for name, pool in pools.items()} == {
        "chain_sum": 100,
        "simple_equations": 100,
    }
    for problem in [problem for pool in pools.values() for problem in pool]:
        assert task_answer(right_work(problem), problem).correct, problem
