"""The guidance of a correction: a phrase and its draw, and what the check said of the attempt."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from mgrpo.config.base import RelationError, StrictConfig
from mgrpo.config.slots import by_name
from mgrpo.errors import ConfigFault

GUIDANCE_PHRASES = (
    "Which step could be wrong here? I will go through it again slowly.",
    "Hold on, I should verify that.",
    "One moment, I want to be certain there is no slip.",
    "Perhaps a different route to the answer exists.",
    "Maybe I can look at it from this side:",
    "A further idea: I could",
    "Before I finish, did I overlook something the problem states?",
)
"""Seven first-person guidance phrases that ask for a check (MGRPO; wording is ours)."""


class DrawPerParent(StrictConfig):
    """One phrase for all corrections of a parent, which keeps a group's prompts equal."""

    type: Literal["per_parent"] = "per_parent"


class DrawPerCorrection(StrictConfig):
    """One phrase for each correction."""

    type: Literal["per_correction"] = "per_correction"


class DrawFixed(StrictConfig):
    """Always the same phrase."""

    type: Literal["fixed"] = "fixed"
    index: NonNegativeInt = 0
    """Which phrase, counted from 0."""


class DrawWeighted(StrictConfig):
    """One phrase for all corrections of a parent, with weights."""

    type: Literal["weighted"] = "weighted"
    weights: list[float]
    """One number for each phrase, 0 or more, not all 0."""


class DrawSchedule(StrictConfig):
    """The phrases in turn, one for each step."""

    type: Literal["schedule"] = "schedule"


Draw = Annotated[
    DrawPerParent | DrawPerCorrection | DrawFixed | DrawWeighted | DrawSchedule,
    Field(discriminator="type"),
    by_name("per_parent"),
]


SPELLED = "from"
"""The key that may stand in place of a guidance's `type`: guidance: {from: check}."""


class GuidanceBase(StrictConfig):
    """Keys of every guidance."""

    phrases: list[str] = Field(default=list(GUIDANCE_PHRASES), min_length=1)
    """What is drawn from."""
    draw: Draw = DrawPerParent()
    """Once per parent keeps a group's prompts equal; per_correction does not."""

    @model_validator(mode="after")
    def check_draw(self) -> GuidanceBase:
        count, draw = len(self.phrases), self.draw
        fault = None
        if isinstance(draw, DrawFixed) and draw.index >= count:
            reason, valid = f"there are only {count} phrases.", f"Valid: 0 to {count - 1}."
            fault = ConfigFault("draw.index", str(draw.index), reason, valid)
        elif isinstance(draw, DrawWeighted) and (
            len(draw.weights) != count or min(draw.weights) < 0 or sum(draw.weights) <= 0
        ):
            reason = "must be one number per phrase, 0 or more, not all 0."
            shown, hint = str(draw.weights), f"There are {count} phrases."
            fault = ConfigFault("draw.weights", shown, reason, hint)
        if fault is not None:
            raise RelationError([fault])
        return self

    @property
    def feedback_tokens(self) -> int:
        """Most tokens of a check's feedback in a correction's prompt."""
        return 0


class PhraseGuidance(GuidanceBase):
    """A phrase at the start of a correction."""

    type: Literal["phrases"] = Field(default="phrases", json_schema_extra={"spelled": SPELLED})


class CheckGuidance(GuidanceBase):
    """The feedback of the attempt's check (`Reward.feedback`); a phrase where it gave none.

    What is fed back is the check's decision. Feedback with the reference answer in it teaches the
    policy to copy.
    """

    type: Literal["check"] = Field(default="check", json_schema_extra={"spelled": SPELLED})
    max_tokens: PositiveInt = 128
    """Longest feedback, in tokens; of a longer one the head is shown."""
    template: str = "The check says: {feedback}\n{guidance}"
    """{feedback} stands for the check's text, {guidance} for the drawn phrase, which may be left
    out."""

    @model_validator(mode="after")
    def check_template(self) -> CheckGuidance:
        if (count := self.template.count("{feedback}")) != 1:
            reason = f"has {{feedback}} {count} times, expected once."
            raise RelationError([ConfigFault("template", repr(self.template[:60]), reason)])
        return self

    @property
    def feedback_tokens(self) -> int:
        return self.max_tokens


Guidance = Annotated[
    PhraseGuidance | CheckGuidance,
    Field(discriminator="type"),
    by_name("phrases", spelled=SPELLED),
]
