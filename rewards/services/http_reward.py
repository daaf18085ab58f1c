"""The term `http`: a server that scores a group in one request.

It is posted

    {"version": 1,
     "problem": {"problem_id": ..., "question": ..., "answer": ..., "solution": ..., "domain": ...,
                 "source": ..., "messages": [{"role": ..., "content": ...}, ...], "opening": "",
                 "metadata": {}},
     "completions": ["...", ...]}

and answers with a list, or {"rewards": [...]}, that has for each completion a number, a bool, null
(which leaves the term out) or

    {"score": 0.5, "correct": false, "feedback": "...", ...}

of which only `score` is needed. Further numbers are recorded beside the reward.
"""

from __future__ import annotations

from dataclasses import replace

from mgrpo.config.services import HttpTerm
from mgrpo.records.json_object import JsonObject
from mgrpo.types import Problem
from rewards.conventions import FEEDBACK, Group, with_others, without
from rewards.score import Outcome, as_reward
from rewards.services.connection import Answered, Connection
from rewards.services.service import Progress, Service

VERSION = 1
"""Of the request; raised when a field changes its meaning or goes."""
FORM = (
    'It must answer with a list, or {"rewards": [...]}, of a number, null or {"score": ...} for '
    "each completion: docs/guides/judges.md"
)


class HttpReward(Service):
    """A server that scores groups."""

    def __init__(self, term: HttpTerm) -> None:
        self.term = term
        self.connection = Connection(term.http, term)

    async def score(self, group: Group, on_progress: Progress) -> list[Outcome]:
        answered = await self.connection.post(request_of(group), on_progress)
        try:
            found = read_answer(answered.data, len(group.texts), self.term.correct_at)
        except ValueError as error:
            raise self.connection.wrong(answered.text, str(error), FORM) from None
        return [measured(one, answered) for one in found]


def request_of(group: Group) -> JsonObject:
    return {
        "version": VERSION,
        "problem": described_problem(group.problem),
        "completions": list(group.texts),
    }


def described_problem(problem: Problem) -> JsonObject:
    return {
        "problem_id": problem.problem_id,
        "question": problem.question,
        "answer": problem.answer,
        "solution": problem.solution,
        "domain": problem.domain,
        "source": problem.source,
        "messages": problem.chat,
        "opening": problem.prompt_opening or "",
        "metadata": problem.metadata,
    }


def read_answer(data: object, count: int, correct_at: float | None) -> list[Outcome]:
    """What a server says of each completion: [count].

    Raises:
        ValueError: it is of another form; with what is wrong.
    """
    entries = data.get("rewards") if isinstance(data, dict) else data
    if not isinstance(entries, list):
        raise ValueError("there is no list of rewards")
    if len(entries) != count:
        raise ValueError(f"there are {len(entries)} rewards for {count} completions")
    return [read_entry(entry, number, correct_at) for number, entry in enumerate(entries)]


def read_entry(entry: object, number: int, correct_at: float | None) -> Outcome:
    if entry is None:
        return None
    columns = entry if isinstance(entry, dict) else {"score": entry}
    if "score" not in columns:
        raise ValueError(f"reward {number} has no score")
    score, correct = columns["score"], columns.get("correct")
    if not isinstance(score, int | float):
        raise ValueError(f"the score of reward {number} is {score!r:.40}, not a number")
    if not (correct is None or isinstance(correct, bool)):
        raise ValueError(f"`correct` of reward {number} is {correct!r:.40}, not true or false")
    if not isinstance(columns.get(FEEDBACK, ""), str):
        raise ValueError(f"the feedback of reward {number} is not a text")
    others = without(columns, "score", "correct")
    try:
        reward = as_reward(score, correct_at)
        if not reward.is_usable:
            raise ValueError(f"the score of reward {number} is {score!r}, not a finite number")
        if correct is not None:
            reward = replace(reward, correct=correct)
        return with_others(reward, others)
    except OverflowError:  # JSON has whole numbers of any length
        raise ValueError(f"a number of reward {number} is too large") from None


def measured(outcome: Outcome, answered: Answered) -> Outcome:
    """With how long its request took, as parts of the reward."""
    if outcome is None:
        return None
    times = {"latency_s": answered.seconds, "retries": float(answered.retries)}
    return replace(outcome, parts={**outcome.parts, **times})
