"""Wrong attempts, kept until a step corrects them (ScRPO, arXiv 2511.06065).

The paper's filter keeps problems whose groups vary in reward; as a formula, p(1 - p) with p the
share of right attempts, it is our reconstruction, and so is the rule for switching.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Literal

from pydantic import NonNegativeFloat, PositiveInt

from mgrpo.config.base import OnlyWith, StrictConfig
from mgrpo.records.json_object import JsonObject
from mgrpo.types import EARLIER_STEP, Completion, CompletionId, Problem


class ErrorPoolSettings(StrictConfig):
    """Keys of error_pool."""

    capacity: PositiveInt = 2048
    """Capacity in attempts; the oldest is removed first."""
    variance_threshold: NonNegativeFloat = 0.1
    """A problem's wrong attempts are added if p(1 - p) of its group reaches this, where p is the
    share of right ones: neither always right nor always wrong."""
    switch: Literal["pool_full", "every_n_steps"] = "pool_full"
    """When corrections are trained: once the pool is full, until fewer than a step's worth are
    left; or every `every_steps` steps, as far as the pool holds any."""
    every_steps: Annotated[PositiveInt, OnlyWith(switch="every_n_steps")] = 4
    """Period of the steps of corrections."""
    max_age: PositiveInt | None = None
    """Attempts of policies more than this many versions old are dropped; null: kept."""


@dataclass(frozen=True, slots=True)
class PooledError:
    """One wrong attempt and the problem that it is an attempt at."""

    problem: Problem
    attempt: Completion


def right_variance(attempts: Sequence[Completion]) -> float:
    """p(1 - p), p the share of right ones among the attempts whose checks worked; 0 for none."""
    usable = [one for one in attempts if one.reward is not None and one.reward.is_usable]
    right = sum(one.is_correct for one in usable) / max(1, len(usable))
    return right * (1 - right)


class ErrorPool:
    """First in, first out; when it is full the oldest leaves."""

    def __init__(self, config: ErrorPoolSettings) -> None:
        self.config = config
        self.waiting: deque[PooledError] = deque(maxlen=config.capacity)
        self.is_draining = False

    def __len__(self) -> int:
        return len(self.waiting)

    def add(
        self,
        problems: Sequence[Problem],
        completions: Sequence[Completion],
        *,
        skip_truncated: bool = False,
    ) -> int:
        """Keep the wrong attempts of a step; returns how many entered.

        Args:
            problems: the step's, in order of their slots.
            completions: layer 1 of the step, whole groups.
            skip_truncated: leave out attempts that ran out of tokens, where layer 2 would.
        """
        by_tree: dict[CompletionId, list[Completion]] = {}
        for one in completions:
            by_tree.setdefault(one.id.tree, []).append(one)
        num_added = 0
        for (_, group), problem in zip(by_tree.items(), problems, strict=True):
            if right_variance(group) < self.config.variance_threshold:
                continue
            for one in group:
                is_wrong = one.reward is not None and one.reward.is_usable and not one.is_correct
                if is_wrong and not (skip_truncated and one.is_truncated):
                    self.waiting.append(PooledError(problem, one))
                    num_added += 1
        return num_added

    def drop_stale(self, policy_version: int) -> int:
        """Forget attempts of policies that are too old; returns how many."""
        if self.config.max_age is None:
            return 0
        oldest = policy_version - self.config.max_age
        fresh = [one for one in self.waiting if one.attempt.oldest_version >= oldest]
        num_dropped = len(self.waiting) - len(fresh)
        self.waiting = deque(fresh, maxlen=self.config.capacity)
        return num_dropped

    def is_due(self, step: int, num_wanted: int) -> bool:
        """Is this a step of corrections?"""
        if self.config.switch == "every_n_steps":
            return len(self) > 0 and (step + 1) % self.config.every_steps == 0
        if len(self) == self.config.capacity:
            self.is_draining = True
        if len(self) < min(num_wanted, self.config.capacity):
            self.is_draining = False
        return self.is_draining

    def take(self, step: int, num_wanted: int) -> tuple[list[Problem], list[Completion]]:
        """The oldest entries leave: problems, and attempts named after their slots in `step`."""
        taken = [self.waiting.popleft() for _ in range(min(num_wanted, len(self.waiting)))]
        attempts = []
        for slot, one in enumerate(taken):
            tree = CompletionId(step, slot)
            attempts.append(
                replace(
                    one.attempt,
                    id=tree.child(0),
                    group_key=str(tree),
                    augmented_by=EARLIER_STEP,
                    advantage=None,  # what was decided of it is of the step that sampled it
                    selected=None,
                    not_selected_because="",
                )
            )
        return [one.problem for one in taken], attempts

    def state_dict(self) -> JsonObject:
        """Plain values, fit for JSON."""
        return {
            "is_draining": self.is_draining,
            "waiting": [
                {"problem": asdict(one.problem), "attempt": one.attempt.to_json()}
                for one in self.waiting
            ],
        }

    def load_state_dict(self, state: JsonObject) -> None:
        """Continue where `state_dict` was taken."""
        self.is_draining = bool(state["is_draining"])
        self.waiting = deque(
            (
                PooledError(Problem(**one["problem"]), Completion.from_json(one["attempt"]))
                for one in state["waiting"]
            ),
            maxlen=self.config.capacity,
        )
