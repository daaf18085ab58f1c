"""Single runs: trained once, evaluated once, known again by what is in their folders."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.commands import CommandFailed, run_command
from mgrpo.config import RunConfig
from mgrpo.config.load import load_recipe, save_recipe
from mgrpo.storage.run_directory import made_with

MGRPO = (sys.executable, "-m", "mgrpo")
FINISHED = "wall_s.txt"  # seconds of the whole command; written last, so it marks a finished run
START = "start"  # folder of the untrained policy's evaluation
EVALUATION_FOLDER = "common_evaluation"
TRAIN_DEADLINE_S = 6 * 3600
EVALUATE_DEADLINE_S = 3600


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One training run.

    Example:
        Trial(recipe="study/grpo", seed=0, learning_rate=2.5e-4) trains into the folder
        grpo-lr0.00025-seed-0
    """

    recipe: str
    seed: int
    learning_rate: float | None = None  # None: the recipe's own
    steps: int | None = None  # None: the recipe's own

    @property
    def recipe_name(self) -> str:
        return Path(self.recipe).stem

    @property
    def name(self) -> str:
        rate = "" if self.learning_rate is None else f"-lr{self.learning_rate!r}"
        steps = "" if self.steps is None else f"-steps{self.steps}"
        return f"{self.recipe_name}{rate}{steps}-seed-{self.seed}"

    @property
    def overrides(self) -> list[str]:
        changes = [f"seed={self.seed}"]
        if self.learning_rate is not None:
            changes.append(f"learner.learning_rate={self.learning_rate!r}")
        if self.steps is not None:
            changes.append(f"steps={self.steps}")
        return changes

    def config(self) -> RunConfig:
        return load_recipe(self.recipe, self.overrides)


@dataclass(frozen=True)
class Runs:
    """The folder that holds a study's runs, and the program that makes them."""

    folder: Path
    program: Sequence[str] = MGRPO

    def of(self, trial: Trial | None) -> Path:
        """The folder of a run; None stands for the untrained policy."""
        return self.folder / (START if trial is None else trial.name)

    def log(self, trial: Trial | None, what: str) -> Path:
        """Beside the run's folder, which a run that starts again deletes."""
        return self.folder / f"{self.of(trial).name}.{what}.log"

    # --- training ---

    def is_trained(self, trial: Trial) -> bool:
        """Whether it is finished, with its current settings."""
        folder = self.of(trial)
        return (folder / FINISHED).is_file() and made_with(folder / "config.yaml", trial.config())

    def train(self, trial: Trial) -> None:
        """Train from the start; what an earlier attempt left is deleted. Raises CommandFailed."""
        options = [f"output.runs_dir={self.folder}", "--run", trial.name, "--overwrite"]
        began = time.monotonic()
        run_command(
            [*self.program, "train", trial.recipe, *trial.overrides, *options],
            log=self.log(trial, "train"),
            deadline_s=TRAIN_DEADLINE_S,
        )
        finished = self.of(trial) / FINISHED
        finished.write_text(f"{time.monotonic() - began:.1f}\n", encoding="utf-8")

    # --- the common evaluation ---

    def evaluation(self, trial: Trial | None, recipe: str) -> dict[str, Any] | None:
        """The kept evaluation of a trained policy by this recipe; None if there is none."""
        folder = self.of(trial) / EVALUATION_FOLDER
        result = folder / "result.json"
        if not result.is_file() or not made_with(folder / "config.yaml", load_recipe(recipe)):
            return None
        row: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
        return row

    def evaluate(self, trial: Trial | None, recipe: str) -> None:
        """Score a trained policy by a recipe, and keep the result in the run's folder.

        Raises:
            CommandFailed: the command failed, or printed no result.
        """
        config = load_recipe(recipe)
        target = config.model.path if trial is None else str(self.of(trial))
        command = [*self.program, "eval", target, "--recipe", recipe, "--json"]
        log = self.log(trial, "evaluation")
        lines = run_command(command, log=log, deadline_s=EVALUATE_DEADLINE_S).splitlines()
        try:
            row = json.loads(lines[-1])
        except (IndexError, json.JSONDecodeError) as error:
            raise CommandFailed(f"{' '.join(command)} printed no result; see {log}.") from error
        folder = self.of(trial) / EVALUATION_FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        save_recipe(config, folder / "config.yaml")
        whole = folder / "result.unfinished"
        whole.write_text(json.dumps(row, indent=2) + "\n", encoding="utf-8")
        whole.replace(folder / "result.json")


def read_environment(run_dir: Path) -> dict[str, Any]:
    """What a run ran on: machine, versions, revision."""
    found: dict[str, Any] = json.loads((run_dir / "environment.json").read_text(encoding="utf-8"))
    return found
