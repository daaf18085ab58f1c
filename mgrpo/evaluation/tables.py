"""An evaluation, or a comparison of two, as tables of text: for the terminal and for Markdown.

The numbers are those of `summary` and `comparison`; here they are only formatted, so that both
formats agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mgrpo.records.json_object import JsonObject
from mgrpo.report.outcome import GAIN_LABEL, VERDICTS, accuracy_label
from mgrpo.report.words import EN_DASH, MINUS, MISSING, percent, plural, points

LONGEST_PHRASE = 60  # characters


@dataclass(frozen=True, slots=True)
class TextTable:
    """Rows of text under a title. The first column is a label, the others are numbers."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


def evaluation_tables(row: JsonObject, title: str) -> list[TextTable]:
    """All tables of one evaluation.

    Args:
        row: from `evaluation_row`.
        title: of the first table: the model.
    """
    tables = [turn_table(row, title)]
    tables += [move_table(moves, moves["layer"] - 1) for moves in row["transitions"]]
    if "whole_chain" in row:
        tables.append(move_table(row["whole_chain"], 1))
    if "verdicts" in row:
        tables.append(verdict_table(row["verdicts"]))
    if len(row["phrases"]) > 1:
        tables.append(phrase_table(row))
    if len(row["domains"]) > 1:
        tables.append(domain_table(row))
    return tables


def turn_table(row: JsonObject, title: str) -> TextTable:
    """One line per turn: accuracy, interval, range over phrases, pass@k and maj@k."""
    num_samples = row["samples_per_problem"]
    columns = [f"avg@{num_samples}" if num_samples > 1 else "Accuracy"]
    ci = row.get("ci")
    if ci:
        columns.append(f"{100 * ci['level']:.0f} % interval")
    has_range = len(row["phrases"]) > 1
    if has_range:
        columns.append("over phrases")
    extras = [
        (f"{name}@{k}", values)
        for name in ("pass", "maj")
        for k, values in row.get(f"{name}_at", {}).items()
        if k != "1"  # both equal the accuracy then
    ]
    if "selected" in row:
        extras.append((f"sel@{num_samples}", row["selected"]["acc"]))
    lines = []
    for turn, accuracy in enumerate(row["acc"]):
        cells = [accuracy_label(turn), percent(accuracy)]
        if ci:
            cells.append(shares(ci["acc"][turn]))
        if has_range:
            cells.append(shares(row["acc_range"][turn]) if turn > 0 else "")
        lines.append(cells + [percent(values[turn]) for _, values in extras])
    if row["delta"] is not None:
        cells = [GAIN_LABEL, points(row["delta"])]
        if ci:
            cells.append(point_interval(ci["delta"]))
        lines.append(cells + [""] * (len(columns) + len(extras) + 1 - len(cells)))
    return TextTable(title, ["Turn", *columns, *(name for name, _ in extras)], lines)


def move_table(moves: JsonObject, before: int) -> TextTable:
    """The 2x2 counts from turn `before` to the turn of `moves`."""
    counts, after = moves["counts"], moves["layer"]

    def cell(kind: str) -> str:
        return f"{counts[kind]:,} ({percent(moves[kind])})"

    gained, lost = (
        points(moves[kind]).lstrip("+") for kind in ("wrong_to_right", "right_to_wrong")
    )
    title = f"From turn {before} to turn {after}: "
    title += f"{gained} {MINUS} {lost} = {points(moves['delta'])} points"
    if moves["copy_fraction"] is not None:
        title += f"; {percent(moves['copy_fraction'])} keep the answer"
    if moves["copy_fraction_of_wrong"] is not None:
        title += f", {percent(moves['copy_fraction_of_wrong'])} of the wrong ones"
    return TextTable(
        title,
        ["", f"right at turn {after}", f"wrong at turn {after}"],
        [
            [f"right at turn {before}", cell("right_to_right"), cell("right_to_wrong")],
            [f"wrong at turn {before}", cell("wrong_to_right"), cell("wrong_to_wrong")],
        ],
    )


def verdict_table(verdicts: Sequence[JsonObject]) -> TextTable:
    """One line per verify layer. Precision and recall are of wrong attempts."""
    return TextTable(
        "Verdicts on attempts",
        ["Turn", *VERDICTS.values(), "Accepted", "Unreadable"],
        [
            [
                f"{one['layer']}",
                *(percent(one[name]) for name in VERDICTS),
                percent(one["accepted_fraction"]),
                percent(one["unreadable_fraction"]),
            ]
            for one in verdicts
        ],
    )


def phrase_table(row: JsonObject) -> TextTable:
    """The later turns' accuracies under each guidance phrase."""
    later = range(1, len(row["acc"]))
    return TextTable(
        "By guidance phrase",
        ["Phrase", *(f"Acc@t{turn + 1}" for turn in later)],
        [
            [
                f"{phrase['index']}: {shortened(phrase.get('text', ''))}".rstrip(": "),
                *(percent(phrase["acc"][turn]) for turn in later),
            ]
            for phrase in row["phrases"]
        ],
    )


def domain_table(row: JsonObject) -> TextTable:
    """One line per domain: accuracies, gain, and the transitions of the last turn."""
    num_turns = len(row["acc"])
    columns = ["Domain", "Problems", *(turn_name(turn) for turn in range(num_turns))]
    if row["transitions"]:
        columns += ["Δ", "wrong → right", "right → wrong"]
    lines = []
    for name, domain in row["domains"].items():
        cells = [name, f"{domain['num_problems']:,}", *map(percent, domain["acc"])]
        if row["transitions"]:
            moves = domain["transitions"][-1]
            cells += [points(domain["delta"])]
            cells += [percent(moves["wrong_to_right"]), percent(moves["right_to_wrong"])]
        lines.append(cells)
    title = "By domain"
    if num_turns > 2:
        title += f"; transitions from turn {num_turns - 1} to turn {num_turns}"
    return TextTable(title, columns, lines)


