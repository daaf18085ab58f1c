"""The term `judge`: a language model scores completions, over an OpenAI-compatible endpoint."""

from __future__ import annotations

import asyncio

from mgrpo.config.services import JudgeTerm
from mgrpo.types import Problem, Reward
from rewards.conventions import Group
from rewards.score import Outcome, as_reward, failed, tidy_feedback
from rewards.services.connection import Connection
from rewards.services.http_reward import measured
from rewards.services.service import Progress, Service, ServiceFailure, ServiceTimeout
from rewards.services.verdict import NoVerdict, Verdict, read_verdict, reply_in, request_of

ADVICE = "Change the judge's prompt, its verdict (schema, json, pattern) or the model."
NO_SCHEMA = (
    "If the endpoint does not enforce JSON schemas, set `verdict: json` of the term. What the "
    "endpoint does not take can be left out: temperature: null, max_tokens: null."
)


class Judge(Service):
    """A model that judges each completion in a request of its own."""

    def __init__(self, term: JudgeTerm) -> None:
        self.term = term
        self.connection = Connection(f"{term.url.rstrip('/')}/chat/completions", term)

    async def score(self, group: Group, on_progress: Progress) -> list[Outcome]:
        judged = (self.judge(group.problem, text, on_progress) for text in group.texts)
        return list(await asyncio.gather(*judged))

    async def judge(self, problem: Problem, text: str, on_progress: Progress) -> Outcome:
        """One completion's; a request that fails is its failure alone."""
        try:
            answered = await self.connection.post(request_of(self.term, problem, text), on_progress)
        except ServiceTimeout as error:
            return failed("timeout", str(error))
        except ServiceFailure as error:
            hint = f" {NO_SCHEMA}" if " answered 4" in str(error) else ""
            return failed("error", f"{error}{hint}")
        except NoVerdict as error:
            return failed("error", f"the judge was not asked: {error}.")
        said = answered.text
        try:
            said = reply_in(answered.data)
            verdict = read_verdict(said, self.term)
        except NoVerdict as error:
            return failed("error", str(self.connection.wrong(said, str(error), ADVICE)))
        return measured(reward_of(verdict, self.term), answered)


def reward_of(verdict: Verdict, term: JudgeTerm) -> Reward:
    """The score on a scale from 0 to 1, with the critique as feedback."""
    lowest, highest = term.scale
    reward = as_reward((verdict.score - lowest) / (highest - lowest), term.correct_at)
    critique = tidy_feedback(verdict.critique) if term.critique else ""
    return Reward(value=reward.value, correct=reward.correct, feedback=critique)
