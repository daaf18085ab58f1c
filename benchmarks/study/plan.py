"""The jobs of a study, and their states.

Each recipe is first trained at every learning rate with the first seed. The rate with the best
training accuracy is then used for the other seeds: the held-out problems have no part in the
choice. All of this is read from the runs' folders, so a study that was stopped goes on.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from benchmarks.study.runs import START, Runs, Trial
from mgrpo.config import RunConfig
from mgrpo.config.load import load_recipe
from mgrpo.errors import ConfigError, ConfigFault
from mgrpo.metrics.log import read_metrics
from mgrpo.sources import most_completions

LAST_STEPS = 10  # training steps whose accuracy decides between learning rates

FOLDER = Path(__file__).parent / "recipes"


@dataclass(frozen=True, kw_only=True)
class Study:
    """Recipes x seeds under one budget."""

    recipes: tuple[str, ...]
    seeds: tuple[int, ...]  # the first one also tunes
    budget: int  # completions per problem and step
    learning_rates: tuple[float, ...] = ()  # (): each recipe's own, nothing is tuned
    steps: int | None = None
    evaluation: str = f"{FOLDER}/evaluation.yaml"  # scores every trained policy

    def tuning_trials(self, recipe: str) -> list[Trial]:
        rates = self.learning_rates or (None,)
        seed = self.seeds[0]
        return [
            Trial(recipe=recipe, seed=seed, learning_rate=rate, steps=self.steps) for rate in rates
        ]


@dataclass(frozen=True, kw_only=True)
class Job:
    """One command of a study."""

    what: Literal["train", "evaluate"]
    trial: Trial | None  # None: the untrained policy, or a run whose learning rate is still open
    label: str
    state: Literal["done", "to do", "waits"]

    def run(self, study: Study, runs: Runs) -> None:
        """Raises CommandFailed."""
        if self.what == "evaluate":
            runs.evaluate(self.trial, study.evaluation)
        elif self.trial is not None:
            runs.train(self.trial)


def plan(study: Study, runs: Runs) -> list[Job]:
    """Every job, in the order in which they run."""
    jobs = [evaluate_job(study, runs, None)]
    for trials in zip(*(study.tuning_trials(recipe) for recipe in study.recipes), strict=True):
        jobs += [train_job(runs, trial) for trial in trials]
    for seed in study.seeds:  # methods take turns, so a drift of the machine's speed meets all
        for recipe in study.recipes:
            chosen = chosen_trial(study, runs, recipe)
            jobs += seed_jobs(study, runs, recipe, seed, chosen)
    return jobs


def seed_jobs(study: Study, runs: Runs, recipe: str, seed: int, chosen: Trial | None) -> list[Job]:
    """Training, unless tuning has done it, and evaluation at the chosen rate."""
    is_tuning_seed = seed == study.seeds[0]
    if chosen is None:
        label = f"{Trial(recipe=recipe, seed=seed).name}, learning rate not chosen yet"
        waiting = Job(what="evaluate", trial=None, label=label, state="waits")
        return [waiting] if is_tuning_seed else [replace(waiting, what="train"), waiting]
    trial = replace(chosen, seed=seed)
    evaluation = evaluate_job(study, runs, trial)
    return [evaluation] if is_tuning_seed else [train_job(runs, trial), evaluation]


def train_job(runs: Runs, trial: Trial) -> Job:
    state: Literal["done", "to do"] = "done" if runs.is_trained(trial) else "to do"
    return Job(what="train", trial=trial, label=trial.name, state=state)


def evaluate_job(study: Study, runs: Runs, trial: Trial | None) -> Job:
    label = START if trial is None else trial.name
    if trial is not None and not runs.is_trained(trial):
        return Job(what="evaluate", trial=trial, label=label, state="waits")
    is_done = runs.evaluation(trial, study.evaluation) is not None
    return Job(what="evaluate", trial=trial, label=label, state="done" if is_done else "to do")


def chosen_trial(study: Study, runs: Runs, recipe: str) -> Trial | None:
    """The tuning run with the best training accuracy, the lower rate if two are equal.

    None while one of them is still to be trained.
    """
    trials = study.tuning_trials(recipe)
    if not all(runs.is_trained(trial) for trial in trials):
        return None
    slowest_first = sorted(trials, key=lambda trial: trial.learning_rate or 0.0)
    return max(slowest_first, key=lambda trial: tuning_accuracy(runs, trial))


def tuning_accuracy(runs: Runs, trial: Trial) -> float:
    """Training accuracy of first attempts over the last steps: no held-out problem is used."""
    return late_accuracy(read_metrics(runs.of(trial)))


def late_accuracy(rows: list[dict[str, Any]]) -> float:
    return fmean(row["layer1/accuracy"] for row in rows[-LAST_STEPS:])


def check_study(study: Study) -> None:
    """Refuse recipes that are not comparable. Raises ConfigError with every reason."""
    configs = {recipe: study.tuning_trials(recipe)[0].config() for recipe in study.recipes}
    faults = [*budget_faults(study, configs), *difference_faults(configs)]
    evaluation = load_recipe(study.evaluation)
    first = next(iter(configs.values()))
    if (evaluation.model, evaluation.data.heldout) != (first.model, first.data.heldout):
        faults.append(
            ConfigFault(
                study.evaluation,
                f"{evaluation.model.path} and its data.heldout",
                f"{study.recipes[0]} has another starting policy or other held-out problems.",
                "Give both the same `model` and `data.heldout`.",
            )
        )
    if len(evaluation.layers) != 2:
        faults.append(
            ConfigFault(
                f"{study.evaluation}: layers",
                f"{len(evaluation.layers)} layers",
                "the tables have a first and a second turn.",
                "Give two layers.",
            )
        )
    if len({Path(recipe).stem for recipe in study.recipes}) < len(study.recipes):
        faults.append(
            ConfigFault(
                "--recipes",
                ", ".join(study.recipes),
                "two have the same file name, so their runs would share a folder.",
                "Rename one, or leave it out.",
            )
        )
    if faults:
        raise ConfigError(faults, source="the study")


def budget_faults(study: Study, configs: dict[str, RunConfig]) -> Iterable[ConfigFault]:
    for recipe, config in configs.items():
        found = most_completions(config.method_view) / config.prompts_per_step
        if found != study.budget:
            yield ConfigFault(
                f"{recipe}: layers",
                f"{found:g} completions per problem and step",
                f"the budget is {study.budget}.",
                "Change the layers' group_size, or give --budget.",
            )


def difference_faults(configs: dict[str, RunConfig]) -> Iterable[ConfigFault]:
    """Methods are compared on the same policy, problems and number of steps."""
    (name, first), *others = configs.items()
    for recipe, config in others:
        for key in ("model", "data", "prompts_per_step", "steps"):
            if getattr(config, key) != getattr(first, key):
                yield ConfigFault(
                    f"{recipe}: {key}",
                    str(getattr(config, key))[:60],
                    f"differs from {name}, which has {str(getattr(first, key))[:60]}.",
                    "Give both the same.",
                )
