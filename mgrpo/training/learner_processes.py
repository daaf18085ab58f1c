"""A run's learner ranks: started, joined to the engines, and replaced when one is lost."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeGuard

from actors.templates import PromptBuilder
from cluster.allocations import Allocation
from cluster.board_watch import BoardWatch
from cluster.fleet.fleet import Fleet
from cluster.progress_board import ProgressBoard
from cluster.remote import wait_for
from learner.rank import LearnerRank
from mgrpo.config import ClusterConfig
from mgrpo.errors import ActorDiedError, DeadlineError, LearnerLostError, MgrpoError
from mgrpo.training.launcher import Launcher
from mgrpo.training.learner_ranks import SETTING
from mgrpo.types import Problem


class LearnerProcesses:
    """The actors of the learner.

    Args:
        allocations: the learner's; without one there are no ranks.
        fleet: the engines that get their weights.
        problems: the probe of a broadcast is a prompt of theirs.
        max_restarts: so often a lost learner is replaced in a run.
        board: the run's, which is told of the ranks' progress.
    """

    def __init__(
        self,
        cluster: ClusterConfig,
        launcher: Launcher,
        allocations: Sequence[Allocation],
        fleet: Fleet,
        *,
        builder: PromptBuilder,
        problems: Sequence[Problem],
        max_restarts: int,
        board: ProgressBoard | None = None,
    ) -> None:
        self.launcher, self.allocations, self.fleet = launcher, list(allocations), fleet
        self.builder, self.problems = builder, problems
        self.silent_s = cluster.health.dead_after_s
        self.num_replacements = 0
        self.max_restarts = max_restarts
        self.shares_gpus = cluster.takes_turns
        self.ranks = launcher.learner(self.allocations)
        self.progress = BoardWatch(self.ranks, silent_s=self.silent_s, board=board)

    def start(self) -> None:
        """Load the policy.

        Raises:
            ModelError, ActorDiedError, DeadlineError: naming the rank.
        """
        self.launcher.start_learner(self.ranks, self.progress)

    def connect(self, state: Path | None, *, shared_folder: bool | None) -> int:
        """Go on from a saved state, and give the engines its weights; returns the policy version.

        Args:
            state: the learner's part of a checkpoint; None begins with the recipe's model.
            shared_folder: do all ranks' nodes see it? None asks each.
        """
        version = 0
        if state is not None:
            version = self.launcher.load_state(self.ranks, state, shared_folder, self.progress)
        broadcaster = self.launcher.broadcaster(
            self.ranks, self.builder, self.problems, self.progress
        )
        self.fleet.connect(broadcaster, version)
        return version

    def lost(self, error: Exception) -> MgrpoError | None:
        """The loss of a rank that caused an error of a step; None: the ranks are there."""
        if isinstance(error, LearnerLostError) or self.is_of_ranks_alone(error):
            return error
        try:
            wait_for(
                [rank.submit(LearnerRank.meeting_point) for rank in self.ranks],
                doing="answer after an error",
                deadline_s=self.silent_s,
                setting="cluster.health.dead_after_s",
            )
        except ActorDiedError as lost:
            return lost
        except MgrpoError:  # busy, or it hangs: then the error was that it is late
            return error if isinstance(error, DeadlineError) else None
        return None

    def is_of_ranks_alone(self, error: Exception) -> TypeGuard[DeadlineError]:
        """Whether it says that ranks made no progress in a call of which no engine is part."""
        return (
            isinstance(error, DeadlineError)
            and error.setting == SETTING
            and any(error.waited_for.startswith(rank.name) for rank in self.ranks)
        )

    def replace(self, state: Path | None, error: MgrpoError) -> int:
        """Other ranks in the place of these, which go on from a saved state; its policy version.

        Args:
            state: as for `connect`.
            error: why.

        Raises:
            LearnerLostError: one of them was lost, too.
            ModelError, DeadlineError, WeightSyncError: they did not come up.
        """
        for rank in self.ranks:
            rank.kill()
        self.fleet.lose_learner(error)
        if self.shares_gpus:
            self.fleet.sleep()  # each measures how much memory is free when it loads
        self.num_replacements += 1
        self.ranks[:] = self.launcher.learner(self.allocations, replacement=self.num_replacements)
        try:
            self.start()
            return self.connect(state, shared_folder=None)
        except ActorDiedError as died:  # engines that die are left out of a broadcast
            raise LearnerLostError(str(died)) from died
