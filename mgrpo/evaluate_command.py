"""`mgrpo eval`: score a model, or a run's policy, on a recipe's held-out problems."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from mgrpo.config import RunConfig
from mgrpo.config.load import load_recipe
from mgrpo.errors import ConfigError, ConfigProblem, ModelError

DEFAULT_RECIPE = "quickstart"


def evaluate_command(
    target: str,
    *,
    config: RunConfig | None,
    max_problems: int | None,
    decoding: str | None,
    as_json: bool,
) -> int:
    """Evaluate and print a table, or JSON.

    Args:
        target: a run's directory, a prepared model's name, a local model or a hub name.
        config: the recipe whose problems, layers and checks are used. None takes the run's own,
            or the quickstart's.
        max_problems: overrides evaluation.max_problems.
        decoding: overrides evaluation.decoding.
        as_json: print one JSON object on standard output and nothing else.
    """
    config, run_dir = resolve_target(target, config)
    if config.data.heldout is None:
        raise ConfigError(
            [
                ConfigProblem(
                    "data.heldout",
                    "null",
                    "there are no held-out problems to score.",
                    "Give the recipe a data.heldout section, or name another with --recipe.",
                )
            ]
        )
    changes: dict[str, Any] = {}
    if max_problems is not None:
        changes["max_problems"] = max_problems
    if decoding is not None:
        changes["decoding"] = decoding
    settings = type(config.evaluation).model_validate({**config.evaluation.model_dump(), **changes})
    config = config.model_copy(update={"evaluation": settings})
    row = run_evaluation(config, run_dir)
    if as_json:
        print(json.dumps({"model": config.model.path, **row}))
    else:
        from rich.console import Console

        from mgrpo.progress import print_evaluation

        print_evaluation(Console(), row, title=config.model.path)
    return 0


def resolve_target(target: str, config: RunConfig | None) -> tuple[RunConfig, Path | None]:
    """The recipe with the target as its model, and the run's directory if it is one."""
    run_dir = Path(target)
    if (run_dir / "config.yaml").is_file():
        policy = run_dir / "policy"
        if not policy.is_dir():
            raise ModelError(
                f"The run {target} has saved no policy ({policy} does not exist): it has not "
                "come to its end. Train it to the end, or name a model instead."
            )
        config = config or load_recipe(run_dir / "config.yaml")
        return with_model(config, str(policy)), run_dir
    return with_model(config or load_recipe(DEFAULT_RECIPE), target), None


def with_model(config: RunConfig, path: str) -> RunConfig:
    return config.model_copy(update={"model": config.model.model_copy(update={"path": path})})


def run_evaluation(config: RunConfig, run_dir: Path | None) -> dict[str, Any]:
    """Start engines, evaluate once, stop them."""
    from mgrpo.evaluate import evaluate, evaluation_row
    from mgrpo.signals import signals_as_errors
    from mgrpo.system import start_system

    def note(text: str) -> None:
        print(text, file=sys.stderr)

    with tempfile.TemporaryDirectory(prefix="mgrpo-eval-") as folder, signals_as_errors():
        logs = (run_dir or Path(folder)) / "logs"
        with start_system(config, logs_to=logs, with_learner=False, note=note) as system:
            note(f"evaluating {len(system.heldout)} problems")
            evaluation, seconds = evaluate(
                system.rollout, system.heldout, config.evaluation, key="eval"
            )
    return evaluation_row(evaluation, step=0, label="eval", seconds=seconds, config=config)
