"""What runs came to, for comparing them: final and best values, groups of seeds, and tests."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import takewhile
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from actors.layers import stable_seed
from mgrpo.config import RunConfig
from mgrpo.config.load import load_recipe
from mgrpo.config.resume import changes_of_results
from mgrpo.config.watched import HELDOUT_ACCURACY
from mgrpo.errors import RunDirectoryError
from mgrpo.evaluation.answers import read_answers
from mgrpo.evaluation.comparison import compare_means
from mgrpo.evaluation.seeds import Difference, paired_t, welch
from mgrpo.metrics.log import read_evaluations, read_metrics
from mgrpo.metrics.rows import Row
from mgrpo.report.curves import comparable
from mgrpo.report.outcome import first_and_last
from mgrpo.storage.run_directory import CONFIG_FILE
from mgrpo.storage.run_list import RunState, state_of

SEED = "seed"
LATE_SHARE = 0.1
"""Of the steps, the last ones: over them a step's metric is averaged, as in reports."""
SEED_SUFFIX = re.compile(r"[-_.]*(seed|s)?[-_.]*$")
MISSING = "(none)"  # in place of a value, where a recipe has no such key
PAIRED_SEEDS, UNPAIRED_SEEDS = "paired t over seeds", "Welch's t over seeds"


@dataclass(frozen=True)
class Best:
    """The best measurement of a held-out accuracy."""

    value: float
    num_steps: int


@dataclass(frozen=True)
class RunResult:
    """One run: its recipe, and what it has recorded."""

    name: str
    path: Path
    config: RunConfig
    state: RunState
    steps: Sequence[Row]
    evaluations: Sequence[Row]

    @property
    def num_done(self) -> int:
        return len(self.steps)

    @property
    def wall_s(self) -> float | None:
        return self.steps[-1].get("wall_s") if self.steps else None

    def value(self, metric: str) -> float | None:
        """The newest held-out accuracy, or a step's metric averaged over the last tenth of the
        steps; None: it was not measured."""
        if found := HELDOUT_ACCURACY.fullmatch(metric):
            return accuracy_of(first_and_last(self.evaluations)[1], int(found[1]))
        late = self.steps[-max(1, round(LATE_SHARE * len(self.steps))) :]
        known = [row[metric] for row in late if row.get(metric) is not None]
        return fmean(known) if known else None

    def before(self, layer: int) -> float | None:
        """The held-out accuracy of a layer before training."""
        return accuracy_of(first_and_last(self.evaluations)[0], layer)

    def best(self, layer: int) -> Best | None:
        """The best held-out accuracy of a layer, over the phrases that all evaluations have."""
        rows = [row for row in self.evaluations if row["label"] != "before"]
        measured = [
            Best(value, row["step"])
            for row, acc in zip(rows, comparable(rows), strict=True)
            if len(acc) >= layer and (value := acc[layer - 1]) is not None
        ]
        return max(measured, key=lambda one: one.value, default=None)

    @cached_property
    def answers(self) -> Mapping[Any, Any]:
        """Of its newest evaluation, by problem."""
        newest = first_and_last(self.evaluations)[1]
        return read_answers(self.path, newest["step"]) if newest is not None else {}


def accuracy_of(evaluation: Row | None, layer: int) -> float | None:
    accuracies = [] if evaluation is None else evaluation.get("acc", [])
    return accuracies[layer - 1] if len(accuracies) >= layer else None


def read_run(run_dir: Path) -> RunResult:
    """
    Raises:
        RunDirectoryError: the folder has no recipe.
        ConfigError: its recipe is of a version with other keys.
    """
    if not (run_dir / CONFIG_FILE).is_file():
        raise RunDirectoryError(f"{run_dir} has no {CONFIG_FILE}: it is not a run, or never began.")
    return RunResult(
        name=run_dir.resolve().name,
        path=run_dir,
        config=load_recipe(run_dir / CONFIG_FILE),
        state=state_of(run_dir),
        steps=read_metrics(run_dir),
        evaluations=read_evaluations(run_dir),
    )


@dataclass(frozen=True)
class Group:
    """Runs of one recipe that differ in their seed alone."""

    runs: Sequence[RunResult]

    @property
    def name(self) -> str:
        """The run's, or what the names of all have in common."""
        if len(self.runs) == 1:
            return self.runs[0].name
        letters = zip(*(run.name for run in self.runs), strict=False)
        common = "".join(one[0] for one in takewhile(lambda one: len(set(one)) == 1, letters))
        return SEED_SUFFIX.sub("", common) or self.runs[0].name

    def values(self, metric: str) -> dict[int, float]:
        """By seed; of several runs with one seed the last."""
        found = {run.config.seed: run.value(metric) for run in self.runs}
        return {seed: value for seed, value in found.items() if value is not None}


def grouped_by_recipe(runs: Sequence[RunResult]) -> list[Group]:
    """In the order of their first runs."""
    groups: list[list[RunResult]] = []
    for run in runs:
        for group in groups:
            if all(one.path == SEED for one in changes_of_results(group[0].config, run.config)):
                group.append(run)
                break
        else:
            groups.append([run])
    return [Group(group) for group in groups]


def metrics_of(runs: Sequence[RunResult]) -> list[str]:
    """What is compared unless asked otherwise: held-out accuracies of every layer, or where nothing
    is held out, those of training."""
    num_layers = max(len(run.config.layers) for run in runs)
    heldout = "heldout/" if any(run.evaluations for run in runs) else ""
    return [f"{heldout}layer{layer}/accuracy" for layer in range(1, num_layers + 1)]


