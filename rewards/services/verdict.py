"""What a judge is asked for, and how its reply is read. Pure."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mgrpo.config.services import JudgeTerm
from mgrpo.records.json_object import JsonObject
from mgrpo.types import Problem

READ_CHARS = 20_000  # the end of a reply, where the verdict is
SCORE = "score"
CRITIQUE = "critique"


class NoVerdict(Exception):
    """The reply has none; with the reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A judge's score, on its own scale, and what it says is wrong."""

    score: float
    critique: str = ""


def messages_for(term: JudgeTerm, problem: Problem, completion: str) -> list[dict[str, str]]:
    """The judge's prompt.

    Raises:
        NoVerdict: the prompt names a column that the row does not have.
    """
    try:
        asked = term.prompt.format(
            question=problem.question,
            completion=(problem.prompt_opening or "") + completion,
            reference=problem.answer,
            solution=problem.solution,
            domain=problem.domain,
            row=problem.metadata,
        )
    except KeyError as error:
        raise NoVerdict(
            f"its prompt names the column {error}, and the row has "
            f"{', '.join(problem.metadata) or 'none'}. Keep it (metadata_fields of the data)"
        ) from None
    system = term.system_prompt
    turns = [] if system is None else [{"role": "system", "content": system}]
    return [*turns, {"role": "user", "content": f"{asked}\n{form_of(term)}".strip()}]


def form_of(term: JudgeTerm) -> str:
    """What the prompt says about the verdict's form; a pattern's is the recipe's to say."""
    if term.verdict == "pattern":
        return ""
    lowest, highest = term.scale
    score = f'"{SCORE}": a whole number from {lowest} (worst) to {highest} (best)'
    if not term.critique:
        return f"Reply with one JSON object and nothing else: {{{score}}}"
    critique = f'"{CRITIQUE}": what is wrong, in a few sentences and without the right answer'
    return f"Reply with one JSON object and nothing else: {{{critique}, {score}}}"


def request_of(term: JudgeTerm, problem: Problem, completion: str) -> JsonObject:
    """The body of a request to /chat/completions."""
    body: JsonObject = {
        "model": term.judge,
        "messages": messages_for(term, problem, completion),
        "temperature": term.temperature,
        "max_tokens": term.max_tokens,
    }
    if term.verdict == "schema":
        schema = {"name": "verdict", "strict": True, "schema": schema_of(term)}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    return {key: one for key, one in body.items() if one is not None} | term.extra_body


def schema_of(term: JudgeTerm) -> JsonObject:
    """The JSON schema of a verdict: the critique first, so that the score follows from it."""
    lowest, highest = term.scale
    critique: JsonObject = {"type": "string"}
    if term.max_critique_chars is not None:
        critique["maxLength"] = term.max_critique_chars
    score = {"type": "integer", "minimum": lowest, "maximum": highest}
    properties = {CRITIQUE: critique, SCORE: score} if term.critique else {SCORE: score}
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def reply_in(answer: Any) -> str:
    """The text of an endpoint's answer.

    Raises:
        NoVerdict: there is none, or it is cut.
    """
    try:
        choice = answer["choices"][0]
        content = choice["message"]["content"]
    except (KeyError, IndexError, TypeError):
        raise NoVerdict("it has no choices[0].message.content") from None
    if choice.get("finish_reason") == "length":
        raise NoVerdict("the reply is cut at max_tokens; raise max_tokens, or set critique: false")
    if not isinstance(content, str):
        raise NoVerdict("the reply has no text")
    return content


def read_verdict(reply: str, term: JudgeTerm) -> Verdict:
    """The verdict of a reply.

    Raises:
        NoVerdict: there is none, or its score is not on the scale.
    """
    text = reply[-READ_CHARS:]
    if term.verdict == "pattern":
        assert term.pattern is not None
        verdict = verdict_by_pattern(text, term.pattern)
    else:
        found = last_object(text)
        if found is None:
            raise NoVerdict(f'the reply has no JSON object with "{SCORE}"')
        critique = found.get(CRITIQUE, "")
        verdict = Verdict(
            score=number_of(found[SCORE]), critique=critique if isinstance(critique, str) else ""
        )
    lowest, highest = term.scale
    if not lowest <= verdict.score <= highest:
        raise NoVerdict(f"the score {verdict.score:g} is not from {lowest} to {highest}")
    return verdict


def verdict_by_pattern(text: str, pattern: str) -> Verdict:
    matches = list(re.finditer(pattern, text))
    if not matches:
        raise NoVerdict(f"the reply does not match the pattern {pattern!r}")
    match = matches[-1]  # a judge may quote the completion before it decides
    named = match.groupdict()
    score = named[SCORE] if SCORE in named else match[1]
    critique = named[CRITIQUE] if CRITIQUE in named else text[: match.start()].strip()
    return Verdict(score=number_of(score), critique=critique or "")


def last_object(text: str) -> Mapping[str, Any] | None:
    """The last JSON object of a text that has a score, and is not inside another one."""
    decoder = json.JSONDecoder()
    found, at = None, text.find("{")
    while at >= 0:
        end = at + 1
        try:
            value, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            value = None
        if isinstance(value, dict) and SCORE in value:
            found = value
        at = text.find("{", end)
    return found


def number_of(score: object) -> float:
    """A score, which a judge may write as a text.

    Raises:
        NoVerdict: it is no finite number.
    """
    try:
        number = math.nan if isinstance(score, bool) else float(score)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise NoVerdict(f"the score is {score!r:.40}, not a number")
    return number
