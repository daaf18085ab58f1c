"""Terminal output of a run: progress, and the table at its end.

On a terminal: a row per step and, below the rows, a live line with the current phase. Without
one (a job's log, CI): one plain line per step, and occasional progress lines in long steps: `step
12 · layer 2 · 87/128 groups`.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.table import Table
from rich.text import Text

from cluster.progress_board import ProgressBoard
from mgrpo.evaluation.tables import (
    TextTable,
    comparison_note,
    comparison_table,
    evaluation_note,
    evaluation_tables,
)
from mgrpo.metrics.learning import learning_sentence
from mgrpo.records.secret_values import redacted
from mgrpo.report.outcome import (
    first_and_last,
    footnote,
    outcome_rows,
    outcome_sentence,
    training_sentence,
)
from mgrpo.report.words import MISSING, duration, number, plural
from mgrpo.storage.policies import EarlyEnd

HEADER_EVERY = 20  # rows, so that the header stays on the screen
STEP_WIDTH = 6
STEPS_FOR_ETA = 10  # the time left follows the latest steps
PHASE_EVERY_S = 30.0  # between a log's lines about the phase of a step


@dataclass(frozen=True, slots=True)
class Column:
    """One column of the table: its head, its width in characters, and where its value is."""

    head: str
    width: int
    metric: str
    meaning: str
    digits: int | None = None  # decimals; None: three significant digits


def columns_for(num_layers: int, width: int) -> list[Column]:
    """The columns that fit into `width` characters, the most important ones first."""
    wanted = [
        Column(f"Acc@t{k}", 7, f"layer{k}/accuracy", f"share right after turn {k}", 3)
        for k in range(1, num_layers + 1)
    ]
    if num_layers > 1:
        last = f"transition/layer{num_layers}"
        wanted.append(Column("i→c", 6, f"{last}/wrong_to_right", "wrong made right", 3))
        wanted.append(Column("c→i", 6, f"{last}/right_to_wrong", "right made wrong", 3))
    wanted += [
        Column("reward", 7, "layer1/reward_mean", "mean of first attempts", 3),
        Column("tokens", 8, "tokens/generated", "sampled", 0),
        Column("grad", 7, "learner/grad_norm", "norm of the gradient (none: nothing trained)"),
        Column("gap", 8, "mismatch/logprob_gap_mean", "engine against learner, nats a token"),
        Column("roll s", 7, "seconds/rollout", "sampling", 1),
        Column("upd s", 6, "seconds/update", "update", 1),
        Column("wts s", 6, "seconds/weights", "new weights to the engines", 1),
        Column("tok/s", 7, "tokens/per_s", "sampled tokens over the step's time", 0),
        Column("length", 7, "layer1/completion_tokens_mean", "tokens of a first attempt", 1),
        Column("cut", 6, "layer1/truncated_fraction", "first attempts without room to end", 3),
        Column("entropy", 8, "learner/entropy", "of the policy, nats a token"),
    ]
    left = width - STEP_WIDTH - len("  1 h 59 min")
    columns = []
    for column in wanted:
        left -= column.width + 1
        if left < 0:
            break
        columns.append(column)
    return columns


def cell(column: Column, values: Mapping[str, float | None]) -> str:
    value = values.get(column.metric)
    if value is None or value != value:  # NaN differs from itself
        return MISSING
    return number(value) if column.digits is None else f"{value:,.{column.digits}f}"


class TrainProgress:
    """Shows a run's steps. Use as a context manager around the loop.

    Example:
        with TrainProgress(60, "sums · MGRPO", num_layers=2) as progress:
            progress.phase("layer 1 · 87/128 groups", fraction=87 / 128)
            progress.step_done(0, {"layer1/accuracy": 0.42})
    """

    def __init__(
        self,
        total_steps: int,
        title: str,
        num_layers: int,
        *,
        first_step: int = 0,
        console: Console | None = None,
    ) -> None:
        """
        Args:
            total_steps: steps of the whole run.
            title: shown once at the start.
            num_layers: layers of the chain; each has an accuracy column.
            first_step: steps already taken when a run is resumed.
            console: where to write; standard output by default.
        """
        self.console = console or Console(highlight=False)
        self.is_live = self.console.is_terminal and not self.console.is_dumb_terminal
        self.total_steps, self.title, self.first_step = total_steps, title, first_step
        self.num_done = first_step
        self.num_rows = 0
        self.columns = columns_for(num_layers, self.console.width if self.is_live else 10_000)
        self.board = ProgressBoard()  # of the whole run
        self.step_seconds: deque[float] = deque(maxlen=STEPS_FOR_ETA)
        self.evaluation_s = 0.0  # the latest
        self.num_evaluations_left = 0
        self.step_started = self.last_line = time.monotonic()
        self.live = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            StepCount(),
            TextColumn("[dim]{task.fields[phase]}"),
            console=self.console,
            transient=True,
            disable=not self.is_live,
        )
        self.task = self.live.add_task(
            "step", total=total_steps, completed=first_step, phase="starting"
        )

    def __enter__(self) -> TrainProgress:
        left = self.total_steps - self.first_step
        resumed = f", resumed after step {self.first_step}" if self.first_step else ""
        self.console.print(Text(f"{self.title}: {plural(left, 'step')}{resumed}", style="bold"))
        legend = "; ".join(f"{column.head}: {column.meaning}" for column in self.columns)
        self.console.print(Text(legend, style="dim"), soft_wrap=not self.is_live)
        self.live.start()
        self.step_started = self.last_line = time.monotonic()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.live.stop()

    def phase(self, text: str, *, fraction: float = 0.0) -> None:
        """Show the step's phase; `fraction` is the finished part of the step.

        A terminal shows every phase. A log gets one only if nothing was written for PHASE_EVERY_S.
        """
        self.board.did(text)
        if not self.is_live:
            self.log_phase(text)
            return
        share = min(max(fraction, 0.0), 1.0)
        self.live.update(self.task, completed=self.num_done + share, phase=escape(text))

    def log_phase(self, text: str) -> None:
        now = time.monotonic()
        if now - self.last_line < PHASE_EVERY_S:
            return
        self.last_line = now
        is_over = self.num_done >= self.total_steps
        self.write(Text(text if is_over else f"step {self.num_done} · {text}"))

    def step_done(self, step: int, values: Mapping[str, float | None]) -> None:
        """Print the step's row. `values` are the metrics by name, as in metrics.jsonl."""
        self.board.did(f"the end of step {step}")
        now = time.monotonic()
        # The step's own clock where it is known: what lies before step 0 is not a step's pace.
        self.step_seconds.append(values.get("seconds/step") or now - self.step_started)
        self.step_started = self.last_line = now
        self.num_done += 1
        self.live.update(self.task, completed=self.num_done, phase="")
        if self.is_live:
            self.print_row(step, values)
        else:
            self.print_line(step, values)
        self.num_rows += 1

    def print_row(self, step: int, values: Mapping[str, float | None]) -> None:
        if self.num_rows % HEADER_EVERY == 0:
            heads = " ".join(f"{column.head:>{column.width}}" for column in self.columns)
            self.write(Text(f"{'step':>{STEP_WIDTH}} {heads}  {'left':<10}", style="dim"))
        cells = " ".join(f"{cell(column, values):>{column.width}}" for column in self.columns)
        row = Text(f"{step:>{STEP_WIDTH}}", style="bold")
        row.append(f" {cells}", style="not bold")
        row.append(f"  {duration(self.seconds_left())}", style="not bold dim")
        self.write(row)

    def print_line(self, step: int, values: Mapping[str, float | None]) -> None:
        """One line of `name value` pairs, the same names in the same order every time."""
        cells = "  ".join(f"{column.head} {cell(column, values)}" for column in self.columns)
        left = duration(self.seconds_left())
        self.write(
            Text(f"step {step}  {cells}  done {self.num_done}/{self.total_steps}  left {left}")
        )

    def evaluated(self, seconds: float, num_left: int) -> None:
        """Note how long an evaluation took, and how many are to come."""
        self.evaluation_s, self.num_evaluations_left = seconds, num_left

    def seconds_left(self) -> float | None:
        """Time until the end, at the pace of the latest steps and the latest evaluation."""
        if not self.step_seconds:
            return None
        mean_s = sum(self.step_seconds) / len(self.step_seconds)
        steps_s = mean_s * max(self.total_steps - self.num_done, 0)
        return steps_s + self.evaluation_s * self.num_evaluations_left

    def note(self, text: str) -> None:
        """Print a note on its own line."""
        self.write(Text(redacted(text)))

    def warn(self, text: str) -> None:
        """Print a warning."""
        self.write(Text(f"warning: {redacted(text)}", style="yellow"))

    def write(self, text: Text) -> None:
        """Above the live line, never wrapped: a log's line stays one line."""
        self.live.console.print(text, soft_wrap=True)


