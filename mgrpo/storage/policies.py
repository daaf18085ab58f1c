"""The policies of a run in Hugging Face form, and the record of an early end.

`policy/` is the one at the run's end, `policy-best/` the one with the best metric
(`checkpoints.keep_best`), `policies/step-N/` those of `output.policy_every_steps`.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter

from mgrpo.config.watched import WatchedMetric
from mgrpo.errors import ModelError, RunDirectoryError
from mgrpo.metrics.rows import reason_of

POLICY_DIR = "policy"
BEST_DIR = "policy-best"
POLICIES_DIR = "policies"
BEST_FILE = "best.json"
"""In `policy-best/`, and in the checkpoint of its step: the measurement that chose it."""
EARLY_END_FILE = "early_end.json"
Record = TypeVar("Record")
WEIGHTS = ("model.safetensors", "model.safetensors.index.json")


@dataclass(frozen=True, slots=True)
class EarlyEnd:
    """A run that `early_stopping` ended."""

    num_steps: int  # that were done
    reason: str


def write_early_end(run_dir: Path, end: EarlyEnd) -> None:
    text = json.dumps(asdict(end), indent=2) + "\n"
    (run_dir / EARLY_END_FILE).write_text(text, encoding="utf-8")


def early_end_of(run_dir: Path) -> EarlyEnd | None:
    """None: the run goes on, or took all its steps."""
    return read_record(run_dir / EARLY_END_FILE, TypeAdapter(EarlyEnd))


@dataclass(frozen=True, slots=True)
class BestRecord:
    """The measurement that chose the best policy."""

    num_steps: int
    metric: str
    mode: str
    value: float


def write_best(folder: Path, record: BestRecord) -> None:
    (folder / BEST_FILE).write_text(json.dumps(asdict(record), indent=2) + "\n", encoding="utf-8")


def read_best(folder: Path) -> BestRecord | None:
    """What `write_best` wrote; None: nothing."""
    return read_record(folder / BEST_FILE, TypeAdapter(BestRecord))


def best_record(run_dir: Path) -> BestRecord | None:
    """Of the best policy that is kept; None: none is."""
    return read_best(run_dir / BEST_DIR)


def best_of(run_dir: Path, watched: WatchedMetric) -> float | None:
    """The value of the best policy that is kept; None: none is, or by another metric."""
    record = best_record(run_dir)
    if record is None or (record.metric, record.mode) != (watched.metric, watched.mode):
        return None
    return record.value


def read_record(file: Path, form: TypeAdapter[Record]) -> Record | None:
    """What a file of ours holds; None: there is no such file.

    Raises:
        RunDirectoryError: it cannot be read.
    """
    try:
        return form.validate_json(file.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise RunDirectoryError(f"{file} cannot be read: {reason_of(error)}. Remove it.") from error


def stepped_policy(run_dir: Path, num_steps: int) -> Path:
    """The folder of the policy after so many steps."""
    return run_dir / POLICIES_DIR / f"step-{num_steps:06d}"


def stepped_policies(run_dir: Path) -> list[Path]:
    """Those of `output.policy_every_steps`, oldest first."""
    return sorted((run_dir / POLICIES_DIR).glob("step-*"))


def policy_of(run_dir: Path) -> Path:
    """The folder of a run's trained policy.

    Raises:
        ModelError: the run has saved none.
    """
    policy = run_dir / POLICY_DIR
    if not policy.is_dir():
        raise ModelError(
            f"The run {run_dir} has saved no policy ({policy} does not exist): it is not "
            "finished. Train it to the end, or name a model instead."
        )
    return policy


def best_or_newest_policy(run_dir: Path) -> Path:
    """The best policy of a run if it keeps that, else the one at its end, else the newest.

    Raises:
        ModelError: the run has saved none.
    """
    named = (run_dir / BEST_DIR, run_dir / POLICY_DIR)
    for folder in (*named, *reversed(stepped_policies(run_dir))):
        if any((folder / name).is_file() for name in WEIGHTS):
            return folder
    raise ModelError(
        f"The run {run_dir} has saved no policy yet: a run does at its end, or meanwhile with "
        "output.policy_every_steps or checkpoints.keep_best. Train it to the end: mgrpo train with "
        "its recipe and name resumes it."
    )
