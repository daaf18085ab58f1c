"""Recorded curves of methods, measured by `benchmarks.method_curves`, for the methods' pages."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import zip_longest
from pathlib import Path
from statistics import fmean
from typing import Any

from mgrpo.config import RunConfig

WINDOW = 3
"""Steps at either end of a run whose rewards are its sampled accuracy there."""
METHOD_SECTIONS = (
    "layers",
    "source",
    "sampling",
    "rewards",
    "plugins",
    "phases",
    "objective",
    "data",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """One short run of one recipe, with one seed."""

    seed: int
    settings: list[str]  # that were laid over the recipe
    digest: str  # of the recipe's method keys, as it was trained
    reward: list[float | None]  # layer 1's mean reward by step; None: the step sampled none
    grad_norm: list[float | None]  # by step; None: the step trained nothing
    accuracy: list[float]  # of held-out first attempts, before and after
    final_accuracy: list[float]  # of the chain's last turn, the same for a chain of one
    step_s: float  # mean seconds of a step
    seconds: float  # of the whole command
    commit: str = "unknown"
    cpu: str = "unknown"

    @property
    def sampled_accuracy(self) -> tuple[float, float]:
        """Mean reward, which is the share of right ones, of layer 1's completions over the first
        and over the last steps that sampled any: WINDOW of each, or half of all if they are few."""
        known = [reward for reward in self.reward if reward is not None]
        width = max(1, min(WINDOW, len(known) // 2))
        return fmean(known[:width]), fmean(known[-width:])


Curves = Mapping[str, Sequence[Curve]]
"""By method: its runs, which have one digest, by seed."""


def read_curves(file: Path) -> dict[str, list[Curve]]:
    """Empty where nothing has been recorded."""
    if not file.is_file():
        return {}
    found: dict[str, list[dict[str, Any]]] = json.loads(file.read_text("utf-8"))
    return {name: [Curve(**one) for one in runs] for name, runs in found.items()}


def with_run(curves: Curves, name: str, run: Curve) -> dict[str, list[Curve]]:
    """Curves with one run more, in the place of one of its seed and of those of another digest."""
    kept = [
        one for one in curves.get(name, ()) if one.digest == run.digest and one.seed != run.seed
    ]
    own = sorted([*kept, run], key=lambda one: one.seed)
    return {**{other: list(runs) for other, runs in curves.items()}, name: own}


def write_curves(file: Path, curves: Curves) -> None:
    """Write all of them, a run a line, so that a change of one is a change of one line."""
    file.parent.mkdir(parents=True, exist_ok=True)
    blocks = [
        f"{json.dumps(name)}: [\n" + ",\n".join(json.dumps(asdict(one)) for one in runs) + "\n]"
        for name, runs in sorted(curves.items())
    ]
    file.write_text("{\n" + ",\n".join(blocks) + "\n}\n", encoding="utf-8")


def by_step(runs: Sequence[Curve]) -> list[list[float]]:
    """Mean rewards of each step, of the runs that sampled any in it."""
    return [
        [reward for reward in at_step if reward is not None]
        for at_step in zip_longest(*(one.reward for one in runs))
    ]


def method_digest(config: RunConfig) -> str:
    """A short fingerprint of the keys that make a method, of those that are not at their default.

    Keys that a later version adds leave it as it is.
    """
    tree = config.model_dump(mode="json", exclude_defaults=True, include=set(METHOD_SECTIONS))
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()[:12]
