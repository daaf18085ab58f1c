"""When a run's own numbers say that it goes wrong, and whether that stops it.

An alarm whose threshold is null is off. The defaults are meant never to sound in a run that
learns: each stands well beyond what such runs show, and asks for several steps in a row.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from mgrpo.config.base import StrictConfig

Action = Literal["warn", "stop"]


class AlarmConfig(StrictConfig):
    """What every alarm has beside its threshold."""

    patience_steps: PositiveInt = 5
    """Steps in a row that must look bad before the alarm sounds. A step without the numbers
    that the alarm looks at neither counts nor breaks the row."""
    action: Action = "warn"
    """warn: say so and go on. stop: write everything down, then end the run."""


class CopyingAlarm(AlarmConfig):
    """Corrections of wrong attempts repeat the wrong answer."""

    threshold: float | None = Field(default=0.9, ge=0, lt=1)
    """Largest share of a layer's corrections of wrong attempts that may repeat the attempt's
    final answer. Runs that learn to correct show 0.1 to 0.7. null switches the alarm off."""
    patience_steps: PositiveInt = 10
    """Steps in a row above the threshold."""
    min_pairs: PositiveInt = 16
    """Steps with fewer corrections of wrong attempts than this are passed over: their share says
    little."""


class FirstTurnFallsAlarm(AlarmConfig):
    """First attempts get worse while corrections get better: the gain is borrowed."""

    threshold: float | None = Field(default=0.1, ge=0, le=1)
    """How far layer 1's moving average may fall below the best one so far, as a share of the
    completions: 0.1 is ten points of accuracy. null switches the alarm off."""
    window_steps: PositiveInt = 10
    """Steps in each moving average. Single steps have different problems and jump."""
    patience_steps: PositiveInt = 5
    """Steps in a row with the averages so far apart."""


class NoSignalAlarm(AlarmConfig):
    """A layer that trains has nothing to learn from."""

    threshold: float | None = Field(default=0.98, gt=0, le=1)
    """Share of a layer's groups whose rewards are all equal, or of its completions that are not
    selected, from which on the layer counts as silent. null switches the alarm off."""
    patience_steps: PositiveInt = 10
    """Silent steps in a row."""


class EntropyCollapseAlarm(AlarmConfig):
    """The policy hardly varies any more, so groups cannot differ."""

    threshold: NonNegativeFloat | None = 0.005
    """Smallest mean entropy of a token, in nats. It depends on the model and the task: a small
    policy on sums learns well at 0.05. null leaves only fraction_of_start."""
    fraction_of_start: float | None = Field(default=0.1, gt=0, lt=1)
    """Smallest share of the mean entropy of the run's first steps. null leaves only threshold;
    with both null the alarm is off."""
    start_steps: PositiveInt = 5
    """Steps whose mean entropy is the start."""
    patience_steps: PositiveInt = 10
    """Steps in a row below either bound."""


class MismatchAlarm(AlarmConfig):
    """Engines and learner disagree about the same tokens."""

    threshold: PositiveFloat | None = 0.05
    """Largest mean absolute difference of a token's log-probability between the engine that
    sampled it and the learner, in nats. About 1e-6 in float32, 0.002 to 0.02 in bfloat16. null
    switches the alarm off."""
    patience_steps: PositiveInt = 3
    """Steps in a row above the threshold."""


class TruncationAlarm(AlarmConfig):
    """Completions run out of tokens before they reach an answer."""

    threshold: float | None = Field(default=0.5, ge=0, le=1)
    """Largest share of a layer's completions that may end at max_completion_tokens. null switches
    the alarm off."""
    patience_steps: PositiveInt = 5
    """Steps in a row above the threshold."""


class AlarmsConfig(StrictConfig):
    """What a run watches itself for, once a step."""

    repeat_every_steps: PositiveInt = 20
    """An alarm that stays on is given again after this many steps, not before."""
    copying: CopyingAlarm = CopyingAlarm()
    first_turn_falls: FirstTurnFallsAlarm = FirstTurnFallsAlarm()
    no_signal: NoSignalAlarm = NoSignalAlarm()
    entropy_collapse: EntropyCollapseAlarm = EntropyCollapseAlarm()
    mismatch: MismatchAlarm = MismatchAlarm()
    truncation: TruncationAlarm = TruncationAlarm()
