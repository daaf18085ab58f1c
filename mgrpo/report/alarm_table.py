"""The lines of a report's table of alarms."""

from __future__ import annotations

from typing import Any

from mgrpo.metrics.rows import Row
from mgrpo.report.run_data import RunData
from mgrpo.report.words import plural

TITLES = {
    "copying": "Corrections copy",
    "first_turn_falls": "First attempts fall",
    "no_signal": "No signal",
    "entropy_collapse": "Entropy collapses",
    "mismatch": "Engine and learner differ",
    "truncation": "Out of tokens",
}


def alarm_lines(run: RunData) -> list[Row]:
    """One line per alarm and layer, the earliest first: the last alarm, with its title, layer
    and steps."""
    groups: dict[tuple[Any, Any], list[Row]] = {}
    for alarm in run.alarms:
        groups.setdefault((alarm["name"], alarm["layer"]), []).append(alarm)
    return [
        {
            **alarms[-1],
            "title": TITLES.get(name, str(name)),
            "layer_label": "" if layer is None else run.layer_label(layer),
            "steps": steps_of(alarms),
        }
        for (name, layer), alarms in groups.items()
    ]


def steps_of(alarms: list[dict[str, object]]) -> str:
    """ "31 to 60": from the first bad step of the first alarm to the step of the last."""
    first, last = alarms[0]["first_step"], alarms[-1]["step"]
    steps = str(last) if first == last else f"{first} to {last}"
    return steps if len(alarms) == 1 else f"{steps}, {plural(len(alarms), 'time')}"
