"""Slots that methods and users fill with code of their own: advantage, loss, importance, source,
sampler.

    advantage: rloo                                # a method's, by its name
    advantage: {type: rloo, normalise: true}       # with its own keys
    loss: {type: "./losses.py:MyLoss", cap: 3}     # yours; or package.module:Class

The kinds that the trainer has itself are sections like any other. Of all others only the name is
known here: their keys are validated by the class that they stand for, when plug-ins are loaded
(`mgrpo check`, and the start of training).
"""

from __future__ import annotations

import difflib
from collections.abc import Callable

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator

from mgrpo.config.base import RelationError
from mgrpo.errors import ConfigFault
from mgrpo.records.json_object import JsonObject
from mgrpo.registry import Kind, declared

OWN = "own"
"""Tag of `Part` in a union; no kind may be called so."""
HOMES: dict[Kind, str] = {
    "ADVANTAGES": "layers.N.advantage",
    "LOSSES": "objective.loss",
    "IMPORTANCE": "objective.importance",
    "SOURCES": "source",
    "SAMPLERS": "data.sampler",
    "PLUGINS": "plugins",
}
"""Where a recipe names the parts of each kind."""


class Part(BaseModel):
    """A method's or a user's own part, with its keys beside its name."""

    model_config = ConfigDict(frozen=True, extra="allow", use_attribute_docstrings=True)

    type: str
    """A declared name, or your own as "package.module:Class" or "./file.py:Class"."""

    @property
    def settings(self) -> JsonObject:
        return dict(self.model_extra or {})


def chosen(*known: str) -> Discriminator:
    """Tells the kinds that the trainer has itself, by their names, from a `Part`."""

    def tag(value: object) -> str:
        name = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
        return name if isinstance(name, str) and name in known else OWN

    return Discriminator(tag)


def declared_as(kind: Kind, *known: str) -> AfterValidator:
    """Refuses a `Part` whose name nobody has declared."""

    def check(value: object) -> object:
        if isinstance(value, Part) and ":" not in value.type:
            names = [*known, *declared(kind)]
            if value.type not in names:
                hint = elsewhere(value.type) or choices(value.type, names)
                reason = "not one of the allowed values."
                raise RelationError([ConfigFault("", value.type, reason, hint)])
        return value

    check_part: Callable[[object], object] = check
    return AfterValidator(check_part)


def elsewhere(name: str) -> str:
    """Where a recipe does name a declared part, or ""."""
    home = home_of(name)
    key = "use" if home == "plugins" else "type"
    return f"{name} belongs to {home}: {{{key}: {name}}}." if home else ""


def home_of(name: str) -> str:
    """The place of a recipe that a declared part belongs to, or ""."""
    return next((home for kind, home in HOMES.items() if name in declared(kind)), "")


def choices(name: str, names: list[str]) -> str:
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    hint = f"Did you mean {near[0]}? " if near else ""
    own = "or your own as package.module:Class or ./file.py:Class"
    return f"{hint}Allowed: {', '.join(names)}, {own}."
