"""What a run achieved: a sentence, and the table of before and after.

Used by the report and by the terminal, so that both say the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mgrpo.report.words import EN_DASH, percent, plural, points

Evaluation = dict[str, Any]
TRANSITIONS = {
    "wrong_to_right": "Wrong → right",
    "right_to_wrong": "Right → wrong",
    "copy_fraction": "Copies of the attempt",
}
NO_CHANGE = 0.005  # changes that round to less than one point read as none


@dataclass(frozen=True, slots=True, kw_only=True)
class OutcomeRow:
    """One line of the table, ready to print."""

    label: str
    before: str
    after: str
    change: str
    better: bool | None = None  # None where there is no telling, or no better direction
    heading: bool = False  # a domain's name, without values


def first_and_last(
    evaluations: Sequence[Evaluation],
) -> tuple[Evaluation | None, Evaluation | None]:
    """(before, after): the earliest "before" and the latest "after" measurement.

    Where a run was interrupted, the last measurement during it stands in for "after"; its
    label still says so.
    """
    before = next((e for e in evaluations if e["label"] == "before"), None)
    later = [e for e in evaluations if e["label"] == "after"] or [
        e for e in evaluations if e["label"] == "during"
    ]
    return before, later[-1] if later else None


def outcome_rows(before: Evaluation | None, after: Evaluation | None) -> list[OutcomeRow]:
    """The table: accuracies, their difference, transitions, then each domain's accuracies."""
    rows = accuracy_rows(before or {}, after or {})
    rows += transition_rows(before or {}, after or {})
    domains = {**(before or {}).get("domains", {}), **(after or {}).get("domains", {})}
    if len(domains) > 1:
        for name, values in domains.items():
            count = plural(values["num_problems"], "problem")
            rows.append(
                OutcomeRow(label=f"{name} · {count}", before="", after="", change="", heading=True)
            )
            rows += accuracy_rows(
                (before or {}).get("domains", {}).get(name, {}),
                (after or {}).get("domains", {}).get(name, {}),
            )
    return rows


def accuracy_rows(before: Evaluation, after: Evaluation) -> list[OutcomeRow]:
    num_layers = max(len(before.get("acc", [])), len(after.get("acc", [])))
    rows = [
        share_row(
            accuracy_label(layer),
            value_at(before.get("acc"), layer),
            value_at(after.get("acc"), layer),
            before_range=value_at(before.get("acc_range"), layer),
            after_range=value_at(after.get("acc_range"), layer),
        )
        for layer in range(num_layers)
    ]
    if num_layers > 1:
        rows.append(gain_row(gain(before), gain(after)))
    return rows


def accuracy_label(layer: int) -> str:
    """`layer` counts from 0. The paper writes Acc@t1' for the first turn's own accuracy."""
    return "First attempt, Acc@t1'" if layer == 0 else f"After turn {layer + 1}, Acc@t{layer + 1}"


def gain(evaluation: Evaluation) -> float | None:
    """What the turns after the first one add: `delta`, or last minus first accuracy."""
    if evaluation.get("delta") is not None:
        return float(evaluation["delta"])
    acc = evaluation.get("acc") or []
    if len(acc) < 2 or acc[0] is None or acc[-1] is None:
        return None
    return float(acc[-1]) - float(acc[0])


def gain_row(before: float | None, after: float | None) -> OutcomeRow:
    change = difference(before, after)
    return OutcomeRow(
        label="Gain of a second look, Δ",
        before=points(before),
        after=points(after),
        change=points(change),
        better=direction(change),
    )


def share_row(
    label: str,
    before: float | None,
    after: float | None,
    *,
    before_range: Sequence[float] | None = None,
    after_range: Sequence[float] | None = None,
    more_is_better: bool | None = True,
) -> OutcomeRow:
    change = difference(before, after)
    is_more = direction(change)
    return OutcomeRow(
        label=label,
        before=percent(before) + spread(before_range),
        after=percent(after) + spread(after_range),
        change=points(change),
        better=None if is_more is None or more_is_better is None else is_more == more_is_better,
    )


def spread(lowest_highest: Sequence[float] | None) -> str:
    """ " (41–46)": lowest and highest over the guidance phrases, where they differ."""
    if not lowest_highest or None in lowest_highest:
        return ""
    low, high = lowest_highest
    if high - low < NO_CHANGE:
        return ""
    return f" ({100 * low:.0f}{EN_DASH}{100 * high:.0f})"


