"""The table of a run's alarms, for the report. A run without alarms has none."""

from __future__ import annotations

from html import escape
from typing import Any

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


def alarms_section(run: RunData) -> str:
    """One line per alarm and layer, the earliest first; "" where there was none."""
    if not run.alarms:
        return ""
    groups: dict[tuple[Any, Any], list[dict[str, Any]]] = {}
    for alarm in run.alarms:
        groups.setdefault((alarm["name"], alarm["layer"]), []).append(alarm)
    heads = "".join(
        f'<th scope="col">{head}</th>'
        for head in ("Alarm", "Steps", "Seen at the last", "Meaning and advice")
    )
    body = "".join(alarm_line(run, alarms) for alarms in groups.values())
    lead = f"The run gave {plural(len(run.alarms), 'alarm')}. An alarm that stays on is repeated."
    return (
        f'<section id="alarms"><h2>Alarms</h2><p class="lead">{escape(lead)}</p>'
        '<div class="scroll" tabindex="0" role="region" aria-label="Alarms">'
        f'<table class="alarms-table"><thead><tr>{heads}</tr></thead><tbody>{body}</tbody>'
        "</table></div></section>"
    )


def alarm_line(run: RunData, alarms: list[dict[str, Any]]) -> str:
    """One alarm in one place; `alarms` are its repetitions, oldest first."""
    last = alarms[-1]
    title = TITLES.get(last["name"], str(last["name"]))
    place = "" if last["layer"] is None else run.layer_label(last["layer"])
    seen = last["seen"][:1].upper() + last["seen"][1:]
    stopped = "" if last["action"] != "stop" else "<br><b>stopped the run</b>"
    return (
        f'<tr><th scope="row">{escape(title)}<br><span class="note">{escape(place)}</span>'
        f"{stopped}</th><td>{escape(steps_of(alarms))}</td><td>{escape(seen)}</td>"
        f"<td>{escape(last['meaning'])} {escape(last['advice'])}</td></tr>"
    )


def steps_of(alarms: list[dict[str, Any]]) -> str:
    """ "31 to 60": from the first bad step of the first alarm to the step of the last."""
    first, last = alarms[0]["first_step"], alarms[-1]["step"]
    steps = str(last) if first == last else f"{first} to {last}"
    return steps if len(alarms) == 1 else f"{steps}, {plural(len(alarms), 'time')}"
