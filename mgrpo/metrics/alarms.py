"""Training alerts: threshold rules on a run's metrics.

A state machine without clocks, randomness or files: the same metrics give the same alerts (the
section `alarms` of a recipe). An alert fires when its condition (see `mgrpo.metrics.alarm_signs`)
was met for `patience_steps` steps in a row, once per affected layer, and is repeated at most every
`repeat_every_steps`.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from mgrpo.config.alarms import Action, AlarmConfig, AlarmsConfig
from mgrpo.errors import AlarmError
from mgrpo.metrics.alarm_signs import (
    Copying,
    Detector,
    EntropyCollapse,
    FirstTurnFalls,
    GradientSpike,
    Mismatch,
    NoSignal,
    Scope,
    Sign,
    Truncation,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarm:
    """One alert: a condition on a run's metrics that needs attention."""

    step: int
    name: str  # its section of `alarms` in the recipe, e.g. "no_signal"
    layer: int | None  # None: the whole run
    action: Action
    first_step: int  # of the bad steps in a row that end with `step`
    num_steps: int  # number of these steps
    seen: str
    meaning: str
    advice: str

    @property
    def message(self) -> str:
        """Finding, meaning and advice, on one line."""
        when = f"Step {self.step}"
        if self.num_steps > 1:
            when = f"Steps {self.first_step} to {self.step}, at the last"
        return f"{self.name}: {when}: {self.seen}. {self.meaning} {self.advice}"

    def to_json(self) -> dict[str, object]:
        """A line of alarms.jsonl."""
        return {**dataclasses.asdict(self), "message": self.message}


@dataclass(slots=True)
class Row:
    """The consecutive steps of one alert for one layer."""

    num_steps: int = 0
    first_step: int = 0
    last_alarm_step: int | None = None  # kept after the row ends, to limit repeated alerts


class AlarmWatch:
    """A run's alerts. Call `check` once a step, in order.

    Example:
        watch = AlarmWatch(config.alarms)
        for alarm in watch.check(step, sums.means()):
            log.write_alarm(alarm.to_json())
    """

    def __init__(
        self, config: AlarmsConfig, *, trained_layers: Collection[int] | None = None
    ) -> None:
        """
        Args:
            config: the alerts and their thresholds.
            trained_layers: numbers of the layers with a loss, 1 for the first; the others may
                be without a training signal. None: all.
        """
        self.repeat_every_steps = config.repeat_every_steps
        self.detectors = detectors_for(config, trained_layers)
        self.rows: dict[tuple[str, Scope], Row] = {}

    def check(self, step: int, values: Mapping[str, float | None]) -> list[Alarm]:
        """The alerts that fire at this step.

        Args:
            step: larger than at the last call.
            values: the step's mean metrics; those that are missing, None or not finite count
                as not measured.
        """
        return [
            alarm
            for name, (config, detector) in self.detectors.items()
            for scope, sign in detector(values).items()
            if (alarm := self.count(step, name, scope, sign, config)) is not None
        ]

    def replay(self, metrics: Iterable[Mapping[str, Any]]) -> None:
        """Replay the steps of an interrupted run, as `read_metrics` returns them, without
        alerts."""
        for row in metrics:
            self.check(row["step"], {name: row[name] for name in row if name != "step"})

    def count(
        self, step: int, name: str, scope: Scope, sign: Sign, config: AlarmConfig
    ) -> Alarm | None:
        """Extend or reset the row of steps; return an alert if it is long enough and due."""
        row = self.rows.setdefault((name, scope), Row())
        if not sign.is_bad:
            row.num_steps = 0
            return None
        row.num_steps += 1
        if row.num_steps == 1:
            row.first_step = step
        is_due = (
            row.last_alarm_step is None or step >= row.last_alarm_step + self.repeat_every_steps
        )
        if row.num_steps < config.patience_steps or not is_due:
            return None
        row.last_alarm_step = step
        return Alarm(
            step=step,
            name=name,
            layer=scope,
            action=config.action,
            first_step=row.first_step,
            num_steps=row.num_steps,
            seen=sign.seen,
            meaning=sign.meaning,
            advice=sign.advice,
        )


def detectors_for(
    config: AlarmsConfig, trained_layers: Collection[int] | None
) -> dict[str, tuple[AlarmConfig, Detector]]:
    """The enabled detectors, by their section's name."""
    found: dict[str, tuple[AlarmConfig, Detector]] = {}
    copying, falls, silent = config.copying, config.first_turn_falls, config.no_signal
    entropy, mismatch, truncation = config.entropy_collapse, config.mismatch, config.truncation
    spike = config.gradient_spike
    if copying.threshold is not None:
        found["copying"] = (copying, Copying(copying.threshold, copying.min_pairs))
    if falls.threshold is not None:
        detector = FirstTurnFalls(falls.threshold, falls.window_steps)
        found["first_turn_falls"] = (falls, detector)
    if silent.threshold is not None:
        found["no_signal"] = (silent, NoSignal(silent.threshold, trained_layers))
    if entropy.threshold is not None or entropy.fraction_of_start is not None:
        found["entropy_collapse"] = (entropy, EntropyCollapse(entropy))
    if mismatch.threshold is not None:
        found["mismatch"] = (mismatch, Mismatch(mismatch.threshold))
    if truncation.threshold is not None:
        found["truncation"] = (truncation, Truncation(truncation.threshold))
    if spike.threshold is not None:
        seen = deque[float](maxlen=spike.window_steps)
        found["gradient_spike"] = (spike, GradientSpike(spike.threshold, seen))
    return found


def stop_if_asked(alarms: Iterable[Alarm]) -> None:
    """End the run if an alert's action is stop. Call it after the step is recorded.

    Raises:
        AlarmError: for the first such alert.
    """
    for alarm in alarms:
        if alarm.action == "stop":
            raise AlarmError(alarm.name, alarm.message)
