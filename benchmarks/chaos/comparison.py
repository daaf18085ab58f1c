"""Whether a run lost or doubled anything, from its records. Pure but for reading them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.chaos.schedule import HOUR_S
from mgrpo.config.load import load_recipe
from mgrpo.data.problems import load_problems
from mgrpo.metric_sums import MetricSums
from mgrpo.metrics.log import read_evaluations, read_metrics, read_rollouts, rollout_paths
from mgrpo.training.sources.stack import make_sources
from mgrpo.types import Completion

MOST_MIB_PER_STEP = 2.0
"""Growth of a kind of process that is no longer called flat, in a run that nothing disturbs."""
FEWEST_STEPS = 20
"""That a slope of memory is measured over."""
STANDARD_ERRORS = 3.0
"""Between accuracies that are called equal."""


@dataclass(frozen=True, slots=True)
class Trained:
    """What a run trained on, against what it drew."""

    trained: int  # problems, each in its step
    dropped: int  # counted as such by the run
    missing: int  # neither
    doubled: int
    strange: int  # not drawn for that step
    wrong_groups: int  # of another size than the recipe's


def trained_problems(
    steps: Sequence[Sequence[Completion]],
    drawn: Sequence[Sequence[str]],
    *,
    group_sizes: Sequence[int],
    num_dropped: int,
) -> Trained:
    """Compare the completions of each step with the problems that were drawn for it.

    Args:
        steps: the completions that each step trained on.
        drawn: ids of the problems of each step.
        group_sizes: attempts at a problem, then corrections of each, layer by layer.
        num_dropped: problems that the run counted as dropped.
    """
    trained = missing = doubled = strange = wrong = 0
    for completions, wanted in zip(steps, drawn, strict=True):
        trees = {one.id.tree: one.problem_id for one in completions}
        found, expected = Counter(trees.values()), Counter(wanted)
        trained += (found & expected).total()
        missing += (expected - found).total()
        strange += sum(name not in expected for name in found)
        ids = Counter(one.completion_id for one in completions)
        doubled += sum(count > 1 for count in ids.values())
        doubled += sum(
            count - expected[name] for name, count in found.items() if 0 < expected[name] < count
        )
        wrong += sum(size != group_sizes[layer - 1] for layer, size in groups_of(completions))
    missing = max(0, missing - num_dropped)
    return Trained(trained, num_dropped, missing, doubled, strange, wrong)


def groups_of(completions: Sequence[Completion]) -> Iterator[tuple[int, int]]:
    """(layer, size) of every group."""
    groups = Counter((one.layer, one.id.parent) for one in completions)
    for (layer, _), size in groups.items():
        yield layer, size


def seconds_to_return(changes: Sequence[Mapping[str, Any]]) -> list[float]:
    """From the loss of each engine until it works again, with the newest weights.

    Args:
        changes: the lines of a run's engines.jsonl. Engines that were lost as the run ended are
            left out, and those that were away as the clock was set.
    """
    found, lost = [], dict[str, float]()
    for change in changes:
        name = change["engine"]
        if change["from"] is None:  # it is asked for: by another life of the run, perhaps
            lost.pop(name, None)
        elif change["to"] == "dead":
            lost.setdefault(name, change["time"])
        elif change["to"] == "healthy" and name in lost:
            found.append(change["time"] - lost.pop(name))
    return [seconds for seconds in found if 0 < seconds < HOUR_S / 2]


def trained_in(run_dir: Path, recipe: Path) -> Trained:
    """`trained_problems` of a run's folder."""
    config = load_recipe(recipe)
    rows = read_metrics(run_dir)
    paths = rollout_paths(run_dir)
    return trained_problems(
        [read_rollouts(paths[step]) if step in paths else [] for step in range(config.steps)],
        drawn_by(recipe),
        group_sizes=[layer.group_size for layer in config.layers],
        num_dropped=round(sum(row.get("pipeline/dropped_problems") or 0 for row in rows)),
    )


def drawn_by(recipe: Path) -> list[list[str]]:
    """The problems of each step of a run that nothing disturbs."""
    config = load_recipe(recipe)
    problems = load_problems(config.data.train).problems
    sources = make_sources(config.method_view, problems)
    workers: Any = None  # fresh problems need none
    works = [sources.next(step, workers, MetricSums()) for step in range(config.steps)]
    return [[one.problem_id for one in work.problems] for work in works if work is not None]


def accuracies(run_dir: Path) -> dict[str, float]:
    """Of first attempts: in training over all steps, and on held-out problems at the end."""
    rows, measured = read_metrics(run_dir), read_evaluations(run_dir)
    known = [row["layer1/accuracy"] for row in rows if row.get("layer1/accuracy") is not None]
    after = [one["acc"][0] for one in measured if one["label"] == "after"]
    found = {"training": fmean(known)} if known else {}
    return found | ({"held-out": after[-1]} if after else {})


def is_within_noise(share: float, other: float, count: int) -> bool:
    """Whether two shares of so many each differ by no more than chance makes them."""
    mean = (share + other) / 2
    error = math.sqrt(2 * mean * (1 - mean) / count)
    return abs(share - other) <= STANDARD_ERRORS * error + 1e-9


def slopes(samples: Sequence[tuple[int, Mapping[str, float]]]) -> dict[str, float]:
    """Growth of each kind of process over one life of a run, in MiB a step.

    Args:
        samples: (step, MiB by kind); the first third, in which caches fill, is left out.
    """
    kept = samples[len(samples) // 3 :]
    kinds = {kind for _, memory in kept for kind in memory}
    points = {kind: [(s, memory[kind]) for s, memory in kept if kind in memory] for kind in kinds}
    return {kind: slope(found) for kind, found in points.items() if len(found) > 3}


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Of the line by least squares."""
    x_mean, y_mean = (fmean(values) for values in zip(*points, strict=True))
    spread = sum((x - x_mean) ** 2 for x, _ in points)
    return sum((x - x_mean) * (y - y_mean) for x, y in points) / spread if spread else 0.0


def violations(record: Mapping[str, Any], reference: Mapping[str, Any] | None) -> list[str]:
    """What a part's record shows that must not be.

    Args:
        reference: of the run that nothing disturbed, in the same order; None: there is none.
    """
    found = []
    if not record["is_finished"]:
        found.append("the run did not finish")
    for name in ("missing", "doubled", "strange", "wrong_groups"):
        if record["problems"][name]:
            found.append(f"{record['problems'][name]} problems or groups: {name}")
    for name in ("orphans", "ports", "files"):
        found += [f"left behind: {one}" for one in record[name]]
    found += [f"hung: {one}" for one in record["hangs"]]
    if not record["events"] and record["memory_steps"] >= FEWEST_STEPS:
        found += [
            f"{kind} grows by {mib:.1f} MiB a step"
            for kind, mib in record["memory_slope_mib"].items()
            if mib > MOST_MIB_PER_STEP
        ]
    for name, share in record["accuracy"].items():
        other = (reference or record)["accuracy"].get(name, share)
        count = record["counted"][name]
        if not is_within_noise(share, other, count):
            found.append(f"{name} accuracy {share:.3f} against {other:.3f} undisturbed")
    return found
