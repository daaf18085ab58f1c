"""What every term of a reward has."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from mgrpo.config.base import StrictConfig


class TermBase(StrictConfig):
    """Keys of every reward term."""

    KEY: ClassVar[str]  # the key that names what scores, and tells the kinds apart
    FOR_GROUP: ClassVar[bool] = False  # what it gives may depend on all completions of a prompt

    weight: float = 1.0
    correct_at: float | None = None
    """The value for a right completion, or more. Null: it does not say what is right, as a reward
    for length or format. The first term that says it for a completion decides. A bool, or the
    `correct` of a Reward, says it itself."""
    sources: list[str] | None = Field(default=None, min_length=1)
    """Names of the data sources (of a list in data.train or data.heldout) whose problems it scores;
    null: all problems."""

    def scores(self, source: str) -> bool:
        """Whether it scores the problems of a source; "" for one that has no name."""
        return self.sources is None or source in self.sources

    @property
    def function(self) -> str:
        """What it is called in metrics and messages."""
        return str(getattr(self, self.KEY))
