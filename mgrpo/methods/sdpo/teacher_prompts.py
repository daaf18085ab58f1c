"""How a prompt looks that shows a right solution, for `sdpo`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from pydantic import model_validator

from actors.plugin import RolloutPlugin, RolloutTools
from actors.templates import fill, system_turn
from mgrpo.config.base import StrictConfig, refuse
from mgrpo.errors import DataError
from mgrpo.types import Completion, Problem

AROUND, NUM_TOKENS = "teacher_prompt", "solution_tokens"
"""In the metadata: token ids before and behind the solution in the teacher's prompt; the number of
tokens of the completion where it is the solution, without what ends its turn."""
PLACE = "\ue000solution\ue001"


class TeacherPromptSettings(StrictConfig):
    """Keys of teacher_prompts."""

    system_prompt: str = ""
    """Of the teacher's prompt; "" has no system turn."""
    template: str = "{problem}\n\nA right solution:\n{solution}\n\nSolve the problem yourself."
    """The teacher's user turn (wording is ours)."""

    @model_validator(mode="after")
    def check_template(self) -> TeacherPromptSettings:
        for name in ("{problem}", "{solution}"):
            if self.template.count(name) != 1:
                refuse("template", repr(self.template[:60]), f"must contain {name} once.")
        return self


class TeacherPrompts(RolloutPlugin):
    """Writes into the metadata of each completion what stands around a solution in the teacher's
    prompt, and how many of its tokens a solution has. The learner puts the two together, once all
    of the problem is sampled."""

    Settings: ClassVar[type[StrictConfig]] = TeacherPromptSettings
    read_by: ClassVar[tuple[str, ...]] = ("sdpo",)

    async def after_sampling(
        self, tools: RolloutTools, layer: int, problem: Problem, completions: Sequence[Completion]
    ) -> list[Completion]:
        builder = tools.builder
        user = fill(self.settings.template, problem=problem.question, solution=PLACE)
        text = builder.render(
            [*system_turn(self.settings.system_prompt), {"role": "user", "content": user}]
        )
        pieces = text.split(PLACE)
        if len(pieces) != 2:
            raise DataError(
                f"The place of the solution occurs {len(pieces) - 1} times in a teacher's prompt, "
                "expected once: the chat template changes it, or the question contains it. "
                f"Question: {problem.question[:99]!r}"
            )
        around = [builder.encode(piece) for piece in pieces]
        return [
            replace(one, metadata={**one.metadata, AROUND: around, NUM_TOKENS: count})
            for one in completions
            for count in [len(builder.without_end_of_turn(one.token_ids))]
        ]
