"""A study as Markdown: accuracy, cost, every seed, the tuning, and what it was run on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from benchmarks.machine import cpu_model
from benchmarks.study.plan import LAST_STEPS, Study, chosen_trial, tuning_accuracy
from benchmarks.study.results import Result, Scores
from benchmarks.study.runs import Runs
from mgrpo.evaluation.seeds import welch


@dataclass(frozen=True)
class Column:
    """A number of a result, and how it is written."""

    title: str
    value: Callable[[Result], float]
    scale: float = 1.0
    digits: int = 1
    is_signed: bool = False

    def mean_and_sd(self, results: Sequence[Result]) -> str:
        """The mean over seeds and, from two seeds on, the sample standard deviation."""
        values = [self.scale * self.value(result) for result in results]
        mean = self.write(fmean(values))
        return mean if len(values) < 2 else f"{mean} ± {stdev(values):,.{self.digits}f}"

    def one(self, result: Result) -> str:
        return self.write(self.scale * self.value(result))

    def write(self, value: float) -> str:
        sign = "+" if self.is_signed else ""
        return f"{value:{sign},.{self.digits}f}"


ACCURACY = (
    Column("sampled, %", lambda r: r.sampled, 100),
    Column("Acc@t1', %", lambda r: r.scores.acc_t1, 100),
    Column("Acc@t2, %", lambda r: r.scores.acc_t2, 100),
    Column("Δ, points", lambda r: r.scores.delta, 100, is_signed=True),
    Column("wrong→right, %", lambda r: r.scores.wrong_to_right, 100),
    Column("right→wrong, %", lambda r: r.scores.right_to_wrong, 100),
    Column("answer kept, %", lambda r: r.scores.copies, 100),
)
COMPARED = ("sampled, %", "Acc@t1', %", "Acc@t2, %", "Δ, points")
"""Columns whose differences between methods are shown."""
COST = (
    Column("completions", lambda r: r.cost.completions, digits=0),
    Column("generated, k tokens", lambda r: r.cost.generated_tokens, 1e-3, 0),
    Column("trained, k tokens", lambda r: r.cost.trained_tokens, 1e-3, 0),
    Column("prompts, k tokens", lambda r: r.cost.prompt_tokens, 1e-3, 0),
    Column("training, min", lambda r: r.cost.training_s, 1 / 60),
    Column("whole command, min", lambda r: r.cost.wall_s, 1 / 60),
)


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What the page says beside the numbers."""

    command: str
    unfinished: str = ""  # a sentence, while runs are left
    figure: str = ""  # Markdown of the curves


def describe(
    study: Study, runs: Runs, results: Sequence[Result], start: Scores | None, *, facts: Facts
) -> str:
    """What stands between the page's marks."""
    blocks = [
        facts.unfinished,
        facts.figure,
        f"Accuracy, mean ± standard deviation over seeds ({seed_counts(results)}). Sampled: right "
        f"first attempts in the last {LAST_STEPS} training steps; the others are greedy:",
        accuracy_table(results, start),
        difference_block(results),
        "Cost of one run, mean ± standard deviation:",
        table(["Method", *(c.title for c in COST)], mean_rows(results, COST)),
        "Every run:",
        seed_table(results),
        tuning_block(study, runs),
        provenance([result.environment for result in results], facts.command),
    ]
    return "\n\n".join(block for block in blocks if block)


def by_method(results: Sequence[Result]) -> dict[str, list[Result]]:
    """Results by recipe, in their order."""
    groups: dict[str, list[Result]] = {}
    for result in results:
        groups.setdefault(result.trial.recipe, []).append(result)
    return groups


def seed_counts(results: Sequence[Result]) -> str:
    """ "3 each", or "GRPO 3, MGRPO 2" while runs are left."""
    counts = {group[0].method: len(group) for group in by_method(results).values()}
    if len(set(counts.values())) == 1:
        return f"{next(iter(counts.values()))} each"
    return ", ".join(f"{method} {count}" for method, count in counts.items()) or "none yet"


