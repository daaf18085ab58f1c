"""The folder of a run."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

from mgrpo.config import RunConfig
from mgrpo.config.load import load_recipe
from mgrpo.errors import MgrpoError
from mgrpo.evaluation.run_results import read_run
from mgrpo.report import write_report
from mgrpo.storage.checkpoints import LEARNER_DIR, begin_checkpoint, finish_checkpoint
from mgrpo.storage.run_directory import resume_point
from mgrpo.storage.run_list import summary_of
from tests.fuzz.target import Seed, Target
from tests.mgrpo.report.fake_run import make_run

CONFIG = """\
name: run
method: MGRPO
steps: 6
prompts_per_step: 16
model: {path: smollm2}
data: {train: {source: reasoning_gym, tasks: [{name: chain_sum}], size: 512}}
layers: [{name: solve, group_size: 8}, {name: correct, group_size: 4}]
"""
"""Short, since YAML is slow to read."""


@cache
def whole_run() -> tuple[Seed, ...]:
    """The files of a finished run with a checkpoint."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = make_run(Path(temporary) / "run", steps=6, rollouts_every=5)
        (folder / "config.yaml").write_text(CONFIG)
        rows = [
            {
                "step": 3,
                "first_step": 2,
                "name": "x",
                "layer": None,
                "action": "warn",
                "message": "m",
                "seen": "s",
                "meaning": "m",
                "advice": "a",
            }
        ]
        (folder / "alarms.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (folder / "early_end.json").write_text('{"num_steps": 6, "reason": "no progress"}')
        for file in folder.glob("rollouts/*.jsonl"):
            file.write_text("".join(file.read_text().splitlines(keepends=True)[:6]))
        unfinished = begin_checkpoint(folder, 6)
        (unfinished / LEARNER_DIR).mkdir()
        (unfinished / LEARNER_DIR / "shard.pt").write_bytes(b"weights")
        finish_checkpoint(unfinished, {"num_steps": 6, "policy_version": 6})
        files = sorted(file for file in folder.rglob("*") if file.is_file())
        return tuple(Seed(file.relative_to(folder).as_posix(), file.read_bytes()) for file in files)


def run_files() -> list[Seed]:
    return [one for one in whole_run() if LEARNER_DIR not in one.name]


def write_run(folder: Path, given: Seed) -> None:
    """A run of which one file is as given; an empty one is a folder."""
    for one in whole_run():
        file = folder / one.name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(given.data if one.name == given.name else one.data)
    if not given.data:
        (folder / given.name).unlink()
        (folder / given.name).mkdir()


def read_run_folder(folder: Path, given: Seed) -> None:
    write_run(folder, given)
    reads: list[Callable[[], object]] = [
        lambda: write_report(folder),
        lambda: summary_of(folder),
        lambda: read_run(folder),
        lambda: resume_point(folder, longer(folder), note=lambda line: None),
    ]
    failures = []
    for read in reads:  # one that fails clearly must not hide how another fails
        try:
            read()
        except MgrpoError as error:
            failures.append(error)
    if failures:
        raise failures[0]


def longer(folder: Path) -> RunConfig:
    config = load_recipe(folder / "config.yaml")
    return config.model_copy(update={"steps": config.steps + 1})


TARGETS = (Target("run directories", run_files, read_run_folder),)
