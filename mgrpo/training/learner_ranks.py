"""The learner for the loop: one object with parallel ranks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from cluster.progress_board import Counter
from cluster.remote import Call, RemoteActor, Result, share, wait_for
from learner.rank import LearnerRank
from learner.rank_files import LearnerFiles
from learner.step_data import StepData
from mgrpo.errors import LearnerError, task_group
from mgrpo.types import Completion, Replayed, Selection, UpdateResult

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
    ) -> list[Selection]:
        """Their part of the gradient; the selection of each completion."""
        ...

    def finish_update(
        self, replayed: Sequence[Replayed], *, meanwhile: Callable[[], None]
    ) -> UpdateResult:
        """The optimizer step of the update that was begun; selections are those of `add_trees`."""
        ...

    def sequence_logprobs(self, completions: Sequence[Completion], step: int) -> list[float]:
        """[completions] log-probabilities under the policy now, in nats."""
        ...

    def save_states(
        self,
        directory: Path,
        policy_version: int,
        *,
        deadline_s: float | None,
        is_run_folder: bool = True,
    ) -> bool:
        """Write everything that an exact resume needs.

        Args:
            deadline_s: None for the update's own; else `checkpoints.on_signal_s`.
            is_run_folder: False for a folder of this machine's own.

        Returns:
            False, with nothing worth keeping written, where an update has been made since
            `policy_version`.
        """
        ...

    def state_bytes(self) -> int:
        """What `save_states` writes, about."""
        ...

    def save_policy(self, directory: Path) -> None:
        """The policy in Hugging Face form, whole or not at all."""
        ...


class LearnerRanks:
    """A learner of one or several actors.

    Args:
        ranks: `learner.rank.LearnerRank` actors; others may take their places in the list.
        update_s: longest time without progress of an update, a measurement or writing files.
        shared_folder: do all ranks' nodes see the run's folder? None asks each.
        progress: of the ranks; None: `update_s` is for the whole.
    """

    def __init__(
        self,
        ranks: list[RemoteActor[LearnerRank]],
        *,
        update_s: float,
        shared_folder: bool | None,
        progress: Counter | None = None,
    ) -> None:
        self.ranks, self.update_s, self.shared_folder = ranks, update_s, shared_folder
        self.progress = progress

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
        return self._result(LearnerRank.update, step_data, meanwhile)

    def begin_update(self, step: int) -> None:
        self._wait([rank.submit(LearnerRank.begin_update, step) for rank in self.ranks])

    async def update_beside(
        self,
        completions: Sequence[Completion],
        parents: Sequence[Completion],
        step: int,
        replayed: Sequence[Replayed],
    ) -> UpdateResult:
        step_data = share(StepData.of(step, completions, parents, replayed))
        return reported(await self._beside(LearnerRank.update, step_data))

    async def add_trees(
        self, step: int, completions: Sequence[Completion], parents: Sequence[Completion]
    ) -> list[Selection]:
        step_data = share(StepData.of(step, completions, parents))
        return await self._beside(LearnerRank.add_trees, step_data)

    def finish_update(
        self, replayed: Sequence[Replayed], *, meanwhile: Callable[[], None]
    ) -> UpdateResult:
        step_data = share(StepData.of(0, (), (), replayed))
        return self._result(LearnerRank.finish_update, step_data, meanwhile)

    def _result(
        self,
        method: Callable[[LearnerRank, StepData], UpdateResult | None],
        given: StepData,
        meanwhile: Callable[[], None],
    ) -> UpdateResult:
        """Of a call that ends with an optimizer step."""
        calls = [rank.submit(method, given) for rank in self.ranks]
        return reported(self._wait(calls, "update the policy", meanwhile)[0])

    async def _beside(
        self, method: Callable[[LearnerRank, StepData], Result], given: StepData
    ) -> Result:
        """Call every rank, without blocking the event loop; what rank 0 returns."""
        calls = [rank.submit(method, given) for rank in self.ranks]
        async with task_group() as group:
            answers = [
                group.create_task(
                    call.answer(deadline_s=self.update_s, setting=SETTING, progress=self.progress)
                )
                for call in calls
            ]
        return answers[0].result()

    def _wait(
        self,
        calls: Sequence[Call[Result]],
        doing: str | None = None,
        meanwhile: Callable[[], None] | None = None,
    ) -> list[Result]:
        return wait_for(
            calls,
            doing=doing,
            deadline_s=self.update_s,
            setting=SETTING,
            meanwhile=meanwhile,
            progress=self.progress,
        )

    def sequence_logprobs(self, completions: Sequence[Completion], step: int) -> list[float]:
        step_data = share(StepData.of(step, completions))
        found = self._wait(
            [rank.submit(LearnerRank.sequence_logprobs, step_data) for rank in self.ranks],
            "measure log-probabilities",
        )
        return found[0]

    def save_states(
        self,
        directory: Path,
        policy_version: int,
        *,
        deadline_s: float | None,
        is_run_folder: bool = True,
    ) -> bool:
        files = LearnerFiles(
            self.ranks,
            directory,
            deadline_s=deadline_s or self.update_s,
            setting="checkpoints.on_signal_s" if deadline_s else SETTING,
            is_shared=self.shared_folder if is_run_folder else None,
            progress=None if deadline_s else self.progress,
        )
        return files.save_states(policy_version)

    def state_bytes(self) -> int:
        return self._wait([self.ranks[0].submit(LearnerRank.state_bytes)])[0]

    def save_policy(self, directory: Path) -> None:
        files = LearnerFiles(
            self.ranks,
            directory,
            deadline_s=self.update_s,
            setting=SETTING,
            is_shared=self.shared_folder,
            progress=self.progress,
        )
        files.save_policy()


def reported(result: UpdateResult | None) -> UpdateResult:
    """
    Raises:
        LearnerError: rank 0 returned nothing.
    """
    if result is None:
        raise LearnerError("Learner rank 0 did not report its update.")
    return result
