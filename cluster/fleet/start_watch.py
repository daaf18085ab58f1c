"""Progress of engines that load their models, as what their processes read and write."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress

from cluster.board_watch import BoardWatch, HasBoard
from cluster.progress_board import ProgressBoard
from cluster.remote import RemoteActor
from mgrpo.errors import MgrpoError


class StartWatch:
    """What one of them reads counts for all; see `cluster.progress_board.Counter`.

    Args:
        board: the run's, which is told of their progress.
    """

    def __init__(self, actors: Sequence[RemoteActor[HasBoard]], board: ProgressBoard) -> None:
        self.watch = BoardWatch(actors, silent_s=math.inf, board=board)
        self.num_moves = 0

    def count(self) -> int:
        """How often another MiB was read or written so far. Does not wait."""
        with suppress(MgrpoError):  # one that is gone: the call that loads its model says so
            self.num_moves = self.watch.count()
        return self.num_moves

    def said(self) -> str:
        return "Its processes read and wrote nothing in that time."
