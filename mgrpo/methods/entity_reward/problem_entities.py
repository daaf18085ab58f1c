"""Gives completions the entities of their problem, for `entity_reward`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from pydantic import model_validator

from actors.plugin import RolloutPlugin, RolloutTools
from mgrpo.config.base import StrictConfig, refuse
from mgrpo.errors import DataError
from mgrpo.types import Completion, Problem


class EntitySettings(StrictConfig):
    """Keys of problem_entities."""

    key: str = "entities"
    """Which of a problem's metadata holds its entities, a list of texts. Data files name such
    columns in metadata_fields."""
    pattern: str | None = None
    """Regular expression whose matches in the question are entities too, for data without
    annotations: "[0-9]+" takes the numbers. Null: annotations alone."""

    @model_validator(mode="after")
    def check_pattern(self) -> EntitySettings:
        try:
            re.compile(self.pattern or "")
        except re.error as error:
            refuse("pattern", repr(self.pattern), f"is no regular expression: {error}.")
        return self


class ProblemEntities(RolloutPlugin):
    """Writes the entities that a question was built from into `metadata["entities"]` of its
    completions. A problem without any leaves them empty."""

    Settings: ClassVar[type[StrictConfig]] = EntitySettings
    read_by: ClassVar[tuple[str, ...]] = ("entity_reward",)

    async def after_sampling(
        self, tools: RolloutTools, layer: int, problem: Problem, completions: Sequence[Completion]
    ) -> list[Completion]:
        found = self.entities_of(problem)
        return [replace(one, metadata={**one.metadata, "entities": found}) for one in completions]

    def entities_of(self, problem: Problem) -> list[str]:
        """Each entity once, annotated ones first.

        Raises:
            DataError: the annotation is not a list of texts.
        """
        annotated = problem.metadata.get(self.settings.key, [])
        if not isinstance(annotated, list) or not all(isinstance(one, str) for one in annotated):
            raise DataError(
                f"The metadata {self.settings.key!r} of problem {problem.problem_id} is "
                f"{annotated!r:.80}; entities must be a list of texts."
            )
        matched = []
        if self.settings.pattern is not None:
            matched = [one.group() for one in re.finditer(self.settings.pattern, problem.question)]
        return [one for one in dict.fromkeys([*annotated, *matched]) if one]
