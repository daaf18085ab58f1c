"""The slot `layers.N.advantage`: what a completion is worth beyond those it is compared with."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import NonNegativeFloat, Tag

from mgrpo.config.base import StrictConfig
from mgrpo.config.parts import Part, chosen, declared_as
from mgrpo.config.slots import by_name


class GroupZ(StrictConfig):
    """The group's z-score (GRPO, arXiv 2402.03300)."""

    type: Literal["group_z"] = "group_z"
    scale_by_std: bool = True
    """Divide by the group's standard deviation; false is Dr. GRPO (arXiv 2503.20783)."""
    ddof: Literal[0, 1] = 1
    """0: population standard deviation; 1: sample standard deviation (TRL, verl)."""
    epsilon: NonNegativeFloat = 1e-6
    """Added to the standard deviation: 1e-6 (verl), 1e-4 (TRL), 0."""


class ConstPositive(StrictConfig):
    """1 for each success, 0 for the rest: rejection sampling."""

    type: Literal["const_positive"] = "const_positive"


class RawReward(StrictConfig):
    """The reward itself (REINFORCE)."""

    type: Literal["raw_reward"] = "raw_reward"


class NoAdvantage(StrictConfig):
    """0: the KL term alone trains the layer, or a loss with coefficients of its own."""

    type: Literal["none"] = "none"


class Improvement(StrictConfig):
    """R(correction) - R(attempt)."""

    type: Literal["improvement"] = "improvement"


SOLVE_KINDS = ("group_z", "const_positive", "raw_reward", "none")
CORRECT_KINDS = (*SOLVE_KINDS, "improvement")

SolveAdvantage = Annotated[
    Annotated[GroupZ, Tag("group_z")]
    | Annotated[ConstPositive, Tag("const_positive")]
    | Annotated[RawReward, Tag("raw_reward")]
    | Annotated[NoAdvantage, Tag("none")]
    | Annotated[Part, Tag("own")],
    chosen(*SOLVE_KINDS),
    by_name("group_z"),
    declared_as("ADVANTAGES", *SOLVE_KINDS),
]
CorrectAdvantage = Annotated[
    Annotated[GroupZ, Tag("group_z")]
    | Annotated[ConstPositive, Tag("const_positive")]
    | Annotated[RawReward, Tag("raw_reward")]
    | Annotated[NoAdvantage, Tag("none")]
    | Annotated[Improvement, Tag("improvement")]
    | Annotated[Part, Tag("own")],
    chosen(*CORRECT_KINDS),
    by_name("group_z"),
    declared_as("ADVANTAGES", *CORRECT_KINDS),
]
