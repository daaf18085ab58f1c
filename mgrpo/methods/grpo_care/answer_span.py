"""Marks the final answer of a completion, for plug-ins that look at its tokens."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from actors.plugin import RolloutPlugin, RolloutTools
from actors.spans import Decode, Span, token_ranges
from mgrpo.config.base import StrictConfig
from mgrpo.types import Completion


class AnswerSettings(StrictConfig):
    """Keys of answer_span."""

    marker: str | None = "\\boxed{"
    """The answer is looked for behind the last one of these. Null, or where it is missing: the last
    place at which the answer is written."""
    span: str = "answer"
    """Name under which the answer is marked."""


class AnswerSpan(RolloutPlugin):
    """Finds the answer that the check read (`Reward.extracted_answer`) among the tokens.

    A token that begins before the answer and holds its first character belongs to it. Without an
    answer that could be read nothing is marked.
    """

    Settings: ClassVar[type[StrictConfig]] = AnswerSettings

    def annotate(self, tools: RolloutTools, completion: Completion) -> Completion:
        reward = completion.reward
        if reward is None or not reward.extracted_answer:
            return completion
        decode = tools.builder.decode
        token_ids = completion.token_ids.tolist()
        text = decode(token_ids)
        found = answer_place(text, reward.extracted_answer, self.settings.marker)
        if found is None:
            return completion
        ranges = [overlapping_tokens(decode, token_ids, found)]
        return replace(completion, spans={**completion.spans, self.settings.span: ranges})


def answer_place(text: str, answer: str, marker: str | None) -> Span | None:
    """The characters of an answer in a text; None where it is not in there as it stands."""
    last = -1 if marker is None else text.rfind(marker)
    start = text.rfind(answer) if last < 0 else text.find(answer, last + len(marker or ""))
    return None if start < 0 else (start, start + len(answer))


def overlapping_tokens(decode: Decode, token_ids: list[int], chars: Span) -> Span:
    """The tokens that hold any of the characters."""
    ((first, last),) = token_ranges(decode, token_ids, [chars])
    if first > 0 and len(decode(token_ids[:first])) > chars[0]:
        first -= 1
    return first, last
