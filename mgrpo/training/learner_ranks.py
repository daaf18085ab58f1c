"""The learner for the loop: one object with parallel ranks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from cluster.remote import RemoteActor, share, wait_for
from learner.rank_files import save_policy, save_states
from learner.step_data import StepData
from mgrpo.errors import LearnerError
from mgrpo.types import Completion, Replayed, UpdateResult, Verdict

SETTING = "cluster.deadlines.update_s"


class Learner(Protocol):
    """The interface of a learner for the loop; `learner.scripted.ScriptedLearner` is the light
    twin."""

    def update(
        self,
        completions: Sequence[Completion],
        parents: Sequence[Completion],
        step: int,
        replayed: Sequence[Replayed],
        *,
        meanwhile: Callable[[], None],
    ) -> UpdateResult:
        """One update of the policy.

        Args:
            parents: known to the update; they do not train in it.
            replayed: of earlier steps; they train again.
            meanwhile: called about once a second; must not wait.
        """
        ...

    async def update_beside(
        self,
        completions: Sequence[Completion],
        parents: Sequence[Completion],
        step: int,
        replayed: Sequence[Replayed],
    ) -> UpdateResult:
        """`update` for an event loop that samples meanwhile."""
        ...

    def begin_update(self, step: int) -> None:
        """Begin an update to which whole trees are added while others are sampled."""
        ...

    async def add_trees(
        self, step: int, completions: Sequence[Completion], parents: Sequence[Completion]
    ) -> list[Verdict]:
        """Their part of the gradient; the decision for each completion."""
        ...

    def finish_update(
        self, replayed: Sequence[Replayed], *, meanwhile: Callable[[], None]
    ) -> UpdateResult:
        """The optimizer step of the update that was begun; verdicts are those of `add_trees`."""
        ...

    def sequence_logprobs(self, completions: Sequence[Completion], step: int) -> list[float]:
        """[completions] log-probabilities under the policy now, in nats."""
        ...

    def save_states(
        self, directory: Path, policy_version: int, *, deadline_s: float | None
    ) -> bool:
        """Write everything that an exact resume needs.

        Args:
            deadline_s: None for the update's own; else `checkpoints.on_signal_s`.

        Returns:
            False, with nothing worth keeping written, where an update has been made since
            `policy_version`.
        """
        ...

    def save_policy(self, directory: Path) -> None:
        """The policy in Hugging Face form, whole or not at all."""
        ...


class LearnerRanks:
    """A learner of one or several actors.

    Args:
        ranks: `learner.rank.LearnerRank` actors.
        update_s: deadline of an update, of a measurement and of writing files.
        shared_folder: do all ranks' nodes see the run's folder? None asks each.
    """

    def __init__(
        self, ranks: Sequence[RemoteActor], *, update_s: float, shared_folder: bool | None
    ) -> None:
        self.ranks, self.update_s, self.shared_folder = list(ranks), update_s, shared_folder

    def update(
        self,
        completions: Sequence[Completion],
        parents: Sequence[Completion],
        step: int,
        replayed: Sequence[Replayed],
        *,
        meanwhile: Callable[[], None],
    ) -> UpdateResult:
        step_data = share(StepData.of(step, completions, parents, replayed))
        return self._result("update", step_data, meanwhile)

    def begin_update(self, step: int) -> None:
        self._on_all("begin_update", step, doing="begin an update")

    async def update_beside(
        self,
        completions: Sequence[Completion],
        parents: Sequence[Completion],
        step: int,
        replayed: Sequence[Replayed],
    ) -> UpdateResult:
        step_data = share(StepData.of(step, completions, parents, replayed))
        return reported(await self._beside("update", step_data))

    async def add_trees(
        self, step: int, completions: Sequence[Completion], parents: Sequence[Completion]
    ) -> list[Verdict]:
        step_data = share(StepData.of(step, completions, parents))
        verdicts: list[Verdict] = await self._beside("add_trees", step_data)
        return verdicts

    def finish_update(
        self, replayed: Sequence[Replayed], *, meanwhile: Callable[[], None]
    ) -> UpdateResult:
        step_data = share(StepData.of(0, (), (), replayed))
        return self._result("finish_update", step_data, meanwhile)

    def _result(self, method: str, given: Any, meanwhile: Callable[[], None]) -> UpdateResult:
        """Of a call that ends with an optimizer step."""
        found = self._on_all(method, given, doing="update the policy", meanwhile=meanwhile)
        return reported(found[0])

    async def _beside(self, method: str, given: Any) -> Any:
        """Call every rank, without blocking the event loop; what rank 0 returns."""
        limits = {"deadline_s": self.update_s, "setting": SETTING}
        async with asyncio.TaskGroup() as group:
            calls = [
                group.create_task(rank.call_async(method, given, **limits)) for rank in self.ranks
            ]
        return calls[0].result()

    def _on_all(
        self, method: str, given: Any, *, doing: str, meanwhile: Callable[[], None] | None = None
    ) -> list[Any]:
        """Call every rank, and wait for all of them."""
        return wait_for(
            [(rank, rank.submit(method, given)) for rank in self.ranks],
            doing=doing,
            deadline_s=self.update_s,
            setting=SETTING,
            meanwhile=meanwhile,
        )

    def sequence_logprobs(self, completions: Sequence[Completion], step: int) -> list[float]:
        step_data = share(StepData.of(step, completions))
        found: list[list[float]] = self._on_all(
            "sequence_logprobs", step_data, doing="measure log-probabilities"
        )
        return found[0]

    def save_states(
        self, directory: Path, policy_version: int, *, deadline_s: float | None
    ) -> bool:
        return save_states(
            self.ranks,
            directory,
            policy_version,
            deadline_s=deadline_s or self.update_s,
            setting="checkpoints.on_signal_s" if deadline_s else SETTING,
            is_shared=self.shared_folder,
        )

    def save_policy(self, directory: Path) -> None:
        save_policy(
            self.ranks,
            directory,
            deadline_s=self.update_s,
            setting=SETTING,
            is_shared=self.shared_folder,
        )


def reported(result: UpdateResult | None) -> UpdateResult:
    """
    Raises:
        LearnerError: rank 0 returned nothing.
    """
    if result is None:
        raise LearnerError("Learner rank 0 did not report its update.")
    return result
