"""Checks that the rewards' functions load, run and distinguish a correct answer from none."""

from __future__ import annotations

from collections.abc import Sequence

from mgrpo.config import CheckTerm, LayerConfig, RewardsConfig
from mgrpo.config.default_prompts import READ_BOXES, READ_PROGRAMS
from mgrpo.config.layers import later_layers
from mgrpo.config.services import ServiceTerm
from mgrpo.errors import RewardError
from mgrpo.findings import CheckLine
from mgrpo.types import Problem, Reward
from rewards.pool import RewardPool
from rewards.score import distinct
from rewards.task_answer import VERIFYING, task_of

MAX_ROWS = 3  # of different domains, where there are several
MIN_ROWS = 2
NO_ANSWER = "I do not know."
SHOWN_FEEDBACK_CHARS = 200
SHOWN_CHARACTERS = 100  # of a completion
EXAMPLES = [
    Problem(problem_id="sample", question="What is 3 + 4?", answer="7"),
    Problem(problem_id="another sample", question="What is 5 + 6?", answer="11"),
]


def reward_lines(
    rewards: RewardsConfig, layers: Sequence[LayerConfig], problems: Sequence[Problem]
) -> list[CheckLine]:
    """Score the reference answer and an empty one of some rows, in a process as in a run."""
    alone = rewards.model_copy(update={"num_processes": 1})
    names = distinct([term.function for term in rewards.terms])
    total = " + ".join(
        f"{term.weight:g} x {name}"
        + ("" if isinstance(term, CheckTerm | ServiceTerm) else f" ({term.KEY})")
        for term, name in zip(rewards.terms, names, strict=True)
    )
    functions = {term.function for term in rewards.terms}
    samples = probed(problems)
    lines: list[CheckLine] = []
    said: list[str] = []
    try:
        with RewardPool(alone, problems=samples) as pool:
            for problem in samples:
                task = task_of(problem) if functions & set(VERIFYING) else None
                scorer = total if task is None else f"{total} ({task.name}: its own verifier)"
                texts = [right_answer(problem, functions), NO_ANSWER]
                token_ids = [list(text.encode()) for text in texts]  # in place of a tokenizer's
                scored = pool.score_blocking(problem, texts, token_ids)
                lines.append(scored_line(scorer, problem, texts, scored, names))
                said += [reward.feedback for reward in scored]
                if lines[-1].status == "fail":
                    break  # a check that hung once would hang again
    except RewardError as error:
        return [CheckLine("fail", "rewards", str(error))]
    told = [one.name for one in later_layers(layers) if one.guidance.feedback_tokens]
    if told and not any(said):
        text = (
            f"the guidance of {', '.join(told)} is from: check, and no check gave feedback here; "
            "without it corrections read a phrase. Return a Reward with feedback"
        )
        lines.append(CheckLine("warn", "rewards", text))
    return lines


def right_answer(problem: Problem, functions: set[str]) -> str:
    """The reference answer as the checks read it: in a box, or a program as it is."""
    if functions & set(READ_PROGRAMS) and not functions & set(READ_BOXES):
        return problem.answer
    return f"The result is \\boxed{{{problem.answer}}}"


def on_a_line(text: str) -> str:
    shown = text.replace("\n", "\\n")
    return shown if len(shown) <= SHOWN_CHARACTERS else f"{shown[:SHOWN_CHARACTERS]}..."


def unreachable_line(rewards: RewardsConfig) -> CheckLine | None:
    """For a job on a cluster, whose driver may reach services that this machine does not."""
    services = [term.function for term in rewards.terms if isinstance(term, ServiceTerm)]
    if not services:
        return None
    text = f"not tried from here: {', '.join(services)} is asked by the job when it starts"
    return CheckLine("warn", "rewards", text)


def probed(problems: Sequence[Problem]) -> list[Problem]:
    """The first row of each domain, or two rows."""
    if not problems:
        return EXAMPLES
    firsts = list({problem.domain: problem for problem in reversed(problems)}.values())
    others = [problem for problem in problems[:MIN_ROWS] if problem not in firsts]
    return [*firsts, *others][: max(MIN_ROWS, min(len(firsts), MAX_ROWS))]


def scored_line(
    total: str,
    problem: Problem,
    texts: Sequence[str],
    rewards: Sequence[Reward],
    names: Sequence[str],
) -> CheckLine:
    """The line for one row's two completions, the right one first."""
    for text, reward in zip(texts, rewards, strict=True):
        if not reward.is_usable:
            return CheckLine(
                "fail",
                "rewards",
                f"{total}: {reward.status} on '{on_a_line(text)}' for {problem.problem_id}: "
                f"{reward.detail}. Such completions would not train; fix the check.",
            )
    of_right, of_none = rewards
    values = ", ".join(
        f"{reward.value:g} for '{on_a_line(text)}'{returned(reward, names)}{told(reward)}"
        for text, reward in zip(texts, rewards, strict=True)
    )
    if not problem.answer:
        values += f"; {problem.problem_id} has no reference answer to try it with"
    if not problem.answer or (of_right.correct and of_right.value > of_none.value):
        return CheckLine("ok", "rewards", f"{total}: {values}")
    what = (
        "does not count as correct" if not of_right.correct else "scores no higher than no answer"
    )
    return CheckLine(
        "warn",
        "rewards",
        f"{total}: the reference answer {what} ({problem.problem_id}): {values}. {of_right.detail}",
    )


def returned(reward: Reward, names: Sequence[str]) -> str:
    """What each function returned, where there are several numbers."""
    if list(reward.parts) == list(names) and len(names) == 1:
        return ""
    left_out = {name: "left out" for name in names if name not in reward.parts}
    shown = [f"{name} {value:g}" for name, value in reward.parts.items()]
    return f" ({', '.join([*shown, *(f'{name} {what}' for name, what in left_out.items())])})"


def told(reward: Reward) -> str:
    """The feedback for a correction, where there is any."""
    return f", feedback {reward.feedback[:SHOWN_FEEDBACK_CHARS]!r}" if reward.feedback else ""
