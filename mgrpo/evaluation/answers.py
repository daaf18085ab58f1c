"""What each held-out problem came to in an evaluation of a run: `heldout/step-N.jsonl`.

With it, runs are compared problem by problem without sampling again.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mgrpo.evaluation.comparison import ProblemKey, problem_means
from mgrpo.evaluation.statistics import Floats
from mgrpo.evaluation.summary import Evaluation
from mgrpo.metrics.log import to_line
from mgrpo.metrics.rows import AnswerForm, read_lines

HELDOUT_DIR = "heldout"


def answers_file(run_dir: Path, num_steps: int) -> Path:
    """Of the newest evaluation after so many steps."""
    return run_dir / HELDOUT_DIR / f"step-{num_steps:06d}.jsonl"


def write_answers(run_dir: Path, num_steps: int, evaluation: Evaluation) -> None:
    """A line for each problem: its id, which occurrence of it, and the share of right answers of
    each turn."""
    file = answers_file(run_dir, num_steps)
    file.parent.mkdir(exist_ok=True)
    unfinished = file.with_suffix(".unfinished")
    with unfinished.open("w", encoding="utf-8") as opened:
        for (name, occurrence), means_T in problem_means(evaluation).items():
            row = {"problem_id": name, "occurrence": occurrence, "acc": means_T.tolist()}
            opened.write(to_line(row))
    unfinished.replace(file)


def read_answers(run_dir: Path, num_steps: int) -> dict[ProblemKey, Floats]:
    """[T] the share of right answers of each turn, by problem; {} where none were written."""
    return {
        (row["problem_id"], row["occurrence"]): np.array(row["acc"], np.float64)
        for row in read_lines(answers_file(run_dir, num_steps), AnswerForm)
    }
