"""Recorded completions."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

from mgrpo.commands.explain import refuse_other_chain
from mgrpo.config import RunConfig
from mgrpo.config.load import load_recipe
from mgrpo.explanation.recorded import read_recorded
from mgrpo.explanation.replay import explain_completions
from mgrpo.metrics.log import read_rollouts
from tests.fuzz.target import Seed, Target
from tests.fuzz.trees import problem_tree


def rollouts() -> list[Seed]:
    rows = [one.to_json() for one in problem_tree("q1")]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    return [Seed("step-000003.jsonl", text.encode()), Seed("rows.json", json.dumps(rows).encode())]


def read_records(folder: Path, given: Seed) -> None:
    file = folder / given.name
    file.write_bytes(given.data)
    if given.name.endswith("jsonl"):
        read_rollouts(file)
    recorded = read_recorded(file)
    config = chain_of_two()
    layers = sorted({one.layer for one in recorded.completions})
    refuse_other_chain(recorded.completions, layers, config.layers, "r")
    explain_completions(recorded.completions, config.method_view, config.learner, layers=layers)


@cache
def chain_of_two() -> RunConfig:
    return load_recipe("quickstart")


TARGETS = (Target("rollout records", rollouts, read_records),)