def transition_rows(before: Evaluation, after: Evaluation) -> list[OutcomeRow]:
    by_layer = [
        {transition["layer"]: transition for transition in evaluation.get("transitions", [])}
        for evaluation in (before, after)
    ]
    layers = sorted(by_layer[0].keys() | by_layer[1].keys())
    rows = []
    for layer in layers:
        suffix = f" (turn {layer})" if len(layers) > 1 else ""
        for name, label in TRANSITIONS.items():
            row = share_row(
                label + suffix,
                by_layer[0].get(layer, {}).get(name),
                by_layer[1].get(layer, {}).get(name),
                more_is_better={"wrong_to_right": True, "right_to_wrong": False}.get(name),
            )
            rows.append(row)
    return rows


def outcome_sentence(evaluations: Sequence[Evaluation]) -> str:
    """What happened to held-out accuracy, in words; "" where nothing was measured."""
    before, after = first_and_last(evaluations)
    if after is None:
        if before is None:
            return ""
        return f"Before training, {solved(before)}"
    count = plural(after["num_problems"], "held-out problem")
    end = percent(after["acc"][0], digits=0)
    when = "" if after["label"] == "after" else f" by step {after['step']}"
    if before is None:
        return f"After training{when}, {solved(after)}"
    change = (after["acc"][0] or 0.0) - (before["acc"][0] or 0.0)
    start = percent(before["acc"][0], digits=0)
    if abs(change) < NO_CHANGE:
        sentence = f"First-attempt accuracy on {count} stayed at {end}{when}"
    else:
        verb = "rose" if change > 0 else "fell"
        sentence = f"First-attempt accuracy on {count} {verb} from {start} to {end}{when}"
        if abs(change) < 2 * difference_error(before, after):
            sentence += " (a change that chance alone can make with so few problems)"
    look = second_look(after)
    return f"{sentence}; {look}" if look else f"{sentence}."


def training_sentence(metrics: Sequence[Mapping[str, Any]]) -> str:
    """What happened to sampled first attempts in training; "" where none were measured.

    Held-out accuracy is greedy unless a recipe says otherwise, and may jump where this glides.
    """
    known = [row["layer1/accuracy"] for row in metrics if row.get("layer1/accuracy") is not None]
    if not known:
        return ""
    tenth = max(1, len(known) // 10)
    start, end = sum(known[:tenth]) / tenth, sum(known[-tenth:]) / tenth
    if abs(end - start) < NO_CHANGE:
        course = f"stayed at {percent(end, digits=0)}"
    else:
        verb = "rose" if end > start else "fell"
        course = f"{verb} from {percent(start, digits=0)} to {percent(end, digits=0)}"
    return (
        f"Sampled first-attempt accuracy in training {course} (means over the first and the last "
        "tenth of the steps)."
    )


def solved(evaluation: Evaluation) -> str:
    count = plural(evaluation["num_problems"], "held-out problem")
    sentence = f"first attempts solve {percent(evaluation['acc'][0], digits=0)} of {count}"
    look = second_look(evaluation)
    return f"{sentence}; {look}" if look else f"{sentence}."


def second_look(evaluation: Evaluation) -> str:
    """ "a second look adds 3 points." """
    added = gain(evaluation)
    if added is None:
        return ""
    if abs(added) < NO_CHANGE:
        return "a second look changes nothing."
    size = abs(100 * added)
    amount = "1 point" if f"{size:.0f}" == "1" else f"{size:.0f} points"
    return f"a second look {'adds' if added > 0 else 'costs'} {amount}."


def accuracy_error(evaluation: Evaluation) -> float:
    """One standard error of the first attempt's accuracy over problems (binomial)."""
    share = evaluation["acc"][0] or 0.0
    return math.sqrt(share * (1 - share) / max(evaluation["num_problems"], 1))


def difference_error(before: Evaluation, after: Evaluation) -> float:
    """Standard error of the change, as if the two measurements used different problems.

    They use the same ones, which makes the true error smaller: this errs on the safe side.
    """
    return math.hypot(accuracy_error(before), accuracy_error(after))


def footnote(evaluation: Evaluation) -> str:
    """How the numbers were measured, under the table."""
    error = f"{100 * accuracy_error(evaluation):.1f}"
    note = (
        f"{plural(evaluation['num_problems'], 'held-out problem')}, "
        f"{evaluation.get('decoding', 'unknown')} decoding. Shares of problems; changes in "
        f"percentage points. One standard error of the first attempt's accuracy: {error} points."
    )
    if any(spread(pair) for pair in evaluation.get("acc_range", [])):
        note += " In brackets: lowest and highest over the guidance phrases."
    return note


def value_at(values: Sequence[Any] | None, index: int) -> Any:
    return values[index] if values is not None and index < len(values) else None


def difference(before: float | None, after: float | None) -> float | None:
    return None if before is None or after is None else after - before


def direction(change: float | None) -> bool | None:
    return None if change is None or abs(change) < NO_CHANGE / 10 else change > 0
