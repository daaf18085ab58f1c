"""Prompts of both turns, built as a run builds them, and examples to learn from."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from actors.chat_format import Tokenizer
from actors.templates import PromptBuilder
from mgrpo.config.guidance import GUIDANCE_PHRASES
from mgrpo.types import Problem
from scripts.default_policy.right_work.work import right_work
from scripts.default_policy.tiny_tokenizer import FIXED_SENTENCES, SHORT_REVIEW_SYSTEM_PROMPT
from scripts.default_policy.warm_start_corpus import (
    LAYOUT_SHARES,
    REVIEW_SYSTEM_SHARES,
    SOLVE_SYSTEM_SHARES,
    Example,
    correct_layers,
    pick,
    solve_layers,
)

EQUATION_SENTENCES = (
    "Find the value of",
    " in the equation:",
    "Solve for",
    "Determine the value of",
    " that satisfies:",
)
SENTENCES = (*FIXED_SENTENCES, *EQUATION_SENTENCES)
"""What is one token in the candidate's tokenizer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """A completion that the policy itself sampled, and whether the family's check accepts it."""

    problem: Problem
    ids: list[int]
    is_right: bool


class Turns:
    """Prompts with the shares of layouts and system prompts that the shipped policy knows."""

    def __init__(self, tokenizer: Tokenizer, end_of_turn_id: int) -> None:
        self.builder = PromptBuilder(tokenizer)
        self.end_of_turn_id = end_of_turn_id
        self.solve_layers, self.correct_layers = solve_layers(), correct_layers()

    def first(self, problem: Problem, rng: random.Random) -> Example:
        """Right work for the problem alone."""
        layer = self.solve_layers[pick(SOLVE_SYSTEM_SHARES, rng)]
        prompt_ids = self.builder.solve_prompt(layer, problem)
        return self.answered(prompt_ids, problem)

    def second(self, attempt: Attempt, rng: random.Random) -> Example:
        """Right work behind an attempt, whatever that was."""
        key = pick(REVIEW_SYSTEM_SHARES, rng), pick(LAYOUT_SHARES, rng)
        system = pick(SOLVE_SYSTEM_SHARES, rng)
        before = self.builder.solve_prompt(self.solve_layers[system], attempt.problem)
        prompt_ids = self.builder.correction_prompt(
            self.correct_layers[key],
            attempt.problem,
            parent_prompt_ids=before,
            parent_ids=attempt.ids,
            guidance=rng.choice(GUIDANCE_PHRASES),
        )
        return self.answered(prompt_ids, attempt.problem)

    def answered(self, prompt_ids: list[int], problem: Problem) -> Example:
        ids = self.builder.encode(right_work(problem))
        return Example(prompt_ids=prompt_ids, completion_ids=[*ids, self.end_of_turn_id])

    def recipe_first(self, problem: Problem) -> list[int]:
        """The prompt of the shipped recipes' first layer."""
        return self.builder.solve_prompt(self.solve_layers[""], problem)

    def recipe_second(self, problem: Problem, attempt_ids: Sequence[int], phrase: str) -> list[int]:
        """The prompt of the shipped recipes' second layer."""
        return self.builder.correction_prompt(
            self.correct_layers[SHORT_REVIEW_SYSTEM_PROMPT, "review_chat"],
            problem,
            parent_prompt_ids=self.recipe_first(problem),
            parent_ids=attempt_ids,
            guidance=phrase,
        )


def tokenizer_texts(problems: Sequence[Problem]) -> list[str]:
    """Questions without the sentences that are tokens already, and right work for them."""
    texts = []
    for problem in problems:
        question = problem.question
        for sentence in SENTENCES:
            question = question.replace(sentence, "\n")
        texts += [question, right_work(problem), "system\nuser\nassistant\n"]
    return texts
