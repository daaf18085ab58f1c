"""Training examples of the warm start: a prompt's ids, and the ids of a trace that answers it.

Prompts are built by the very code that builds them in a run (actors/templates.py), so the
policy meets in training what it was started on. Half of the examples are first attempts, the
rest corrections of attempts, one in fifteen of those a correction of a correction.

Six examples in ten are practice: a careful attempt or a recheck whose opening words belong to
the prompt. They teach how the good habits go on without teaching when to take them up; only
the others set how often each habit is chosen.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from actors.chat_format import Tokenizer
from actors.templates import PromptBuilder
from mgrpo.config.guidance import GUIDANCE_PHRASES
from mgrpo.config.layers import CorrectLayer, SolveLayer
from scripts.default_policy import traces
from scripts.default_policy.tiny_tokenizer import FIXED_SENTENCES, SHORT_REVIEW_SYSTEM_PROMPT

CORRECTION_SHARE = 0.5
PRACTICE_SHARE = 0.6
SECOND_CORRECTION_SHARE = 1 / 15
"""Share of the corrections whose parent is itself a correction."""
LAYOUT_SHARES = (("review_chat", 0.9), ("self_continue", 0.1))
SOLVE_SYSTEM_SHARES: tuple[tuple[str | None, float], ...] = (("", 0.9), (None, 0.1))
"""None: the layer's default system prompt, so that recipes with it work as well."""
REVIEW_SYSTEM_SHARES: tuple[tuple[str | None, float], ...] = (
    (SHORT_REVIEW_SYSTEM_PROMPT, 0.8),
    ("", 0.1),
    (None, 0.1),
)

Choice = TypeVar("Choice")
QuestionSource = Callable[[random.Random], tuple[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One prompt and the completion that the policy learns for it, end-of-turn included."""

    prompt_ids: list[int]
    completion_ids: list[int]


def solve_layers() -> dict[str | None, SolveLayer]:
    """By system prompt."""
    return {
        system: SolveLayer(name="solve", group_size=2, system_prompt=system)
        for system, _ in SOLVE_SYSTEM_SHARES
    }


def correct_layers() -> dict[tuple[str | None, str], CorrectLayer]:
    """By system prompt and layout."""
    return {
        (system, layout): CorrectLayer(
            name="correct",
            group_size=2,
            system_prompt=None if layout == "self_continue" else system,
            layout={"type": layout},
        )
        for system, _ in REVIEW_SYSTEM_SHARES
        for layout, _ in LAYOUT_SHARES
    }


class Corpus:
    """An endless stream of examples; the same `rng` gives the same stream."""

    def __init__(
        self, tokenizer: Tokenizer, draw_question: QuestionSource, *, end_of_turn_id: int
    ) -> None:
        self.builder = PromptBuilder(tokenizer)
        self.draw_question = draw_question
        self.end_of_turn_id = end_of_turn_id
        self.solve_layers, self.correct_layers = solve_layers(), correct_layers()

    def example(self, rng: random.Random) -> Example:
        domain, question = self.draw_question(rng)
        solve_layer = self.solve_layers[pick(SOLVE_SYSTEM_SHARES, rng)]
        prompt_ids = self.builder.solve_prompt(solve_layer, question)
        is_practice = rng.random() < PRACTICE_SHARE
        if rng.random() >= CORRECTION_SHARE:
            trace = traces.attempt(domain, question, rng, "careful" if is_practice else None)
            return self.answered(prompt_ids, trace, is_practice)
        # Half and half: after some training the attempts to be corrected are careful ones.
        habit: traces.Habit = "quick" if rng.random() < 0.5 else "careful"
        parent = traces.attempt(domain, question, rng, habit)
        layout = pick(LAYOUT_SHARES, rng)
        layer = self.correct_layers[pick(REVIEW_SYSTEM_SHARES, rng), layout]
        num_rounds = 2 if rng.random() < SECOND_CORRECTION_SHARE else 1
        for _ in range(num_rounds):
            guidance_id = rng.randrange(len(GUIDANCE_PHRASES))
            prompt_ids = self.builder.correction_prompt(
                layer,
                question,
                parent_prompt_ids=prompt_ids,
                parent_ids=self.completion_ids(parent),
                guidance=GUIDANCE_PHRASES[guidance_id],
            )
            parent = traces.correction(
                domain,
                question,
                parent.answer,
                guidance_id,
                rng,
                "recheck" if is_practice else None,
            )
        return self.answered(prompt_ids, parent, is_practice)

    def answered(self, prompt_ids: list[int], trace: traces.Trace, is_practice: bool) -> Example:
        ids = self.completion_ids(trace)
        num_given = len(self.builder.encode(trace.opening)) if is_practice else 0
        return Example(prompt_ids=[*prompt_ids, *ids[:num_given]], completion_ids=ids[num_given:])

    def completion_ids(self, trace: traces.Trace) -> list[int]:
        return [*self.builder.encode(trace.text), self.end_of_turn_id]


def tokenizer_texts(draw_question: QuestionSource, *, size: int, seed: int) -> Iterator[str]:
    """Questions and traces for learning the tokenizer's merges.

    The fixed sentences are left out: they are tokens already and would use merges up.
    """
    rng = random.Random(seed)
    for _ in range(size):
        domain, question = draw_question(rng)
        attempt = traces.attempt(domain, question, rng)
        guidance_id = rng.randrange(len(GUIDANCE_PHRASES))
        correction = traces.correction(domain, question, attempt.answer, guidance_id, rng)
        for sentence in FIXED_SENTENCES:
            question = question.replace(sentence, "\n")
        yield from (question, attempt.text, correction.text, "system\nuser\nassistant\n")


def pick(shares: tuple[tuple[Choice, float], ...], rng: random.Random) -> Choice:
    return rng.choices([choice for choice, _ in shares], [share for _, share in shares])[0]
