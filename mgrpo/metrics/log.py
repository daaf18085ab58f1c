"""The metric files of a run, and their readers.

A run's directory holds `metrics.jsonl` (one object per step), `evaluation.jsonl` (one per
evaluation), `alarms.jsonl` (one per alert, if any), `rollouts/step-000012.jsonl` (some completions
of the step) and `rollouts/heldout-000013.jsonl` (of an evaluation after so many steps); the
recipe's trackers receive the same numbers. Lines are written at once, so a crash can truncate only
the last one; readers skip a truncated last line, and a resumed run removes it before it appends.
What a disk that is full does not take is kept in memory and written as soon as it does.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from mgrpo.errors import DataError, RunDirectoryError
from mgrpo.metrics.rows import AlarmForm, EvaluationForm, Row, StepForm, read_lines
from mgrpo.records.json_object import JsonObject
from mgrpo.trackers.group import FAILED_WRITES, Trackers
from mgrpo.types import Completion

METRICS_FILE = "metrics.jsonl"
EVALUATION_FILE = "evaluation.jsonl"
ALARMS_FILE = "alarms.jsonl"
ROLLOUTS_DIR = "rollouts"


RolloutKind = Literal["step", "heldout"]


class MetricsLog:
    """Appends a run's metrics to its JSON Lines files, and passes them to its trackers."""

    def __init__(
        self,
        run_dir: Path | str,
        trackers: Trackers | None = None,
        price_per_hour: float | None = None,
    ) -> None:
        """Open the files, creating the directory. The log closes its trackers."""
        self.run_dir, self.price_per_hour = Path(run_dir), price_per_hour
        (self.run_dir / ROLLOUTS_DIR).mkdir(parents=True, exist_ok=True)
        for name in (METRICS_FILE, EVALUATION_FILE):
            remove_torn_line(self.run_dir / name)
        earlier = read_metrics(self.run_dir)
        self.wall_s_before = float(earlier[-1].get("wall_s") or 0.0) if earlier else 0.0
        self.cost_before = float(earlier[-1].get("cost") or 0.0) if earlier else 0.0
        self.started = time.monotonic()
        self.trackers = trackers or Trackers()
        self.metrics = LineFile(self.run_dir / METRICS_FILE)
        self.evaluations = LineFile(self.run_dir / EVALUATION_FILE)
        self.alarms: LineFile | None = None

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Append one step, with `wall_s`, seconds of running so far, and their `cost`.

        Values that are not finite become null in the file and are not sent to the trackers.
        """
        row: Row = {"step": step}
        running_s = time.monotonic() - self.started
        row["wall_s"] = self.wall_s_before + running_s
        if self.price_per_hour is not None:
            row["cost"] = self.cost_before + running_s / 3600 * self.price_per_hour
        row |= {name: plain_number(value) for name, value in values.items()}
        if self.trackers.num_missed:
            row[FAILED_WRITES] = self.trackers.num_missed
        self.append(self.metrics, row)
        self.trackers.write(step, {name: row[name] for name in row if name != "step"})

    def write_evaluation(self, evaluation: JsonObject) -> None:
        """Append one evaluation: step, label, num_problems, decoding, acc per layer, ..."""
        self.append(self.evaluations, evaluation)
        scalars: dict[str, float | None] = {
            f"heldout/layer{layer}/accuracy": value
            for layer, value in enumerate(evaluation.get("acc", []), start=1)
        }
        for transition in evaluation.get("transitions", []):
            prefix = f"heldout/transition/layer{transition['layer']}"
            scalars |= {
                f"{prefix}/{name}": value
                for name, value in transition.items()
                if name != "layer" and isinstance(value, float)
            }
        self.trackers.write(evaluation["step"], scalars)

    def write_alarm(self, alarm: Mapping[str, object]) -> None:
        """Append one alert: step, name, message, ... The first one creates the file."""
        if self.alarms is None:
            remove_torn_line(self.run_dir / ALARMS_FILE)
            self.alarms = LineFile(self.run_dir / ALARMS_FILE)
        self.append(self.alarms, alarm)

    def append(self, file: LineFile, row: Mapping[str, object]) -> None:
        if (error := file.append(to_line(row))) is not None:
            self.trackers.warn(
                f"{file.path} cannot be written: {error}. {len(file.waiting)} bytes are kept in "
                "memory until it can. Free space on the disk, or make it writable"
            )

    def write_rollouts(
        self, step: int, completions: Sequence[Completion], kind: RolloutKind = "step"
    ) -> Path:
        """Write recorded completions; the file appears only once it is complete. The trackers get
        some of a step's.

        Args:
            step: their step, or of an evaluation the number of steps before it.

        Returns:
            Its path, where there is none if the disk refuses it, which is reported.
        """
        path = self.run_dir / ROLLOUTS_DIR / f"{kind}-{step:06d}.jsonl"
        unfinished = path.with_suffix(".unfinished")
        try:
            with unfinished.open("w", encoding="utf-8") as file:
                file.writelines(to_line(completion.to_json()) for completion in completions)
            unfinished.replace(path)
        except OSError as error:
            self.trackers.warn(f"{path} is not written: {error}")
            with suppress(OSError):
                unfinished.unlink(missing_ok=True)
        if kind == "step":
            self.trackers.write_completions(step, completions)
        return path

    def close(self) -> None:
        for file in (self.metrics, self.evaluations, self.alarms):
            if file is not None and (error := file.close()) is not None:
                lost = file.waiting.count(b"\n")
                self.trackers.warn(f"{lost} lines of {file.path} are lost: {error}")
        self.trackers.close()

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def read_metrics(run_dir: Path | str) -> list[Row]:
    """The steps of a run, oldest first; [] if there are none yet.

    A resumed run writes some steps a second time. Its step replaces that step and all later ones of
    the interrupted run, which are not part of the resumed policy's history.
    """
    kept: list[Row] = []
    for row in read_lines(Path(run_dir) / METRICS_FILE, StepForm):
        while kept and kept[-1]["step"] >= row["step"]:
            kept.pop()
        kept.append(row)
    return kept


def read_evaluations(run_dir: Path | str) -> list[Row]:
    """The evaluations of a run, oldest first; one that was repeated after a resume counts once."""
    kept: list[Row] = []
    for row in read_lines(Path(run_dir) / EVALUATION_FILE, EvaluationForm):
        key = (row["step"], row["label"])
        kept = [old for old in kept if (old["step"], old["label"]) != key]
        kept = [old for old in kept if old["step"] <= row["step"]]
        kept.append(row)
    return kept


def read_alarms(run_dir: Path | str) -> list[Row]:
    """The alerts of a run, oldest first; those of repeated steps after a resume count once."""
    kept: list[Row] = []
    for row in read_lines(Path(run_dir) / ALARMS_FILE, AlarmForm):
        key = (row["step"], row["name"], row["layer"])
        kept = [old for old in kept if (old["step"], old["name"], old["layer"]) != key]
        kept = [old for old in kept if old["step"] <= row["step"]]
        kept.append(row)
    return kept


def read_rollouts(path: Path | str) -> list[Completion]:
    """The completions of one file of `rollouts/`.

    Raises:
        RunDirectoryError: it holds something else.
    """
    try:
        return [Completion.from_json(row) for row in read_lines(Path(path))]
    except DataError as error:
        raise RunDirectoryError(f"{path} cannot be read: {error}") from error


def rollout_paths(run_dir: Path | str, kind: RolloutKind = "step") -> dict[int, Path]:
    """Step -> file, for every step whose completions were recorded, ascending; with "heldout" for
    every evaluation, by the number of steps before it."""
    paths = (Path(run_dir) / ROLLOUTS_DIR).glob(f"{kind}-*.jsonl")
    steps = [(path.stem.removeprefix(f"{kind}-"), path) for path in paths]
    return dict(sorted((int(step), path) for step, path in steps if step.isdecimal()))


def remove_torn_line(path: Path) -> None:
    """Remove a truncated last line, so that appending starts on a new line."""
    if not path.exists():
        return
    content = path.read_bytes()
    whole, newline, tail = content.rpartition(b"\n")
    if not tail:
        return
    try:
        json.loads(tail)
    except ValueError:  # truncated: json.JSONDecodeError or UnicodeDecodeError
        path.write_bytes(whole + newline)
    else:  # complete, only its newline is missing
        path.write_bytes(content + b"\n")


class LineFile:
    """Appends lines to a file, and keeps what the disk does not take."""

    def __init__(self, path: Path) -> None:
        """Open the file, creating it."""
        self.path, self.file, self.waiting = path, path.open("ab", buffering=0), b""

    def append(self, line: str) -> OSError | None:
        """Write what waits and a line more; returns why some of it still waits."""
        self.waiting += line.encode()
        try:
            while self.waiting:
                self.waiting = self.waiting[self.file.write(self.waiting) :]
        except OSError as error:
            return error
        return None

    def close(self) -> OSError | None:
        """Returns why something is lost."""
        error = self.append("")
        self.file.close()
        return error


def to_line(row: Mapping[str, object]) -> str:
    """One line of strict JSON: NaN and infinities, which JSON lacks, become null."""
    try:
        return json.dumps(row, allow_nan=False) + "\n"
    except ValueError:
        return json.dumps(without_nan(row), allow_nan=False) + "\n"


def without_nan(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: without_nan(inner) for key, inner in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [without_nan(inner) for inner in value]
    return value


def plain_number(value: Any) -> float | None:
    """An int or float that JSON can hold; numpy and torch scalars are converted."""
    number = value if type(value) is int else float(value)
    return number if math.isfinite(number) else None