def accuracy_table(results: Sequence[Result], start: Scores | None) -> str:
    head = ["Method", "learning rate", *(column.title for column in ACCURACY)]
    rows = [
        [group[0].method, f"{group[0].learning_rate:g}", *cells]
        for group, (_, *cells) in zip(
            by_method(results).values(), mean_rows(results, ACCURACY), strict=True
        )
    ]
    if start is not None:
        shares = (start.acc_t1, start.acc_t2, start.delta)
        moves = (start.wrong_to_right, start.right_to_wrong, start.copies)
        cells = [
            column.write(column.scale * share)
            for column, share in zip(ACCURACY[1:], (*shares, *moves), strict=True)
        ]
        rows.insert(0, ["before training", "", "", *cells])
    return table(head, rows)


def mean_rows(results: Sequence[Result], columns: Sequence[Column]) -> list[list[str]]:
    return [
        [group[0].method, *(column.mean_and_sd(group) for column in columns)]
        for group in by_method(results).values()
    ]


def difference_block(results: Sequence[Result]) -> str:
    """Every method less the first, with what so few seeds leave open; nothing for one method."""
    first, *others = by_method(results).values() or [[]]
    columns = [column for column in ACCURACY if column.title in COMPARED]
    rows = [
        [group[0].method, *(difference_cell(column, first, group) for column in columns)]
        for group in others
    ]
    if not rows:
        return ""
    return (
        f"Differences to {first[0].method} in points, with 95 % intervals and p by Welch's t over "
        "seeds; an interval that holds 0 says that these seeds do not tell the two apart:\n\n"
        + table(["Method", *(column.title.partition(",")[0] for column in columns)], rows)
    )


def difference_cell(column: Column, first: Sequence[Result], second: Sequence[Result]) -> str:
    """ "+1.3 ± 7.4 (p = 0.56)", or the difference alone where no spread can be told."""
    values = [
        [column.scale * column.value(result) for result in group] for group in (first, second)
    ]
    found = welch(*values)
    if found is None:
        return f"{fmean(values[1]) - fmean(values[0]):+,.{column.digits}f}"
    p = "< 0.01" if found.p < 0.01 else f"= {found.p:.2f}"
    return f"{found.mean:+,.1f} ± {found.half_width:,.1f} (p {p})"


def seed_table(results: Sequence[Result]) -> str:
    columns = (*ACCURACY, *COST)
    return table(
        ["Method, seed", *(column.title for column in columns)],
        [
            [f"{result.method}, {result.trial.seed}", *(column.one(result) for column in columns)]
            for result in results
        ],
    )


def tuning_block(study: Study, runs: Runs) -> str:
    """Training accuracy of every tuning run; nothing where nothing was tuned."""
    if len(study.learning_rates) < 2:
        return ""
    rows = []
    for recipe in study.recipes:
        trials = study.tuning_trials(recipe)
        chosen = chosen_trial(study, runs, recipe)
        cells = []
        for trial in trials:
            if not runs.is_trained(trial):
                cells.append("")
                continue
            share = f"{100 * tuning_accuracy(runs, trial):.1f}"
            cells.append(f"**{share}**" if trial == chosen else share)
        rows.append([trials[0].config().method, *cells])
    head = ["Method", *(f"{rate:g}" for rate in study.learning_rates)]
    return (
        f"Tuning: accuracy (%) of sampled first attempts over the last {LAST_STEPS} training "
        f"steps, by learning rate, seed {study.seeds[0]}. Bold: the rate taken for every "
        f"seed.\n\n{table(head, rows)}"
    )


def provenance(environments: Sequence[Mapping[str, Any]], command: str) -> str:
    """What numbers hold for, from the environment.json of the runs that they come from."""
    if not environments:
        return f"Command: `{command}`."
    last = environments[-1]
    packages = ", ".join(
        f"{name} {version}" for name, version in last["packages"].items() if version
    )
    days = sorted({str(environment["started"])[:10] for environment in environments})
    revisions = dict.fromkeys(
        str(environment["git_revision"] or "?")[:10] for environment in environments
    )
    return (
        f"Command: `{command}`. Run {' to '.join(dict.fromkeys([days[0], days[-1]]))} on "
        f"{cpu_model()}, {last['cpu_cores']} cores, {last['memory_gib']} GiB; {last['platform']}; "
        f"Python {last['python']}, {packages}; revision {', '.join(revisions)}."
    )


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown: the first column to the left, numbers to the right."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
