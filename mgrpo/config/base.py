"""What every section of a recipe shares: frozen, strict, unknown keys refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

from pydantic import BaseModel, ConfigDict, model_validator

from mgrpo.errors import ConfigFault


class OnlyWith:
    """Marks a key that has an effect only where other keys of its section have certain values:

    rate: Annotated[float, OnlyWith(variant="exponential")] = 1.0
    """

    def __init__(self, **values: object) -> None:
        self.values = values


class StrictConfig(BaseModel):
    """A frozen section of a recipe. A misspelt key is an error, never ignored, and so is one that
    the section's other keys leave without effect (`OnlyWith`)."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        validate_default=True,
        allow_inf_nan=False,
    )

    @model_validator(mode="after")
    def check_conditions(self) -> StrictConfig:
        faults = [
            ConfigFault(name, repr(getattr(self, name)), f"has no effect without {key}: {value}.")
            for name, field in type(self).model_fields.items()
            if getattr(self, name) != field.default
            for mark in field.metadata
            if isinstance(mark, OnlyWith)
            for key, value in mark.values.items()
            if getattr(self, key) != value
        ]
        if faults:
            raise RelationError(faults)
        return self


class RelationError(ValueError):
    """Keys that are valid alone and wrong together.

    A validator raises it with paths relative to its own section, so that the message can name
    the very key and not just the section.
    """

    def __init__(self, faults: Sequence[ConfigFault]) -> None:
        self.faults = list(faults)
        super().__init__("; ".join(str(fault) for fault in self.faults))


def refuse(key: str, value: object, reason: str, suggestion: str = "") -> NoReturn:
    """Raises the one fault of a section's own validator."""
    raise RelationError([ConfigFault(key, str(value), reason, suggestion)])
