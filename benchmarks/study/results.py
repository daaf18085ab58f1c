"""What a finished run showed and what it cost, as numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.study.plan import Study, chosen_trial, late_accuracy
from benchmarks.study.runs import FINISHED, Runs, Trial, read_environment
from mgrpo.config import RunConfig
from mgrpo.metrics.log import read_evaluations, read_metrics

Row = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Scores:
    """One policy under the common evaluation. Shares of 1."""

    acc_t1: float
    acc_t2: float
    wrong_to_right: float
    right_to_wrong: float
    copies: float  # second turns that keep the attempt's final answer

    @property
    def delta(self) -> float:
        return self.acc_t2 - self.acc_t1


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What the training steps of one run took; its evaluations are not counted."""

    completions: float  # sampled
    generated_tokens: float
    trained_tokens: float  # completion tokens with a gradient
    prompt_tokens: float  # each completion's whole prompt, though engine and learner share them
    training_s: float  # the steps alone, without start and evaluations
    wall_s: float  # the whole command


@dataclass(frozen=True, kw_only=True)
class Result:
    """A finished run of a method at its chosen learning rate."""

    method: str  # for people, from the recipe
    trial: Trial
    learning_rate: float
    scores: Scores
    sampled: float  # share of right ones among sampled first attempts, late in training
    cost: Cost
    evaluations: list[Row]  # during training, as in evaluation.jsonl
    environment: Row


def results_of(study: Study, runs: Runs) -> list[Result]:
    """Every run that is trained and evaluated, by recipe, then by seed."""
    found = []
    for recipe in study.recipes:
        chosen = chosen_trial(study, runs, recipe)
        for seed in study.seeds if chosen else ():
            trial = Trial(
                recipe=recipe,
                seed=seed,
                learning_rate=chosen.learning_rate if chosen else None,
                steps=study.steps,
            )
            scored = runs.evaluation(trial, study.evaluation) if runs.is_trained(trial) else None
            if scored is not None:
                found.append(read_result(runs, trial, scored))
    return found


def read_result(runs: Runs, trial: Trial, scored: Row) -> Result:
    folder, config = runs.of(trial), trial.config()
    steps = read_metrics(folder)
    return Result(
        method=config.method,
        trial=trial,
        learning_rate=config.learner.learning_rate,
        scores=scores_of(scored),
        sampled=late_accuracy(steps),
        cost=cost_of(
            steps,
            num_updates=updates_per_step(config),
            wall_s=float((folder / FINISHED).read_text(encoding="utf-8")),
        ),
        evaluations=list(read_evaluations(folder)),
        environment=read_environment(folder),
    )


def scores_of(row: Row) -> Scores:
    """A row of `mgrpo eval --json`, of a recipe with two layers."""
    moves = row["transitions"][0]
    return Scores(
        acc_t1=row["acc"][0],
        acc_t2=row["acc"][1],
        wrong_to_right=moves["wrong_to_right"],
        right_to_wrong=moves["right_to_wrong"],
        copies=moves["copy_fraction"],
    )


def cost_of(rows: Sequence[Row], *, num_updates: int, wall_s: float) -> Cost:
    """Sums over a run's rows of metrics.jsonl."""
    layers = sorted(
        {name.split("/")[0] for row in rows for name in row if name.endswith("/completions")}
    )
    return Cost(
        completions=sum(value(row, f"{layer}/completions") for row in rows for layer in layers),
        generated_tokens=sum(value(row, "tokens/generated") for row in rows),
        trained_tokens=sum(trained_tokens(row, num_updates) for row in rows),
        prompt_tokens=sum(
            value(row, f"{layer}/completions") * value(row, f"{layer}/prompt_tokens_mean")
            for row in rows
            for layer in layers
        ),
        training_s=sum(value(row, "seconds/step") for row in rows),
        wall_s=wall_s,
    )


def trained_tokens(row: Row, num_updates: int) -> float:
    """A step's completion tokens that had a gradient.

    metrics.jsonl holds the mean over the step's updates that were not skipped, and the share
    that was.
    """
    num_made = num_updates * (1 - value(row, "learner/skipped_updates"))
    return value(row, "learner/tokens") * num_made


def value(row: Row, name: str) -> float:
    """A step in which a mean has nothing to be taken over lacks it: 0."""
    return float(row.get(name) or 0.0)


def updates_per_step(config: RunConfig) -> int:
    return len(config.layers) if config.objective.update_order.type == "sequential" else 1