class StepCount(ProgressColumn):
    """ "12/60": whole steps, although the bar also moves inside a step."""

    def render(self, task: Task) -> Text:
        return Text(f"{int(task.completed)}/{int(task.total or 0)}")


def print_before_after(
    console: Console,
    evaluations: Sequence[dict[str, object]],
    metrics: Sequence[dict[str, object]] = (),
) -> None:
    """The held-out results before and after training, with the outcome in words.

    Prints nothing without measurements.
    """
    before, after = first_and_last(evaluations)
    measured = after or before
    if measured is None:
        if learning := learning_sentence(metrics):
            console.print(Text(learning, style="bold"))
        return
    later = "After" if after is None or after["label"] == "after" else f"Step {after['step']}"
    table = Table(box=None, pad_edge=False, padding=(0, 2), header_style="dim")
    table.add_column("Held-out problems")
    for head in ("Before", later, "Change"):
        table.add_column(head, justify="right", no_wrap=True)
    for row in outcome_rows(before, after):
        if row.heading:
            table.add_row()
            table.add_row(Text(row.label, style="dim"))
            continue
        style = {True: "green", False: "yellow", None: ""}[row.better]
        cells = [Text(row.label), Text(row.before), Text(row.after, style="bold")]
        table.add_row(*cells, Text(row.change, style=style))
    console.print()
    if training := training_sentence(metrics):
        console.print(Text(training, style="bold"))
    for sentence in filter(None, (outcome_sentence(evaluations), learning_sentence(metrics))):
        console.print(Text(sentence))
    console.print()
    console.print(table)
    console.print(Text(footnote(measured), style="dim"))


