"""Checks that the rewards' checks load, run and distinguish a correct answer from none."""

from __future__ import annotations

from collections.abc import Sequence

from mgrpo.config import RewardsConfig
from mgrpo.errors import RewardError
from mgrpo.findings import CheckLine
from mgrpo.types import Problem, Reward
from rewards.pool import RewardPool
from rewards.task_answer import VERIFYING, task_of

MAX_DOMAINS = 3  # one problem of each is tried
NO_ANSWER = "I do not know."


def reward_lines(rewards: RewardsConfig, problems: Sequence[Problem]) -> list[CheckLine]:
    """Score the reference answer and an empty one, in a process as in a run."""
    samples = list({problem.domain: problem for problem in reversed(problems)}.values())
    if not samples:
        samples = [Problem(problem_id="sample", question="What is 3 + 4?", answer="7")]
    alone = rewards.model_copy(update={"num_processes": 1})
    names = " + ".join(f"{term.weight:g} x {term.check}" for term in rewards.terms)
    verifies = any(term.check in VERIFYING for term in rewards.terms)
    lines: list[CheckLine] = []
    try:
        with RewardPool(alone, problems=samples) as pool:
            for problem in samples[:MAX_DOMAINS]:
                task = task_of(problem) if verifies else None
                judge = names if task is None else f"{names} ({task.name}: its own verifier)"
                right = f"The result is \\boxed{{{problem.answer}}}"
                scored = pool.score_blocking(problem, [right, NO_ANSWER])
                lines.append(judged(judge, problem, right, *scored))
                if lines[-1].status == "fail":
                    break  # a check that hung once would hang again
    except RewardError as error:
        return [CheckLine("fail", "rewards", str(error))]
    return lines


def judged(
    names: str, problem: Problem, right: str, of_right: Reward, of_none: Reward
) -> CheckLine:
    """The line for one problem's two rewards."""
    for text, reward in ((right, of_right), (NO_ANSWER, of_none)):
        if not reward.is_usable:
            return CheckLine(
                "fail",
                "rewards",
                f"{names}: {reward.status} on '{text}' for {problem.problem_id}: {reward.detail}. "
                "Such completions would not train; fix the check.",
            )
    values = f"{of_right.value:g} for '{right}', {of_none.value:g} for '{NO_ANSWER}'"
    if of_right.correct and of_right.value > of_none.value:
        return CheckLine("ok", "rewards", f"{names}: {values}")
    what = (
        "does not count as correct" if not of_right.correct else "scores no higher than no answer"
    )
    return CheckLine(
        "warn",
        "rewards",
        f"{names}: the reference answer in a box {what} ({problem.problem_id}): {values}. "
        f"{of_right.detail}",
    )
