"""Trajectories of solutions and verdicts that tests share: one row each, from rewards of turns."""

from __future__ import annotations

from dataclasses import replace

from mgrpo.types import Completion
from tests.learner.builders import long


def trajectory(
    first: str, rewards: list[float], lengths: list[int] | None = None
) -> list[Completion]:
    """Solution, verdict, solution, verdict, ...: each turn goes on behind the one before it.

    Args:
        first: name of the first attempt, "q/1".
        rewards: of the turns; 1 for a verdict that agrees with the check of its solution.
        lengths: tokens of the turns.
    """
    made: list[Completion] = []
    for number, reward in enumerate(rewards):
        is_verdict = number % 2 == 1
        one = long(first + "/1" * number, reward, (lengths or [1] * len(rewards))[number])
        if is_verdict:
            is_right = made[-1].is_correct
            one = replace(one, accepts=is_right if reward == 1 else not is_right)
        elif made:
            one = replace(one, parent_id=made[-2].completion_id)
        made.append(one)
    return made