def print_next(console: Console, run_dir: Path, model: str, steps: int) -> None:
    """What can be done with a run that has ended."""
    lines = {
        f"mgrpo eval {run_dir} --against {model}": "is the gain significant?",
        f"mgrpo explain {run_dir}": "rewards and advantages of its completions",
        f"mgrpo train ... steps={2 * steps}": "the same command with more steps makes it longer",
        "mgrpo init NAME --data FILE": "a recipe for your own data and reward",
    }
    width = max(map(len, lines))
    console.print("\nNext:")
    for command, meaning in lines.items():
        console.print(Text(f"  {command:{width}}  {meaning}"), soft_wrap=True)


def print_early_end(console: Console, end: EarlyEnd | None, num_planned: int) -> None:
    """Why a run took fewer steps than planned: its last line."""
    if end is not None:
        line = f"\nEnded early, after {end.num_steps} of {num_planned} steps: {end.reason}."
        console.print(Text(line, style="bold"), soft_wrap=True)


def print_evaluation(console: Console, evaluation: dict[str, object], *, title: str) -> None:
    """One evaluation's accuracies, moves, phrases and domains."""
    print_tables(console, evaluation_tables(evaluation, title), evaluation_note(evaluation))


def print_comparison(
    console: Console, comparison: dict[str, object], *, names: tuple[str, str]
) -> None:
    """What differs between two policies, A and B."""
    print_tables(console, [comparison_table(comparison, names)], comparison_note(comparison))


def print_tables(console: Console, tables: Sequence[TextTable], note: str) -> None:
    """Tables of text, one under the other, and a dim note below them."""
    for table in tables:
        grid = Table(box=None, pad_edge=False, padding=(0, 2), header_style="dim")
        for index, head in enumerate(table.columns):
            grid.add_column(Text(head), justify="right" if index else "left", no_wrap=index > 0)
        for row in table.rows:
            grid.add_row(*(Text(cell) for cell in row))
        console.print(Text(table.title, style="bold"))
        console.print(grid)
        console.print()
    console.print(Text(note, style="dim"), soft_wrap=not console.is_terminal)
