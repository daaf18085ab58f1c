"""What every section of a recipe shares: frozen, strict, unknown keys refused."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from mgrpo.errors import ConfigProblem


class StrictConfig(BaseModel):
    """A frozen section of a recipe. A misspelt key is an error, never ignored."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        validate_default=True,
        allow_inf_nan=False,
    )


class RelationError(ValueError):
    """Keys that are valid alone and wrong together.

    A validator raises it with paths relative to its own section, so that the message can name
    the very key and not just the section.
    """

    def __init__(self, problems: Sequence[ConfigProblem]) -> None:
        self.problems = list(problems)
        super().__init__("; ".join(str(problem) for problem in self.problems))
