"""A whole run in this process: the real loop, hooks and files; scripted engines and learner."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from actors.rollout import Rollout
from actors.scripted import ScriptedEngine
from actors.templates import PromptBuilder
from cluster.fleet.in_process import InProcessEngines
from learner.scripted import ScriptedLearner
from mgrpo.config import RunConfig
from mgrpo.metrics.log import MetricsLog, read_metrics
from mgrpo.storage.checkpoints import LEARNER_DIR, checkpoints
from mgrpo.storage.mirror import mirror_of
from mgrpo.training.progress import TrainProgress
from mgrpo.training.run import train_through_losses
from mgrpo.training.stop_signals import StopSignals
from mgrpo.training.system import Replaceable, System
from mgrpo.types import Problem
from tests.actors.byte_tokenizer import END, ByteTokenizer
from tests.actors.test_rollout import ExactScorer

TOKENIZER = ByteTokenizer()
PROBLEMS = [
    Problem(problem_id=f"p{n}", question=f"q{n}", answer=str(n), domain=f"d{n % 2}")
    for n in range(4)
]


def light_rollout(config: RunConfig, engines: InProcessEngines) -> Rollout:
    """As `start_system` makes it, with exact checks."""
    return Rollout(
        engines=engines,
        scorer=ExactScorer(),
        builder=PromptBuilder(TOKENIZER),
        layers=config.layers,
        temperature=config.sampling.temperature,
        seed=config.seed,
    )


Script = Callable[[str, int], str]  # (prompt's text, sample's number) -> completion's text


def says_its_number(prompt: str, index: int) -> str:
    """Of each problem's attempts one is right: that with the number of the problem's answer."""
    return str(index)


@dataclass
class LightRun:
    """The parts of a run that tests look at."""

    config: RunConfig
    run_dir: Path
    script: Script = says_its_number
    problems: Sequence[Problem] = tuple(PROBLEMS)
    heldout: Sequence[Problem] = ()
    learner: ScriptedLearner = field(default_factory=ScriptedLearner)
    processes: Replaceable | None = None
    console: io.StringIO = field(default_factory=io.StringIO)

    def __post_init__(self) -> None:
        self.engine = ScriptedEngine(
            lambda ids, index: self.script(TOKENIZER.decode(ids), index),
            encode=TOKENIZER.encode,
            end_id=END,
        )
        numbers = range(1, len(self.config.layers) + 1)
        self.engines = InProcessEngines({number: [self.engine] for number in numbers})
        self.signals = StopSignals()

    def train(self, *, resume_from: Path | None = None) -> list[dict[str, Any]]:
        """Run to the end; returns the rows of metrics.jsonl."""
        fleet: Any = self.engines
        scorer: Any = ExactScorer()
        if resume_from is not None:
            self.learner.load_states(resume_from / LEARNER_DIR)
        system = System(
            config=self.config,
            device="cpu",
            problems=list(self.problems),
            heldout=list(self.heldout),
            rollout=light_rollout(self.config, fleet),
            fleet=fleet,
            scorer=scorer,
            learner=self.learner,
            policy_version=self.learner.policy_version,
            processes=self.processes,
        )
        self.engines.broadcast(self.learner.policy_version)  # a run begins with one
        mirror = mirror_of(self.config, self.run_dir)
        self.run_dir.mkdir(parents=True, exist_ok=True)
        shown = Console(file=self.console, width=200)
        with (
            MetricsLog(self.run_dir) as log,
            TrainProgress(
                self.config.steps, "light", len(self.config.layers), console=shown
            ) as progress,
        ):
            try:
                train_through_losses(
                    system, self.run_dir, resume_from, log, progress, self.signals, mirror
                )
            finally:
                self.engines.close()
        return read_metrics(self.run_dir)

    @property
    def checkpoint_names(self) -> list[str]:
        return [folder.name for folder in checkpoints(self.run_dir)]
