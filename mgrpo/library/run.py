"""`mgrpo.Run`: what a run has recorded, as tables."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from mgrpo.config import RunConfig
from mgrpo.config.load import load_recipe
from mgrpo.metrics.log import (
    RolloutKind,
    read_alarms,
    read_evaluations,
    read_metrics,
    read_rollouts,
    rollout_paths,
)
from mgrpo.metrics.rows import Row
from mgrpo.storage.policies import policy_of
from mgrpo.storage.run_directory import CONFIG_FILE, find_run
from mgrpo.storage.run_list import RunState, state_of
from mgrpo.types import Completion

if TYPE_CHECKING:
    import pandas as pd


class Run:
    """A run's folder: its recipe, metrics, evaluations, completions, report and policy.

    It may be read while the run is active; each call reads the files as they are then.

    Example:
        run = mgrpo.Run("quickstart")
        run.metrics()["layer1/accuracy"].plot()
        run.rollouts().groupby("layer")["reward"].mean()
    """

    def __init__(self, run: str | Path, *, runs_dir: str | Path = "runs") -> None:
        """
        Args:
            run: the folder, its name under `runs_dir`, or its URL.

        Raises:
            RunDirectoryError: there is no such run; names those that are there.
        """
        self.path = find_run(str(run), str(runs_dir))

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r}, {self.state})"

    @property
    def name(self) -> str:
        return self.path.resolve().name

    @property
    def state(self) -> RunState:
        """running, finished, stopped (it can be resumed), or started (without a step so far)."""
        return state_of(self.path)

    @cached_property
    def config(self) -> RunConfig:
        """The recipe that was trained, every default included."""
        return load_recipe(self.path / CONFIG_FILE)

    def metrics(self) -> pd.DataFrame:
        """A row for each step, indexed by `step`; columns as in docs/metrics.md."""
        return frame(read_metrics(self.path), index="step")

    def evaluations(self) -> pd.DataFrame:
        """A row for each evaluation of the held-out problems: `step`, `label` (before, during,
        after), `acc_t1`, `acc_t2`, ..., and what else evaluation.jsonl has."""
        rows = [
            row | {f"acc_t{turn}": share for turn, share in enumerate(row.get("acc", []), start=1)}
            for row in read_evaluations(self.path)
        ]
        return frame(rows)

    def alarms(self) -> pd.DataFrame:
        """A row for each alert: `step`, `name`, `layer`, `message`."""
        return frame(read_alarms(self.path))

    def rollouts(self, steps: int | Iterable[int] | None = None) -> pd.DataFrame:
        """A row for each recorded completion (`output.rollouts_per_step` problems of each step).

        Args:
            steps: one or several; None: all that were recorded.
        """
        return self._recorded("step", steps)

    def _recorded(self, kind: RolloutKind, steps: int | Iterable[int] | None) -> pd.DataFrame:
        paths = rollout_paths(self.path, kind)
        chosen = paths if steps is None else [steps] if isinstance(steps, int) else list(steps)
        return frame(
            [
                {"step": step, **completion_row(one)}
                for step in chosen
                if step in paths
                for one in read_rollouts(paths[step])
            ]
        )

    def heldout_rollouts(self, steps: int | Iterable[int] | None = None) -> pd.DataFrame:
        """The same of the evaluations (`output.heldout_recorded` problems of each); `step` is the
        number of steps before one."""
        return self._recorded("heldout", steps)

    def report(self) -> Path:
        """Write the run's report.html again; returns its path."""
        from mgrpo.report import write_report

        return write_report(self.path)

    @property
    def policy(self) -> Path:
        """The trained policy, in Hugging Face form.

        Raises:
            ModelError: the run has not saved one.
        """
        return policy_of(self.path)


def completion_row(completion: Completion) -> Row:
    """A completion without its token columns."""
    reward = completion.reward
    return {
        "problem_id": completion.problem_id,
        "domain": completion.domain,
        "layer": completion.layer,
        "completion_id": completion.completion_id,
        "parent_id": completion.parent_id,
        "accepts": completion.accepts,
        "question": completion.prompt_text,
        "reference_answer": completion.reference_answer,
        "text": completion.text,
        "reward": None if reward is None else reward.value,
        "correct": None if reward is None else reward.correct,
        "status": None if reward is None else reward.status,
        "answer": None if reward is None else reward.extracted_answer,
        "detail": None if reward is None else reward.detail,
        "advantage": completion.advantage,
        "selected": completion.selected,
        "not_selected_because": completion.not_selected_because,
        "num_tokens": len(completion.token_ids),
        "finish_reason": completion.finish_reason,
        "metadata": json.dumps(completion.metadata) if completion.metadata else "",
    }


def frame(rows: Sequence[object], index: str | None = None) -> pd.DataFrame:
    """Rows as a table; an empty one without rows."""
    import pandas as pd

    table = pd.DataFrame(rows)
    return table if index is None or table.empty else table.set_index(index)
