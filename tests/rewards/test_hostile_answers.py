"""Whatever a policy writes is graded within the deadline, and nearly all of it at once."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mgrpo.config.rewards import RewardsConfig
from mgrpo.types import Problem
from rewards.math_answer import math_answer
from rewards.pool import RewardPool

FRAGMENTS = (
    *("9", "^", "{", "}", "(", ")", "!", "\\frac", "\\sqrt", "[", "]", "\\binom", "e", "i", "x"),
    *("\\pi", "|", "_", "\\text{", "\\pm", "\\le", "=", ",", "\\cup", "\\{", "\\}", "\\\\", "&"),
    *("\\begin{pmatrix}", "\\end{pmatrix}", "99999", "\\log", "\\sin", "...", "\\overline{3}"),
    *(".", "%", "\\$", "$", " or ", " and ", " ", "0x", "1e300", "\\infty", "-", "+", "/", "*"),
    *("\\lfloor", "\\rfloor", "'", "\u00b2", "\u221a", "\u00bd", "^\\circ", "cm", "\\mathbb{R}"),
    *("\\in", "A", "(D)", ":", "million", "\ud83d", "\u0305", "\\mathbf{", "\\left", "\\over"),
)
REFERENCES = ["7", "\\frac{1}{3}", "x^2+1", "[0, 1)", "1, 2", "18 cm", "yes", "D"]
HOSTILE = [
    "9^{9^{9^{9}}}",
    "1000000000!",
    "((((9!)!)!)!)!",
    "\\binom{10^{100}}{10^{50}}",
    "10^{10^{10^{10}}}",
    "\\sin(10^{10^{10}})",
    "e^{e^{e^{e^{e}}}}",
    "\\sqrt[10^{9}]{2}",
    "2^{1/10^{30}}",
    "0.1^{10^{30}}",
    "x^{x^{x^{x^{x^{x}}}}}",
    "\\tan(\\tan(\\tan(\\tan(x^{99}))))",
    "(1+x)^{99999}",
    "\\lfloor 10^{99}\\pi \\rfloor",
    "9" * 990,
    "1/" * 490 + "1",
    "(" * 480 + "1" + ")" * 480,
    "\\frac{1}" * 120 + "{1}",
    "\\sqrt{" * 150 + "2" + "}" * 150,
    "|" * 900,
    "\\{" * 300 + "1" + "\\}" * 300,
    "x_{" * 200 + "1" + "}" * 200,
    "1, " * 320 + "1",
    "0<" * 400 + "1",
    "-cm" * 330,
    "\u221acm" * 330,
    "2 cm " * 190,
    "\\text{a" * 130,
    "\\begin{pmatrix}" * 60,
    "(D) " * 240,
    "1 or " * 190 + "1",
    "\\pm 1 " * 150,
    "[0,1] \\cup " * 80 + "[0,1]",
]


def seconds_of(boxed: str, reference: str) -> float:
    started = time.process_time()
    problem = Problem(problem_id="p", question="", answer=reference)
    assert math_answer(f"\\boxed{{{boxed}}}", problem).status in ("scored", "unparsable")
    return time.process_time() - started


@pytest.mark.parametrize("boxed", HOSTILE, ids=lambda boxed: boxed[:30])
def test_an_answer_made_to_hang_is_graded_in_seconds(boxed):
    for reference in ("7", boxed + " + 1", "\\sqrt{2}", "x^2+1", "(1, 2)"):
        assert seconds_of(boxed, reference) < 3


@settings(max_examples=400)
@given(
    parts=st.lists(st.sampled_from(FRAGMENTS), min_size=1, max_size=30),
    times=st.integers(1, 12),
    reference=st.sampled_from(REFERENCES),
)
def test_no_mixture_of_symbols_raises_or_hangs(parts, times, reference):
    assert seconds_of("".join(parts) * times, reference) < 3


def test_the_processes_grade_all_of_them_within_their_deadline():
    problem = Problem(problem_id="p", question="", answer="x^2+1")
    with RewardPool(RewardsConfig(deadline_s=5.0)) as pool:
        rewards = pool.score_blocking(problem, [f"\\boxed{{{boxed}}}" for boxed in HOSTILE])
    assert {reward.status for reward in rewards} <= {"scored", "unparsable"}
    assert not any(reward.correct for reward in rewards)
