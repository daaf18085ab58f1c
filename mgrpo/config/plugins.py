"""Plug-ins and phases: parts that a recipe adds, and changes of keys during a run."""

from __future__ import annotations

from pydantic import Field, PositiveInt

from mgrpo.config.base import StrictConfig
from mgrpo.records.json_object import JsonObject


class PluginConfig(StrictConfig):
    """One plug-in (see mgrpo/plugin.py)."""

    use: str
    """A plug-in of ours by its name (`mgrpo methods` lists them), or your own as
    "package.module:Class"."""
    layers: list[str] | None = None
    """Names of the layers that it works on; null: all."""
    settings: JsonObject = Field(default_factory=dict)
    """Its own keys, validated before anything starts."""


class PhaseConfig(StrictConfig):
    """Other values of some keys from a step on."""

    name: str
    from_step: PositiveInt
    """First step (counted from 0) of this phase; it lasts until the next one's."""
    num_steps: PositiveInt | None = None
    """Duration in steps; then the values before it apply again. Null: until the next phase, or the
    end."""
    every_steps: PositiveInt | None = None
    """Period in steps, counted from from_step: two kinds of steps then alternate. Needs num_steps
    below it. Null: the phase occurs once."""
    changes: JsonObject
    """A tree like the recipe's own, of the sections `layers`, `objective` and `sampling`:
    {layers: {correct: {loss_weight: 0.5}}}. Each phase starts from the recipe, not from the
    phase before."""

    def is_active(self, step: int) -> bool:
        """Is a step in this phase, as far as this phase says?"""
        if step < self.from_step:
            return False
        place = step - self.from_step
        if self.every_steps is not None:
            place %= self.every_steps
        return self.num_steps is None or place < self.num_steps
