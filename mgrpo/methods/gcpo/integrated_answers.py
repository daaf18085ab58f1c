"""Lets the policy put the answers to a prompt together, for `gcpo`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import ClassVar

from pydantic import NonNegativeInt, PositiveInt, model_validator

from actors.layers import stable_seed
from actors.plugin import RolloutPlugin, RolloutTools
from actors.templates import PromptBuilder, fill, turns_before
from mgrpo.config.base import StrictConfig, refuse
from mgrpo.errors import DataError
from mgrpo.methods.gcpo.answer_contexts import AnswerContexts
from mgrpo.records.turns import Prompt
from mgrpo.types import Completion, Problem

ANSWERS, INTEGRATED = "\ue000answers\ue001", "\ue000integrated\ue001"
SEPARATOR = "\n---\n"


class IntegratedSettings(StrictConfig):
    """Keys of integrated_answers."""

    num_alternatives: PositiveInt = 1
    """Further integrated answers of each prompt, that the first is compared with. The paper samples
    as many as there are answers; 1 is our cheap form."""
    context_samples: NonNegativeInt = 0
    """Completions sampled from every context, whose hidden states are averaged: the paper samples
    as many as there are answers, which costs about their number cubed. 0: the state where the
    context ends stands for them, which samples nothing."""
    max_answer_tokens: PositiveInt = 512
    """A context shows the last so many tokens of each answer, fewer where max_context_tokens asks
    for it."""
    max_context_tokens: PositiveInt = 8192
    """Longest context. Engines are laid out for it beside the longest completion."""
    max_new_tokens: PositiveInt = 512
    """Longest integrated answer, and longest completion sampled from a context."""
    system_prompt: str = ""
    """Of contexts, where the problem has no system turn of its own; "" has none."""
    integrate_template: str = (
        "{problem}\n\nAnswers that were given:{answers}\n\nPut them together to one answer."
    )
    """What the policy is asked for an integrated answer (wording is ours)."""
    context_template: str = (
        "{problem}\n\nAnswers that were given:{answers}\n\nPut together:\n{integrated}"
    )
    """What a context shows (wording is ours)."""

    @model_validator(mode="after")
    def check_templates(self) -> IntegratedSettings:
        wanted = {
            "integrate_template": ("{problem}", "{answers}"),
            "context_template": ("{problem}", "{answers}", "{integrated}"),
        }
        for key, names in wanted.items():
            template = getattr(self, key)
            places = [template.find(name) for name in names]
            if min(places) < 0 or places[1:] != sorted(places[1:]):
                why = f"must contain {', '.join(names)}, the answers before what is made of them."
                refuse(key, repr(template[:60]), why)
        return self


class IntegratedAnswers(RolloutPlugin):
    """Asks the policy, after each group is sampled, for answers that put the group's together, and
    writes what contexts are built of into the metadata of the group's completions. These answers
    are not trained, not scored and not compared."""

    Settings: ClassVar[type[StrictConfig]] = IntegratedSettings
    read_by: ClassVar[tuple[str, ...]] = ("gcpo",)

    def extra_tokens(self) -> int:
        """Beside a completion, engines also take a context and what they say to it."""
        return int(self.settings.max_context_tokens + self.settings.max_new_tokens)

    async def after_sampling(
        self, tools: RolloutTools, layer: int, problem: Problem, completions: Sequence[Completion]
    ) -> list[Completion]:
        if not completions:
            return []
        builder, settings = tools.builder, self.settings
        answers = {one.completion_id: builder.whole_answer(one.token_ids) for one in completions}
        before, after = self.rendered(builder, settings.integrate_template, problem, ANSWERS)
        opening, bridge, closing = self.rendered(
            builder, settings.context_template, problem, ANSWERS, INTEGRATED
        )
        separator = builder.encode(SEPARATOR)
        fixed = max(len(before) + len(after), len(opening) + len(bridge) + len(closing))
        longest = self.answer_tokens(fixed, len(separator), len(answers), problem)
        prompt = list(before)
        for answer in answers.values():
            prompt += separator + answer[-longest:]
        generations = await tools.generate(
            layer,
            Prompt.of(prompt + after),
            num_samples=1 + settings.num_alternatives,
            max_tokens=settings.max_new_tokens,
            seed=stable_seed(tools.seed, completions[0].completion_id, "integrate"),
        )
        contexts = AnswerContexts(
            opening=opening,
            separator=separator,
            bridge=bridge,
            closing=closing,
            max_answer_tokens=longest,
            answers=answers,
            integrated=[builder.whole_answer(one.token_ids) for one in generations],
        )
        spoken = await self.samples_of(tools, layer, contexts, completions)
        return [
            replace(
                one,
                metadata={
                    **one.metadata,
                    "answer_contexts": asdict(contexts),
                    "context_samples": own,
                },
            )
            for one, own in zip(completions, spoken, strict=True)
        ]

    def rendered(
        self, builder: PromptBuilder, template: str, problem: Problem, *marks: str
    ) -> list[list[int]]:
        """Token ids of a chat prompt's pieces around the places of `marks`.

        Raises:
            DataError: the chat template loses a place, or the question holds one.
        """
        question = problem.question
        user = fill(template, problem=question, answers=ANSWERS, integrated=INTEGRATED)
        before = turns_before(self.settings.system_prompt, problem)
        text = builder.render([*before, {"role": "user", "content": user}])
        pieces = []
        for mark in marks:
            piece, found, text = text.partition(mark)
            if not found or mark in text:
                raise DataError(
                    "The place of the answers must occur once in a context, and does not: the chat "
                    f"template changes it, or the question contains it. Question: {question[:99]!r}"
                )
            pieces.append(piece)
        return [builder.encode(piece) for piece in (*pieces, text)]

    def answer_tokens(self, fixed: int, separator: int, num_answers: int, problem: Problem) -> int:
        """How much of each answer a context has room for.

        Raises:
            DataError: for none of it.
        """
        room = self.settings.max_context_tokens - fixed - separator * num_answers
        longest = min(self.settings.max_answer_tokens, room // (num_answers + 1))
        if longest < 1:
            raise DataError(
                f"A context of problem {problem.problem_id} has no room for {num_answers} answers: "
                f"its own text takes {fixed} of {self.settings.max_context_tokens} tokens. Raise "
                "max_context_tokens of integrated_answers, or leave long problems out "
                "(data.max_prompt_tokens)."
            )
        return longest

    async def samples_of(
        self,
        tools: RolloutTools,
        layer: int,
        contexts: AnswerContexts,
        completions: Sequence[Completion],
    ) -> list[list[list[list[int]]]]:
        """Token ids of what is sampled from every context: by completion, integrated answer, and
        number."""
        count = self.settings.context_samples
        if count == 0:
            return [[] for _ in completions]
        asked = [
            tools.generate(
                layer,
                Prompt.of(contexts.prompt(one.completion_id, number)),
                num_samples=count,
                max_tokens=self.settings.max_new_tokens,
                seed=stable_seed(tools.seed, one.completion_id, "context", number),
            )
            for one in completions
            for number in range(len(contexts.integrated))
        ]
        found = iter(await asyncio.gather(*asked))
        return [
            [[one.token_ids.tolist() for one in next(found)] for _ in contexts.integrated]
            for _ in completions
        ]
