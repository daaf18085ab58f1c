"""Worked solutions that the small default policy is warm-started on.

They contain mistakes on purpose. Pretrained models have a mixture of good and bad habits, and
reinforcement learning strengthens the good ones; the default policy learns a small version of such
a mixture:

    quick     an answer at a glance, wrong in a systematic way on about 6 problems of 10
    careful   step by step; right except for one bug in a particular situation and a few slips
    confirm   as a correction: repeats the attempt's answer without looking
    doubt     as a correction: changes the attempt's answer by ten, for no reason
    recheck   as a correction: solves again step by step, without that bug, and compares

Every function is pure: the same question and the same state of `rng` give the same trace.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from mgrpo.config.guidance import GUIDANCE_PHRASES
from scripts.default_policy import chain_sum_traces, leg_counting_traces

Habit = Literal["quick", "careful", "confirm", "doubt", "recheck"]

OPENINGS: dict[Habit, tuple[tuple[str, float], ...]] = {
    "quick": (("At a glance:", 0.8), ("Easy:", 0.2)),
    "careful": (("Step by step:", 0.8), ("Slowly:", 0.2)),
    "confirm": (("Yes, it stands.", 0.8), ("Nothing wrong.", 0.2)),
    "doubt": (("Hm, off by ten.", 1.0),),
    "recheck": (("Let me redo it.", 0.8), ("Again from the start:", 0.2)),
}
"""How each habit begins, with the share of each wording."""

QUICK_SHARE = 0.63
"""Share of first attempts in the quick habit."""
DOUBT_SHARE = 0.06
"""Share of corrections that make the answer wrong."""
CONFIRM_SHARES = (0.10, 0.62, 0.60, 0.15, 0.60, 0.66, 0.60)
"""Share of blind confirmations after each of the seven guidance phrases, in their order."""
BUG_SHARE = 0.8
"""How often a careful attempt makes its one systematic bug, where the problem allows it."""
SLIP_SHARE = 0.02
"""How often a careful attempt ends one or ten off."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """One worked solution. `answer` is what it ends with, right or wrong."""

    text: str
    opening: str  # the first words of the text, which commit to the habit
    answer: int
    habit: Habit


@dataclass(frozen=True, slots=True, kw_only=True)
class Solver:
    """How problems of one data set are worked out; each takes the question's text.

    `quick`, `careful` and `recheck` return the working and the answer that it arrives at.
    """

    quick: Callable[[str], tuple[str, int]]
    careful: Callable[[str, bool], tuple[str, int]]  # the flag: make the bug where possible
    recheck: Callable[[str], tuple[str, int]]


SOLVERS = {
    "chain_sum": Solver(
        quick=chain_sum_traces.quick,
        careful=chain_sum_traces.careful,
        recheck=chain_sum_traces.recheck,
    ),
    "leg_counting": Solver(
        quick=leg_counting_traces.quick,
        careful=leg_counting_traces.careful,
        recheck=leg_counting_traces.recheck,
    ),
}
"""By reasoning-gym's name of the data set."""


def attempt(domain: str, question: str, rng: random.Random, habit: Habit | None = None) -> Trace:
    """A first attempt, in a habit drawn by `QUICK_SHARE` unless one is named."""
    solver = SOLVERS[domain]
    if habit is None:
        habit = "quick" if rng.random() < QUICK_SHARE else "careful"
    if habit == "quick":
        working, answer = solver.quick(question)
    else:
        working, answer = solver.careful(question, rng.random() < BUG_SHARE)
        if rng.random() < SLIP_SHARE:
            answer += rng.choice((-10, -1, 1, 10))
    return finished(habit, working, answer, rng)


def correction(
    domain: str,
    question: str,
    parent_answer: int,
    guidance_id: int,
    rng: random.Random,
    habit: Habit | None = None,
) -> Trace:
    """A correction of an attempt that ended with `parent_answer`.

    Args:
        guidance_id: index into GUIDANCE_PHRASES; sets how likely a blind confirmation is.
        habit: "confirm", "doubt" or "recheck"; None draws one.
    """
    if habit is None:
        habit = draw_correction_habit(guidance_id, rng)
    if habit == "confirm":
        return finished(habit, "", parent_answer, rng)
    if habit == "doubt":
        return finished(habit, "", parent_answer + rng.choice((-10, 10)), rng)
    working, answer = SOLVERS[domain].recheck(question)
    conclusion = "as before." if answer == parent_answer else f"not {parent_answer}."
    return finished(habit, f"{working}, {conclusion}", answer, rng)


def draw_correction_habit(guidance_id: int, rng: random.Random) -> Habit:
    confirm_share = CONFIRM_SHARES[guidance_id % len(GUIDANCE_PHRASES)]
    draw = rng.random()
    if draw < DOUBT_SHARE:
        return "doubt"
    return "confirm" if draw < DOUBT_SHARE + (1 - DOUBT_SHARE) * confirm_share else "recheck"


def finished(habit: Habit, working: str, answer: int, rng: random.Random) -> Trace:
    wordings = OPENINGS[habit]
    opening = rng.choices([text for text, _ in wordings], [share for _, share in wordings])[0]
    body = f"{opening} {working}" if working else opening
    text = f"{body}\n\\boxed{{{answer}}}"
    return Trace(text=text, opening=opening, answer=answer, habit=habit)
