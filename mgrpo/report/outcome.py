"""What a run achieved: a sentence, and the table of before and after.

Used by the report and by the terminal, so that both say the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from mgrpo.metrics.intervals import half_width
from mgrpo.metrics.rows import Row
from mgrpo.records.json_object import JsonObject
from mgrpo.report.words import EN_DASH, percent, plural, points

Evaluation = JsonObject
GAIN_LABEL = "Gain of a second look, Δ"
TRANSITIONS = {  # name -> (label, whether more of it is better)
    "wrong_to_right": ("Wrong → right", True),
    "right_to_wrong": ("Right → wrong", False),
    "copy_fraction": ("Copies of the attempt", None),
}
VERDICTS = {  # name -> label
    "accuracy": "Right verdicts",
    "precision": "Wrong, of the attempts rejected",
    "recall": "Rejected, of the wrong attempts",
}
FEWEST_STEPS = 4  # with fewer, an interval over steps says nothing
NO_CHANGE = 0.005  # changes that round to less than one point read as none


@dataclass(frozen=True, slots=True, kw_only=True)
class OutcomeRow:
    """One line of the table, ready to print."""

    label: str
    before: str = ""
    after: str = ""
    change: str = ""
    better: bool | None = None  # None where nothing changed, or no direction is better
    heading: bool = False  # a domain's name, without values


def first_and_last(
    evaluations: Sequence[Evaluation],
) -> tuple[Evaluation | None, Evaluation | None]:
    """(before, after): the earliest "before" and the latest "after" measurement.

    Where a run was interrupted, the last measurement during it stands in for "after"; its
    label still says so.
    """
    by_label: dict[str, list[Evaluation]] = {}
    for evaluation in evaluations:
        by_label.setdefault(evaluation["label"], []).append(evaluation)
    before, later = by_label.get("before"), by_label.get("after") or by_label.get("during")
    return before[0] if before else None, later[-1] if later else None


def outcome_rows(before: Evaluation | None, after: Evaluation | None) -> list[OutcomeRow]:
    """The table: accuracies, their difference, transitions, then each domain's accuracies."""
    pair = (before or {}, after or {})
    rows = accuracy_rows(*pair) + transition_rows(*pair) + verdict_rows(*pair)
    old, new = (evaluation.get("domains", {}) for evaluation in pair)
    names = {**old, **new} if len({**old, **new}) > 1 else {}
    for name, values in names.items():
        count = plural(values["num_problems"], "problem")
        rows.append(OutcomeRow(label=f"{name} · {count}", heading=True))
        rows += accuracy_rows(old.get(name, {}), new.get(name, {}))
    return rows


def accuracy_rows(before: Evaluation, after: Evaluation) -> list[OutcomeRow]:
    pair = (before, after)
    num_layers = max(len(evaluation.get("acc", [])) for evaluation in pair)
    rows = []
    for layer in range(num_layers):
        shares = [value_at(evaluation.get("acc"), layer) for evaluation in pair]
        spreads = [spread(value_at(evaluation.get("acc_range"), layer)) for evaluation in pair]
        rows.append(change_row(accuracy_label(layer), *shares, spreads=spreads))
    if num_layers > 1:
        rows.append(change_row(GAIN_LABEL, gain(before), gain(after), write=points))
    return rows


def accuracy_label(layer: int) -> str:
    """`layer` counts from 0. The paper writes Acc@t1' for the first turn's own accuracy."""
    return "First attempt, Acc@t1'" if layer == 0 else f"After turn {layer + 1}, Acc@t{layer + 1}"


def gain(evaluation: Evaluation) -> float | None:
    """What the turns after the first one add: `delta`, or last minus first accuracy."""
    if "delta" in evaluation:
        return evaluation["delta"]
    acc = evaluation.get("acc") or [None]
    return difference(acc[0], acc[-1]) if len(acc) > 1 else None


def change_row(
    label: str,
    before: float | None,
    after: float | None,
    *,
    write: Callable[[float | None], str] = percent,
    spreads: Sequence[str] = ("", ""),
    more_is_better: bool | None = True,
) -> OutcomeRow:
    """`spreads` are written behind the two values; `more_is_better` is None for neither."""
    change = difference(before, after)
    better = None
    if change is not None and more_is_better is not None and abs(change) >= NO_CHANGE / 10:
        better = (change > 0) == more_is_better
    return OutcomeRow(
        label=label,
        before=write(before) + spreads[0],
        after=write(after) + spreads[1],
        change=points(change),
        better=better,
    )


def spread(lowest_highest: Sequence[float] | None) -> str:
    """ " (41–46)": lowest and highest over the guidance phrases, where they differ."""
    if not lowest_highest or None in lowest_highest:
        return ""
    low, high = lowest_highest
    return "" if high - low < NO_CHANGE else f" ({100 * low:.0f}{EN_DASH}{100 * high:.0f})"


