"""Training alerts: thresholds on a run's metrics, and whether an alert stops the run.

An alert with threshold null is off. The defaults should never fire in a run that learns: each is
well beyond the values of such runs, and requires several consecutive steps.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from mgrpo.config.base import StrictConfig

Action = Literal["warn", "stop"]


class AlarmConfig(StrictConfig):
    """Keys of every alert besides its threshold."""

    patience_steps: PositiveInt = 5
    """Consecutive steps that must meet the condition before the alert fires. A step without the
    alert's metrics neither counts nor resets the row."""
    action: Action = "warn"
    """warn: report and continue. stop: record everything, then end the run."""


class CopyingAlarm(AlarmConfig):
    """Corrections of wrong attempts repeat the wrong answer."""

    threshold: float | None = Field(default=0.9, ge=0, lt=1)
    """Largest share of a layer's corrections of wrong attempts that may repeat the attempt's
    final answer. Runs that learn to correct have 0.1 to 0.7. null disables the alert."""
    patience_steps: PositiveInt = 10
    """Steps in a row above the threshold."""
    min_pairs: PositiveInt = 16
    """Steps with fewer corrections of wrong attempts than this are ignored: their share is
    noisy."""


class FirstTurnFallsAlarm(AlarmConfig):
    """Turn-1 regression: first attempts get worse while corrections get better."""

    threshold: float | None = Field(default=0.1, ge=0, le=1)
    """How far layer 1's moving average may fall below the best one so far, as a share of the
    completions: 0.1 is ten points of accuracy. null disables the alert."""
    window_steps: PositiveInt = 10
    """Steps in each moving average. Single steps have different problems and are noisy."""
    patience_steps: PositiveInt = 5
    """Steps in a row with the averages so far apart."""


class NoSignalAlarm(AlarmConfig):
    """A trained layer has no training signal."""

    threshold: float | None = Field(default=0.98, gt=0, le=1)
    """Share of a layer's groups whose rewards are all equal, or of its completions that are not
    selected, from which on the layer has no training signal. null disables the alert."""
    patience_steps: PositiveInt = 10
    """Consecutive steps without a training signal."""


class EntropyCollapseAlarm(AlarmConfig):
    """Entropy collapse: completions hardly vary, so groups do not differ."""

    threshold: NonNegativeFloat | None = 0.005
    """Smallest mean entropy of a token, in nats. It depends on the model and the task: a small
    policy on sums learns well at 0.05. null leaves only fraction_of_start."""
    fraction_of_start: float | None = Field(default=0.1, gt=0, lt=1)
    """Smallest share of the mean entropy of the run's first steps. null leaves only threshold;
    with both null the alert is off."""
    start_steps: PositiveInt = 5
    """Number of first steps whose mean entropy is the reference."""
    patience_steps: PositiveInt = 10
    """Steps in a row below either bound."""


class MismatchAlarm(AlarmConfig):
    """Mismatch of engines and learner on the same tokens."""

    threshold: PositiveFloat | None = 0.05
    """Largest mean absolute difference of a token's log-probability between the engine that
    sampled it and the learner, in nats. About 1e-6 in float32, 0.002 to 0.02 in bfloat16. null
    disables the alert."""
    patience_steps: PositiveInt = 3
    """Steps in a row above the threshold."""


class TruncationAlarm(AlarmConfig):
    """Completions are truncated before they reach an answer."""

    threshold: float | None = Field(default=0.5, ge=0, le=1)
    """Largest share of a layer's completions that may end at max_completion_tokens. null disables
    the alert."""
    patience_steps: PositiveInt = 5
    """Steps in a row above the threshold."""


class GradientSpikeAlarm(AlarmConfig):
    """A gradient that is far larger than those before it.

    It warns and does not skip the step: learner.max_grad_norm bounds what the step does, and one
    large gradient may be right. learner.skip_above_grad_norm skips.
    """

    threshold: float | None = Field(default=20.0, gt=1)
    """Largest ratio of a step's gradient norm to the median of the steps before. null disables the
    alert."""
    window_steps: PositiveInt = 20
    """Steps whose median it is; the alert begins once there are so many. Those without a gradient
    do not count."""
    patience_steps: PositiveInt = 1
    """Steps in a row above the threshold."""


class AlarmsConfig(StrictConfig):
    """The alerts of a run, checked once per step."""

    repeat_every_steps: PositiveInt = 20
    """A persisting alert is repeated after this many steps."""
    copying: CopyingAlarm = CopyingAlarm()
    first_turn_falls: FirstTurnFallsAlarm = FirstTurnFallsAlarm()
    no_signal: NoSignalAlarm = NoSignalAlarm()
    entropy_collapse: EntropyCollapseAlarm = EntropyCollapseAlarm()
    mismatch: MismatchAlarm = MismatchAlarm()
    truncation: TruncationAlarm = TruncationAlarm()
    gradient_spike: GradientSpikeAlarm = GradientSpikeAlarm()
