"""The slots `source`, what a step trains on, and `data.sampler`, which problems come next.

source: fresh                                      # the data's next problems
source: {type: dynamic, max_rounds: 5}             # a method's, with its own keys
source: {type: correction_buffer, above: dynamic}  # upon another
source: {type: "./mine.py:SecondChance"}           # yours; or package.module:Class
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveInt, Tag

from mgrpo.config.base import StrictConfig
from mgrpo.config.parts import Part, chosen, declared_as
from mgrpo.config.slots import by_name


class Fresh(StrictConfig):
    """The next problems of the data."""

    type: Literal["fresh"] = "fresh"


class SourcePart(Part):
    """A method's or a user's own source, with its keys beside its name."""

    above: Source = Fresh()
    """The source below it, whose work it hands through, adds to or replaces."""


Source = Annotated[
    Annotated[Fresh, Tag("fresh")] | Annotated[SourcePart, Tag("own")],
    chosen("fresh"),
    by_name("fresh"),
    declared_as("SOURCES", "fresh"),
]
SourcePart.model_rebuild()


def stacked(source: Fresh | SourcePart) -> list[SourcePart]:
    """The sources above the fresh problems, lowest first."""
    return [] if isinstance(source, Fresh) else [*stacked(source.above), source]


class Shuffle(StrictConfig):
    """All problems in random order, reshuffled each epoch."""

    type: Literal["shuffle"] = "shuffle"


class Curriculum(StrictConfig):
    """Easy problems first: each draw is from a growing share of the problems, sorted by a number
    of theirs."""

    type: Literal["curriculum"] = "curriculum"
    by: str
    """Column of metadata with the number, e.g. level or extra_info.pass_rate."""
    order: Literal["ascending", "descending"] = "ascending"
    """ascending: problems with the lowest numbers first (a difficulty); descending: with the
    highest (a pass rate)."""
    start_fraction: float = Field(default=0.2, gt=0, le=1)
    """Share of the problems that the first step draws from."""
    full_after_steps: PositiveInt
    """The share grows evenly, and is all problems from this step on."""


Sampler = Annotated[
    Annotated[Shuffle, Tag("shuffle")]
    | Annotated[Curriculum, Tag("curriculum")]
    | Annotated[Part, Tag("own")],
    chosen("shuffle", "curriculum"),
    by_name("shuffle"),
    declared_as("SAMPLERS", "shuffle", "curriculum"),
]