def transition_rows(before: Evaluation, after: Evaluation) -> list[OutcomeRow]:
    old, new = (
        {transition["layer"]: transition for transition in evaluation.get("transitions", [])}
        for evaluation in (before, after)
    )
    layers = sorted(old.keys() | new.keys())
    return [
        change_row(
            f"{label} (turn {layer})" if len(layers) > 1 else label,
            old.get(layer, {}).get(name),
            new.get(layer, {}).get(name),
            more_is_better=more_is_better,
        )
        for layer in layers
        for name, (label, more_is_better) in TRANSITIONS.items()
    ]


def verdict_rows(before: Evaluation, after: Evaluation) -> list[OutcomeRow]:
    """Of verify layers: how well the policy verifies its own attempts."""
    old, new = (
        {one["layer"]: one for one in evaluation.get("verdicts", [])}
        for evaluation in (before, after)
    )
    return [
        change_row(f"{label} (turn {layer})", *(one.get(layer, {}).get(name) for one in (old, new)))
        for layer in sorted(old.keys() | new.keys())
        for name, label in VERDICTS.items()
    ]


def outcome_sentence(evaluations: Sequence[Evaluation]) -> str:
    """What happened to held-out accuracy, in words; "" where nothing was measured."""
    before, after = first_and_last(evaluations)
    if after is None:
        return f"Before training, {solved(before)}" if before else ""
    when = "" if after["label"] == "after" else f" by step {after['step']}"
    if before is None:
        return f"After training{when}, {solved(after)}"
    count = plural(after.get("num_problems", 0), "held-out problem")
    start, end = before["acc"][0] or 0.0, after["acc"][0] or 0.0
    sentence = f"First-attempt accuracy on {count} {course(start, end)}{when}"
    if NO_CHANGE <= abs(end - start) < 2 * difference_error(before, after):
        sentence += " (a change that chance alone can make with so few problems)"
    return f"{sentence}{second_look(after)}"


def course(start: float, end: float) -> str:
    """ "rose from 42 % to 71 %"."""
    if abs(end - start) < NO_CHANGE:
        return f"stayed at {percent(end, digits=0)}"
    verb = "rose" if end > start else "fell"
    return f"{verb} from {percent(start, digits=0)} to {percent(end, digits=0)}"


def training_sentence(metrics: Sequence[Row]) -> str:
    """What happened to sampled first attempts in training; "" where none were measured.

    Held-out accuracy is greedy unless a recipe says otherwise, and may jump where this glides.
    """
    known = [row["layer1/accuracy"] for row in metrics if row.get("layer1/accuracy") is not None]
    if not known:
        return ""
    tenth = max(1, len(known) // 10)
    first, last = known[:tenth], known[-tenth:]
    widths = [half_width(steps) or 0.0 for steps in (first, last) if tenth >= FEWEST_STEPS]
    around = " and ".join(f"± {100 * width:.0f}" for width in widths)
    intervals = f"; 95 % intervals over steps {around}" if around else ""
    return (
        f"Sampled first-attempt accuracy in training {course(fmean(first), fmean(last))} "
        f"(means over the first and the last tenth of the steps{intervals})."
    )


def solved(evaluation: Evaluation) -> str:
    count = plural(evaluation.get("num_problems", 0), "held-out problem")
    share = percent(evaluation["acc"][0], digits=0)
    return f"first attempts solve {share} of {count}{second_look(evaluation)}"


def second_look(evaluation: Evaluation) -> str:
    """The end of a sentence: "; a second look adds 3 points."."""
    added = gain(evaluation)
    if added is None:
        return "."
    if abs(added) < NO_CHANGE:
        return "; a second look changes nothing."
    size = f"{abs(100 * added):.0f}"
    verb, noun = "adds" if added > 0 else "costs", "point" if size == "1" else "points"
    return f"; a second look {verb} {size} {noun}."


def accuracy_error(evaluation: Evaluation) -> float:
    """One standard error of the first attempt's accuracy over problems (binomial)."""
    share = evaluation["acc"][0] or 0.0
    return math.sqrt(share * (1 - share) / max(evaluation.get("num_problems", 0), 1))


def difference_error(before: Evaluation, after: Evaluation) -> float:
    """Standard error of the change, as if the two measurements used different problems.

    They use the same ones, which makes the true error smaller: this errs on the safe side.
    """
    return math.hypot(accuracy_error(before), accuracy_error(after))


def footnote(evaluation: Evaluation) -> str:
    """How the numbers were measured, under the table."""
    error = f"{100 * accuracy_error(evaluation):.1f}"
    note = (
        f"{plural(evaluation.get('num_problems', 0), 'held-out problem')}, "
        f"{evaluation.get('decoding', 'unknown')} decoding. Shares of problems; changes in "
        f"percentage points. One standard error of the first attempt's accuracy: {error} points."
    )
    if any(spread(pair) for pair in evaluation.get("acc_range", [])):
        note += " In brackets: lowest and highest over the guidance phrases."
    return note


def value_at(values: Sequence[object] | None, index: int) -> Any:
    return values[index] if values is not None and index < len(values) else None


def difference(before: float | None, after: float | None) -> float | None:
    return None if before is None or after is None else after - before
