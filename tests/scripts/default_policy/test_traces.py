import random
import re

import pytest

from mgrpo.config.guidance import GUIDANCE_PHRASES
from scripts.default_policy import chain_sum_traces, leg_counting_traces, traces
from scripts.default_policy.default_tasks import TASKS, draw, question_source, reserved_questions

CHAIN = "State the final answer to the following arithmetic problem: 23 + 48 - 17 ="
BORROW = "State the final answer to the following arithmetic problem: 23 + 41 - 17 ="
LEGS = "... how many legs are there in total if you have 3 ants, 1 praying mantis, 2 crabs?\n"


@pytest.fixture(scope="module", params=TASKS, ids=lambda task: task.name)
def rows(request):
    task = request.param
    return [
        (task.name, row["question"], int(row["answer"])) for row in draw(task, seed=3, size=300)
    ]


def boxed(text: str) -> list[str]:
    return re.findall(r"\\boxed\{([^}]*)\}", text)


def test_every_trace_ends_with_its_one_boxed_answer(rows):
    rng = random.Random(0)
    for domain, question, _ in rows:
        attempt = traces.attempt(domain, question, rng)
        correction = traces.correction(domain, question, attempt.answer, 2, rng)
        for trace in (attempt, correction):
            assert trace.text.endswith(f"\n\\boxed{{{trace.answer}}}")
            assert len(boxed(trace.text)) == 1


def test_careful_working_without_the_bug_and_rechecks_agree_with_the_reference_answer(rows):
    for domain, question, answer in rows:
        solver = traces.SOLVERS[domain]
        assert solver.careful(question, False)[1] == answer
        assert solver.recheck(question)[1] == answer


def test_careful_attempts_are_nearly_always_right_and_quick_ones_mostly_wrong(rows):
    rng = random.Random(0)

    def accuracy(habit: traces.Habit) -> float:
        right = [
            traces.attempt(domain, question, rng, habit).answer == answer
            for domain, question, answer in rows
        ]
        return sum(right) / len(right)

    assert accuracy("careful") > 0.85
    assert 0.2 < accuracy("quick") < 0.7


def test_a_chain_of_three_is_worked_out_by_tens_and_ones():
    working = "23+48: 60+11=71. 71-17: 60-6=54"
    assert chain_sum_traces.careful(CHAIN, False) == (f"{working}.", 54)
    assert chain_sum_traces.recheck(CHAIN) == (working, 54)


def test_at_a_glance_a_carry_is_forgotten_and_the_smaller_digit_is_subtracted():
    # 3 + 8 = 11 leaves 1 without its carry: 61. Then |6 - 1| tens and |1 - 7| ones.
    assert chain_sum_traces.quick(CHAIN) == ("61, 56.", 56)


def test_the_careful_bug_adds_the_ones_where_it_should_borrow():
    assert chain_sum_traces.careful(BORROW, True) == ("23+41: 60+4=64. 64-17: 50+3=53.", 53)
    assert chain_sum_traces.careful(BORROW, False)[1] == 47


def test_negative_totals_split_towards_zero():
    assert chain_sum_traces.tens_and_ones(-37) == (-30, -7)
    assert chain_sum_traces.careful("problem: 10 - 47 + 12 =", False)[1] == -25


def test_legs_are_multiplied_then_added():
    working, total = leg_counting_traces.careful(LEGS, False)
    assert (working, total) == ("3*6=18, 1*6=6, 2*10=20. 18+6=24, 24+20=44.", 44)


def test_a_recheck_goes_the_careful_way_and_never_has_its_bug():
    working, total = leg_counting_traces.careful(LEGS, False)
    assert leg_counting_traces.recheck(LEGS) == (working.removesuffix("."), total)
    assert chain_sum_traces.recheck(BORROW)[1] == 47


def test_a_quick_count_forgets_the_third_animal():
    assert leg_counting_traces.quick(LEGS) == ("18+6=24.", 24)


def test_the_leg_counting_bug_forgets_a_carry_when_a_two_digit_number_is_added():
    assert leg_counting_traces.running_sums([10, 8, 12], with_bug=True)[1] == 20
    assert leg_counting_traces.running_sums([10, 8, 12], with_bug=False)[1] == 30


def test_a_recheck_names_the_wrong_answer_and_confirms_the_right_one():
    rng = random.Random(0)
    wrong = traces.correction("chain_sum", CHAIN, 56, 0, rng, "recheck")
    right = traces.correction("chain_sum", CHAIN, 54, 0, rng, "recheck")
    assert "54, not 56." in wrong.text and wrong.answer == 54
    assert "54, as before." in right.text and right.answer == 54


def test_a_confirmation_repeats_the_attempt_and_a_doubt_moves_it_by_ten():
    rng = random.Random(0)
    assert traces.correction("chain_sum", CHAIN, 56, 0, rng, "confirm").answer == 56
    assert traces.correction("chain_sum", CHAIN, 56, 0, rng, "doubt").answer in (46, 66)


def test_the_same_random_state_gives_the_same_trace():
    assert traces.attempt("chain_sum", CHAIN, random.Random(5)) == traces.attempt(
        "chain_sum", CHAIN, random.Random(5)
    )


def test_there_is_one_confirmation_share_for_each_guidance_phrase():
    assert len(traces.CONFIRM_SHARES) == len(GUIDANCE_PHRASES)


def test_questions_reserved_for_evaluation_are_never_drawn(monkeypatch):
    draw_question = question_source()
    reserved = reserved_questions()
    rng = random.Random(0)
    drawn = {draw_question(rng)[1] for _ in range(3000)}
    assert len(drawn) > 2000
    assert drawn.isdisjoint(reserved)
