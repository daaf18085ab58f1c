"""Checkpoints: their manifest, and the state of the sources of several methods."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path

from mgrpo.config import MethodView
from mgrpo.config.load import load_recipe
from mgrpo.metric_sums import MetricSums
from mgrpo.storage.checkpoints import (
    LEARNER_DIR,
    MANIFEST_FILE,
    STATE_FILE,
    checkpoint_dir,
    newest_whole,
)
from mgrpo.training.checkpoints import SOURCES, RunState
from mgrpo.training.sources.sample_ahead import FILE, STATE, SampleAhead
from mgrpo.training.sources.stack import make_sources
from mgrpo.training.stop_signals import StopSignals
from mgrpo.types import Problem
from tests.fuzz.target import Seed, Target
from tests.fuzz.trees import problem_tree

SHARD = b"weights"
PROBLEMS = [
    Problem(problem_id=f"q{n}", question=f"{n}?", answer=str(n), domain=f"d{n % 2}")
    for n in range(6)
]
STATEFUL = {
    name.rpartition("/")[2]: name
    for name in ("grpo", "methods/scrpo", "methods/veripo", "methods/mgrpo_replay")
} | {"robust": "methods/robust_sampler"}
"""Recipes whose sources keep something."""


class NoWorkers:
    """What sources and states ask of a run's workers."""

    policy_version = 3


@cache
def method_of(recipe: str) -> MethodView:
    return load_recipe(STATEFUL[recipe], ["prompts_per_step=2"]).method_view


def sources_of(recipe: str) -> SampleAhead:
    return SampleAhead(
        make_sources(method_of(recipe), PROBLEMS), PROBLEMS, num_ahead=2, num_steps=50
    )


def states() -> list[Seed]:
    """state.json of runs of several methods, what one had drawn ahead, and a manifest."""
    seeds = []
    for recipe in STATEFUL:
        sources = sources_of(recipe)
        work = sources.next(0, NoWorkers(), MetricSums())
        assert work is not None
        sampled = [
            one
            for slot, problem in enumerate(work.problems)
            for one in problem_tree(problem.problem_id, slot, problem.domain)
        ]
        sources.observe(0, sampled, MetricSums())
        ahead = {"problems": ["q1", "q2"], "slots": [0, 1], "layers": [1, 2]}
        drawn = [{"step": 4, "work": ahead}, {"step": 5, "work": None}]
        state = {"num_steps": 3, "problems": "f", "policy_version": 3}
        kept = {**state, SOURCES: sources.state_dict() | {STATE: drawn}}
        seeds.append(Seed(f"{recipe}/{STATE_FILE}", json.dumps(kept).encode()))
    row = {"for": 4, "role": "ready", **problem_tree("q1")[0].to_json()}
    seeds.append(Seed(f"grpo/{FILE}", json.dumps(row).encode()))
    return [*seeds, Seed(f"grpo/{MANIFEST_FILE}", manifest())]


def manifest() -> bytes:
    listed = {
        name: {"bytes": len(SHARD), "sha256": hashlib.sha256(SHARD).hexdigest()}
        for name in (f"{LEARNER_DIR}/shard.pt", STATE_FILE)
    }
    return json.dumps(listed).encode()


def read_checkpoint(folder: Path, given: Seed) -> None:
    recipe, _, name = given.name.partition("/")
    files = {one.name: one.data for one in state_seeds() if one.name.startswith(f"{recipe}/")}
    files[given.name] = given.data
    checkpoint = checkpoint_dir(folder, 3)
    (checkpoint / LEARNER_DIR).mkdir(parents=True)
    (checkpoint / LEARNER_DIR / "shard.pt").write_bytes(SHARD)
    for path, data in files.items():
        (checkpoint / path.partition("/")[2]).write_bytes(data)
    if name == MANIFEST_FILE:
        newest_whole(folder)
        return
    sources = sources_of(recipe)
    RunState(NoWorkers(), sources, PROBLEMS, StopSignals()).load(checkpoint)
    sources.sources.next(4, NoWorkers(), MetricSums())


@cache
def state_seeds() -> tuple[Seed, ...]:
    return tuple(states())


TARGETS = (Target("checkpoints", states, read_checkpoint),)
