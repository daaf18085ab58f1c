"""The slots `objective.loss` and `objective.importance`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, Tag

from mgrpo.config.base import StrictConfig
from mgrpo.config.parts import Part, chosen, declared_as
from mgrpo.config.slots import by_name


class PpoClip(StrictConfig):
    """The clipped policy gradient, per token."""

    type: Literal["ppo_clip"] = "ppo_clip"
    clip_low: float = Field(default=0.2, ge=0, le=1)
    """Ratios below 1 - clip_low stop to train where the advantage is negative."""
    clip_high: float = Field(default=0.2, ge=0)
    """Ratios above 1 + clip_high stop to train where the advantage is positive. Above clip_low it
    gives more room to unlikely tokens (clip-higher, DAPO)."""
    dual_clip: float | None = Field(default=None, gt=1)
    """Bound of the loss for negative advantages; verl uses 3. None: no bound."""


class Truncate(StrictConfig):
    """Weight each token by min(exp(learner - rollout), cap)."""

    type: Literal["truncate"] = "truncate"
    cap: float = Field(default=2.0, ge=1.0)
    """Largest weight of a token."""


class NoImportance(StrictConfig):
    """No correction."""

    type: Literal["none"] = "none"


Loss = Annotated[
    Annotated[PpoClip, Tag("ppo_clip")] | Annotated[Part, Tag("own")],
    chosen("ppo_clip"),
    by_name("ppo_clip"),
    declared_as("LOSSES", "ppo_clip"),
]
Importance = Annotated[
    Annotated[Truncate, Tag("truncate")]
    | Annotated[NoImportance, Tag("none")]
    | Annotated[Part, Tag("own")],
    chosen("truncate", "none"),
    by_name("truncate"),
    declared_as("IMPORTANCE", "truncate", "none"),
]
