"""A learner that computes no gradient: the light twin of the ranks that train.

With it the whole loop runs without a model, in tests and in examples.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

from mgrpo.types import Completion, Replayed, Selection, UpdateResult

STATE_FILE = "scripted.json"


@dataclass(frozen=True)
class Update:
    """What one update was given."""

    step: int
    completions: Sequence[Completion]
    parents: Sequence[Completion]
    replayed: Sequence[Replayed]


class ScriptedLearner:
    """Counts policy versions.

    Args:
        logprob: what it says is the log-probability of a completion, in nats.
    """

    def __init__(self, logprob: Callable[[Completion], float] = lambda one: -1.0) -> None:
        self.logprob = logprob
        self.policy_version = 0
        self.updates: list[Update] = []
        self.chunks: list[list[str]] = []  # names of what came while others were sampled
        self.num_measured: list[int] = []  # completions of each measurement

    def update(
        self,
        completions: Sequence[Completion],
        parents: Sequence[Completion],
        step: int,
        replayed: Sequence[Replayed],
        *,
        meanwhile: Callable[[], None],
    ) -> UpdateResult:
        meanwhile()
        self.updates.append(Update(step, list(completions), list(parents), list(replayed)))
        self.policy_version += 1
        return UpdateResult(
            policy_version=self.policy_version,
            metrics={"learner/loss": (0.0, 1.0)},
            selections=selections_of(completions),
        )

    async def update_beside(
        self,
        completions: Sequence[Completion],
        parents: Sequence[Completion],
        step: int,
        replayed: Sequence[Replayed],
    ) -> UpdateResult:
        await asyncio.sleep(0)
        return self.update(completions, parents, step, replayed, meanwhile=lambda: None)

    def begin_update(self, step: int) -> None:
        self.begun: list[Completion] = []
        self.begun_parents: list[Completion] = []
        self.begun_step = step

    async def add_trees(
        self, step: int, completions: Sequence[Completion], parents: Sequence[Completion]
    ) -> list[Selection]:
        self.begun += completions
        self.begun_parents += parents
        self.chunks.append([one.completion_id for one in completions])
        return selections_of(completions)

    def finish_update(
        self, replayed: Sequence[Replayed], *, meanwhile: Callable[[], None]
    ) -> UpdateResult:
        result = self.update(
            self.begun, self.begun_parents, self.begun_step, replayed, meanwhile=meanwhile
        )
        return replace(result, selections=[])

    def sequence_logprobs(self, completions: Sequence[Completion], step: int) -> list[float]:
        self.num_measured.append(len(completions))
        return [self.logprob(one) for one in completions]

    def save_states(
        self,
        directory: Path,
        policy_version: int,
        *,
        deadline_s: float | None,
        is_run_folder: bool = True,
    ) -> bool:
        if policy_version != self.policy_version:
            return False
        directory.mkdir()
        (directory / STATE_FILE).write_text(json.dumps(policy_version), encoding="utf-8")
        return True

    def state_bytes(self) -> int:
        return 8

    def load_states(self, directory: Path) -> int:
        """Continue from `save_states`; returns the policy version."""
        text = (directory / STATE_FILE).read_text(encoding="utf-8")
        self.policy_version = int(json.loads(text))
        return self.policy_version

    def save_policy(self, directory: Path) -> None:
        directory.mkdir(exist_ok=True)
        (directory / STATE_FILE).write_text(json.dumps(self.policy_version), encoding="utf-8")


def selections_of(completions: Sequence[Completion]) -> list[Selection]:
    """A completion's advantage is its reward beyond its group's mean."""
    groups: dict[str, list[float]] = {}
    for one in completions:
        groups.setdefault(one.group_key, []).append(reward_of(one))
    advantages = [reward_of(one) - fmean(groups[one.group_key]) for one in completions]
    return [
        Selection(
            completion_id=one.completion_id,
            advantage=advantage,
            selected=advantage != 0,
            reason="" if advantage else "all rewards of its group are equal",
        )
        for one, advantage in zip(completions, advantages, strict=True)
    ]


def reward_of(one: Completion) -> float:
    return 0.0 if one.reward is None else one.reward.value