def evaluation_note(row: JsonObject) -> str:
    """The conditions of the measurement."""
    decoding = f"{row['decoding']} decoding"
    if row["decoding"] == "sampled":
        decoding = (
            f"{plural(row['samples_per_problem'], 'sample')} of each at temperature "
            f"{row['temperature']:g}"
        )
    parts = [f"{plural(row['num_problems'], 'held-out problem')}, {decoding}, seed {row['seed']}."]
    if len(row["acc"]) > 1:
        parts.append(guidance_note(row["guidance"]))
        if row.get("feedback"):
            parts.append("Corrections read the check's feedback on the attempt.")
    if "ci" in row:
        resamples = f"{row['ci']['resamples']:,} resamples"
        parts.append(f"Intervals: bootstrap over problems, {resamples}.")
    if "selected" in row:
        parts.append(selected_note(row))
    if row["delta"] is not None:
        parts.append("Δ is in percentage points.")
    if row["num_failed_checks"]:
        parts.append(
            f"{plural(row['num_failed_checks'], 'check')} failed (timeout or error); their chains "
            "are left out."
        )
    return " ".join(parts)


def selected_note(row: JsonObject) -> str:
    selected = row["selected"]
    whose, beside = {
        "greedy": ("the greedy answer", "the greedy answer and "),
        "max_likelihood": ("the likeliest sample", ""),
    }[selected["anchor"]]
    kept = ", ".join(percent(value) for value in selected["kept_fraction"])
    return (
        f"sel@{row['samples_per_problem']}: the vote of {beside}the samples at least "
        f"{selected['ratio']:g} times as likely as {whose} ({kept} of the samples, by turn)."
    )


def guidance_note(guidance: str | list[int]) -> str:
    match guidance:
        case "all":
            return "Guidance: the mean over all phrases."
        case "first":
            return "Guidance: the first phrase."
        case "random":
            return "Guidance: one phrase drawn for each attempt."
    if len(guidance) == 1:
        return f"Guidance: phrase {guidance[0]}."
    return f"Guidance: the mean over phrases {', '.join(map(str, guidance))}."


def comparison_table(comparison: JsonObject, names: Sequence[str]) -> TextTable:
    """One line per turn: both accuracies, their difference, its interval and its test."""
    lines = []
    for turn in comparison["turns"]:
        lines.append(
            [
                accuracy_label(turn["turn"] - 1),
                *map(percent, turn["acc"]),
                points(turn["difference"]),
                *test_cells(turn),
            ]
        )
    if comparison["delta"] is not None:
        gain = comparison["delta"]
        lines.append([GAIN_LABEL, "", "", points(gain["difference"]), *test_cells(gain)])
    heads = ["Turn", "A", "B", f"A {MINUS} B", f"{100 * comparison['level']:.0f} % interval"]
    return TextTable(
        f"A: {names[0]} against B: {names[1]}", [*heads, "p", "test", "only A : only B"], lines
    )


def test_cells(row: JsonObject) -> list[str]:
    """Interval, p-value, the test's name, and the numbers of problems that only one solves."""
    interval = point_interval(row["ci"]) if "ci" in row else MISSING
    if "p_value" not in row:
        return [interval, MISSING, MISSING, ""]
    p_value = row["p_value"]
    p_text = f"{p_value:.3f}" if p_value >= 0.001 else "< 0.001"
    alone = f"{row['only_a']} : {row['only_b']}" if "only_a" in row else ""
    return [interval, p_text, row["test"], alone]


def comparison_note(comparison: JsonObject) -> str:
    parts = [
        f"{plural(comparison['num_problems'], 'problem')} answered by both, with the same seeds. "
        f"Differences are in percentage points; intervals: paired bootstrap over problems, "
        f"{comparison['resamples']:,} resamples."
    ]
    if any("only_a" in turn for turn in comparison["turns"]):
        parts.append("The exact McNemar test uses the problems that only one of them solves.")
    if comparison["num_unpaired"]:
        parts.append(
            f"{plural(comparison['num_unpaired'], 'problem')} of only one of them left out."
        )
    return " ".join(parts)


def markdown(tables: Sequence[TextTable], note: str) -> str:
    """The tables as one block of Markdown."""
    blocks = []
    for table in tables:
        lines = [f"**{escaped(table.title)}**", "", markdown_line(table.columns)]
        lines.append(markdown_line(["---", *["---:"] * (len(table.columns) - 1)]))
        lines += [markdown_line(row) for row in table.rows]
        blocks.append("\n".join(lines))
    return "\n\n".join([*blocks, note]) + "\n"


def markdown_line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(escaped(cell) for cell in cells)} |"


def escaped(text: str) -> str:
    """A cell's text with escaped separators and line breaks."""
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")


def turn_name(turn: int) -> str:
    return "Acc@t1'" if turn == 0 else f"Acc@t{turn + 1}"


def shares(interval: Sequence[float]) -> str:
    """[0.411, 0.46] -> "41.1–46.0"."""
    return f"{100 * interval[0]:.1f}{EN_DASH}{100 * interval[1]:.1f}"


def point_interval(interval: Sequence[float]) -> str:
    """[-0.01, 0.05] -> "−1.0 to +5.0"."""
    return f"{points(interval[0])} to {points(interval[1])}"


def shortened(phrase: str) -> str:
    if len(phrase) <= LONGEST_PHRASE:
        return phrase
    return f"{phrase[: LONGEST_PHRASE - 3].rstrip()}..."