def settings_that_differ(groups: Sequence[Group]) -> dict[str, list[object]]:
    """Key -> its value in each group, for keys on which results depend; the seed is left out."""
    trees = [group.runs[0].config for group in groups]
    paths = {
        change.path: None
        for tree in trees[1:]
        for change in changes_of_results(trees[0], tree)
        if change.path != SEED
    }
    columns: dict[str, list[object]] = {path: [MISSING] * len(trees) for path in paths}
    for place, tree in enumerate(trees):
        for path in paths:
            columns[path][place] = value_at(tree.model_dump(mode="json"), path)
    return columns


def value_at(tree: object, path: str) -> object:
    """The value of a dotted key; MISSING where the recipe has no such key."""
    for part in path.split("."):
        if isinstance(tree, dict) and part in tree:
            tree = tree[part]
        elif isinstance(tree, list) and part.isdecimal() and int(part) < len(tree):
            tree = tree[int(part)]
        else:
            return MISSING
    return tree


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """One metric of two groups, and how far chance may go."""

    metric: str
    first: float | None  # mean over seeds
    second: float | None
    difference: float | None  # second minus first
    interval: tuple[float, float] | None = None  # 95 %
    p_value: float | None = None  # two-sided; None: no test
    test: str = ""  # its name, or why there is none
    pairs: int = 0  # seeds or problems
    level: Literal["seeds", "problems", ""] = ""  # what a pair is


def contrast_of(first: Group, second: Group, metric: str) -> Contrast:
    """Second minus first: over paired seeds where there are two or more, else over all seeds if
    each has several, else over the held-out problems of one run each."""
    values = first.values(metric), second.values(metric)
    if not values[0] or not values[1]:
        means = [fmean(one.values()) if one else None for one in values]
        return Contrast(
            metric=metric, first=means[0], second=means[1], difference=None, test="not measured"
        )
    common = sorted(values[0].keys() & values[1].keys())
    if len(common) >= 2:
        pair = [values[0][seed] for seed in common], [values[1][seed] for seed in common]
        return of_seeds(metric, *pair, paired_t(*pair), PAIRED_SEEDS)
    lists = list(values[0].values()), list(values[1].values())
    if min(map(len, lists)) >= 2:
        return of_seeds(metric, *lists, welch(*lists), UNPAIRED_SEEDS)
    return of_problems(first, second, metric, *map(fmean, lists))


def of_seeds(
    metric: str,
    first: Sequence[float],
    second: Sequence[float],
    found: Difference | None,
    name: str,
) -> Contrast:
    means = fmean(first), fmean(second)
    shown = Contrast(
        metric=metric,
        first=means[0],
        second=means[1],
        difference=means[1] - means[0],
        pairs=min(len(first), len(second)),
        level="seeds",
        test="no spread between seeds",
    )
    if found is None:
        return shown
    interval = (found.mean - found.half_width, found.mean + found.half_width)
    return replace(shown, interval=interval, p_value=found.p, test=name)


def of_problems(
    first: Group, second: Group, metric: str, mean_first: float, mean_second: float
) -> Contrast:
    """The test over held-out problems, where each group is one run and both asked the same."""
    plain = Contrast(
        metric=metric, first=mean_first, second=mean_second, difference=mean_second - mean_first
    )
    found = HELDOUT_ACCURACY.fullmatch(metric)
    why_not = why_no_problems(first, second) if found else "one seed, and no held-out accuracy"
    if why_not or found is None:
        return replace(plain, test=why_not)
    one, other = first.runs[0], second.runs[0]
    num_turns = len(next(iter(one.answers.values())))
    settings = one.config.evaluation
    is_greedy = settings.decoding == "greedy"
    newest = first_and_last(one.evaluations)[1] or {}
    single = [
        is_greedy and (turn == 0 or len(newest.get("phrases", [])) <= 1)
        for turn in range(num_turns)
    ]
    comparison = compare_means(
        other.answers,
        one.answers,
        one_answer=single,
        num_resamples=settings.bootstrap_resamples,
        seed=stable_seed(one.config.seed, "bootstrap"),
    )
    row = comparison["turns"][int(found[1]) - 1]
    interval = row.get("ci")
    return replace(
        plain,
        interval=None if interval is None else (interval[0], interval[1]),
        p_value=row.get("p_value"),
        test=row.get("test", "no resamples (evaluation.bootstrap_resamples: 0)"),
        pairs=comparison["num_problems"],
        level="problems",
    )


def why_no_problems(first: Group, second: Group) -> str:
    """Why two groups cannot be compared problem by problem; "": they can."""
    if len(first.runs) > 1 or len(second.runs) > 1:
        return "fewer than two seeds in common"
    one, other = first.runs[0], second.runs[0]
    if one.config.data.heldout != other.config.data.heldout:
        return "other held-out problems"
    if evaluated_by(one) != evaluated_by(other):
        return "evaluated with other settings"
    if not one.answers or not other.answers:
        return "answers by problem were not recorded: mgrpo eval A --against B"
    turns = {len(next(iter(run.answers.values()))) for run in (one, other)}
    if len(turns) > 1:
        return "other numbers of turns"
    if not one.answers.keys() & other.answers.keys():
        return "no common problem"
    return ""


def evaluated_by(run: RunResult) -> object:
    """The settings of the evaluation after training."""
    during = {"every_steps", "guidance_during", "bootstrap_resamples"}
    return run.config.evaluation.model_dump(exclude=during)
