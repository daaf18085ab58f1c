"""Trains and scores one policy by the command line."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.commands import CommandFailed, run_command
from benchmarks.second_look.design import Trial
from benchmarks.second_look.rows import Row
from mgrpo.metrics.log import read_metrics

MGRPO = (sys.executable, "-m", "mgrpo")
TRAIN_DEADLINE_S = 3600
SCORE_DEADLINE_S = 1800
SAME_SUMS = {"MKL_CBWR": "COMPATIBLE"}
"""BLAS adds in the same order wherever a matrix lies in memory."""


@dataclass(frozen=True)
class Work:
    """Where runs are kept while they go on, and the program that makes them."""

    folder: Path
    program: Sequence[str] = MGRPO

    def do(self, trial: Trial) -> Row:
        """Train, score, and delete the run: its row is what is kept.

        Raises:
            CommandFailed: a command failed, or printed no result; its log is beside the run.
        """
        run = self.folder / trial.name
        train = [*self.program, "train", trial.recipe, *trial.settings]
        options = [f"output.runs_dir={self.folder}", "output.report=false", "output.trackers=[]"]
        run_command(
            [*train, *options, "--run", trial.name, "--overwrite"],
            log=self.folder / f"{trial.name}.train.log",
            deadline_s=TRAIN_DEADLINE_S,
            environment=SAME_SUMS,
        )
        score = [*self.program, "eval", str(run), "--recipe", trial.scoring_recipe]
        log = self.folder / f"{trial.name}.score.log"
        said = run_command(
            [*score, *trial.scoring_settings, "--json"],
            log=log,
            deadline_s=SCORE_DEADLINE_S,
            environment=SAME_SUMS,
        )
        try:
            scored: dict[str, Any] = json.loads(said.splitlines()[-1])
        except (IndexError, ValueError) as error:
            raise CommandFailed(f"{trial.name} was not scored; see {log}.") from error
        revision = json.loads((run / "environment.json").read_text(encoding="utf-8"))
        row = row_of(trial, scored, read_metrics(run), revision["git_revision"] or "")
        shutil.rmtree(run)
        return row


def row_of(
    trial: Trial, scored: Mapping[str, Any], steps: Sequence[Mapping[str, Any]], revision: str
) -> Row:
    """Of a line of `mgrpo eval --json` and the rows of metrics.jsonl."""
    layers = sorted(
        {name.split("/")[0] for row in steps for name in row if name.endswith("/completions")}
    )
    counts = [
        (number(row, f"{layer}/completions"), number(row, f"{layer}/prompt_tokens_mean"))
        for row in steps
        for layer in layers
    ]
    first_steps = [
        row["layer1/accuracy"] for row in steps if row.get("layer1/accuracy") is not None
    ]
    moves = scored["transitions"][0]
    return Row(
        phase=trial.phase,
        family=trial.family,
        arm=trial.arm,
        seed=trial.seed,
        learning_rate=trial.learning_rate,
        t1=scored["acc"][0],
        t2=scored["acc"][1],
        # Attempts at a problem are independent, so the second of two is right as often as any.
        t2_independent=scored["acc"][0],
        wrong_to_right=moves["wrong_to_right"],
        right_to_wrong=moves["right_to_wrong"],
        area=fmean(first_steps),
        completions=sum(count for count, _ in counts),
        generated_tokens=sum(number(row, "tokens/generated") for row in steps),
        prompt_tokens=sum(count * length for count, length in counts),
        training_s=sum(number(row, "seconds/step") for row in steps),
        digest=trial.digest,
        revision=revision[:10],
    )


def number(row: Mapping[str, Any], name: str) -> float:
    """A step in which a mean has nothing to be taken over lacks it: 0."""
    return float(row.get(name) or 0.0)
