"""What learner ranks read and write, wherever their nodes are.

A rank that sees the run's folder (the same machine, or a shared file system) works in it, and
nothing is copied. The others work in their node's temporary folder, and the files travel between
it and the run's folder by way of the driver, in parts, so that neither memory nor Ray's object
store ever holds a whole one. A checkpoint is therefore always whole in one place.
"""

from __future__ import annotations

import secrets
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Concatenate

from cluster.progress_board import Counter
from cluster.remote import Arguments, Call, RemoteActor, Result, wait_for
from learner.node_files import sizes_below
from learner.rank import LearnerRank

PART_BYTES = 32 << 20


@dataclass(frozen=True)
class Home:
    """Where one rank reads and writes."""

    rank: RemoteActor[LearnerRank]
    node: str
    folder: str | None  # of its node; None where it sees the driver's


class LearnerFiles:
    """The ranks' view of one folder of the driver, for one reading or writing of it."""

    def __init__(
        self,
        ranks: Sequence[RemoteActor[LearnerRank]],
        directory: Path,
        *,
        deadline_s: float,
        setting: str,
        is_shared: bool | None = None,
        progress: Counter | None = None,
    ) -> None:
        """Find out who sees the folder.

        Args:
            directory: what is read or written; its parent must be there.
            deadline_s: for everything together; `setting` names it in messages.
            is_shared: what is known of it already; None asks each rank.
            progress: of the ranks; the deadline is then for a time without any.
        """
        self.directory = directory.resolve()
        self.end, self.deadline_s, self.setting = time.monotonic() + deadline_s, deadline_s, setting
        self.progress = progress
        self.token = secrets.token_hex(8)
        seen = [is_shared] * len(ranks) if is_shared is not None else self._ask(ranks)
        nodes = self.call(ranks, LearnerRank.node) if not all(seen) else [""] * len(ranks)
        folders: dict[str, str] = {}
        for rank, node, is_seen in zip(ranks, nodes, seen, strict=True):
            if not is_seen and node not in folders:
                name = f"{self.token}-{node[-8:]}"
                (folders[node],) = self.call([rank], LearnerRank.make_folder, name)
        self.homes = [
            Home(rank, node, None if is_seen else folders[node])
            for rank, node, is_seen in zip(ranks, nodes, seen, strict=True)
        ]

    def save_states(self, policy_version: int) -> bool:
        """Every rank's state in the folder; False, with nothing worth keeping in it, where an
        update has been made since `policy_version`."""
        are_saved = all(self.run("write its state", LearnerRank.save_state, policy_version))
        if are_saved:
            self.collect()
        self.close()
        return are_saved

    def load_states(self) -> int:
        """Let the ranks continue from `save_states`; returns their policy version."""
        self.distribute()
        versions = self.run("load the checkpoint", LearnerRank.load_state)
        self.close()
        return versions[0]

    def save_policy(self) -> None:
        """The policy in Hugging Face form, whole or not at all. All ranks gather, rank 0 writes."""
        self.run("save the policy", LearnerRank.save_policy)
        home = self.homes[0]
        if home.folder is not None:
            partial = self.directory.with_name(f".{self.directory.name}.partial")
            shutil.rmtree(partial, ignore_errors=True)
            self.pull_all(home, partial)
            shutil.rmtree(self.directory, ignore_errors=True)
            partial.rename(self.directory)
        self.close()

    def call(
        self,
        ranks: Sequence[RemoteActor[LearnerRank]],
        method: Callable[Concatenate[LearnerRank, Arguments], Result],
        *args: Arguments.args,
        **kwargs: Arguments.kwargs,
    ) -> list[Result]:
        """The same call to several ranks, within what is left of the deadline."""
        calls = [rank.submit(method, *args, **kwargs) for rank in ranks]
        return self.wait(calls, f"move its files ({method.__name__})")

    def run(
        self,
        doing: str,
        method: Callable[Concatenate[LearnerRank, str, Arguments], Result],
        *args: Arguments.args,
        **kwargs: Arguments.kwargs,
    ) -> list[Result]:
        """Call every rank's method with its own directory first."""
        return self.wait(
            [home.rank.submit(method, self.path_for(home), *args, **kwargs) for home in self.homes],
            doing,
        )

    def wait(self, calls: Sequence[Call[Result]], doing: str) -> list[Result]:
        if self.progress is not None:
            self.end = time.monotonic() + self.deadline_s  # that a call begins is progress, too
        left_s = max(0.1, self.end - time.monotonic())
        return wait_for(
            calls, doing=doing, deadline_s=left_s, setting=self.setting, progress=self.progress
        )

    def path_for(self, home: Home) -> str:
        """The directory under the name that it has on the rank's node."""
        if home.folder is None:
            return str(self.directory)
        return f"{home.folder}/{self.directory.name}"

    @property
    def away(self) -> dict[str, list[Home]]:
        """Node -> its ranks, for the nodes that do not see the driver's folder."""
        nodes: dict[str, list[Home]] = {}
        for home in self.homes:
            if home.folder is not None:
                nodes.setdefault(home.node, []).append(home)
        return nodes

    def collect(self) -> None:
        """Bring what the ranks wrote on their nodes into the driver's folder."""
        for homes in self.away.values():
            self.pull_all(homes[0], self.directory)

    def pull_all(self, home: Home, target: Path) -> None:
        """Copy the directory of a rank's node into a folder of the driver."""
        (names,) = self.call([home.rank], LearnerRank.list_files, self.path_for(home))
        for name, size in names.items():
            source, file = f"{self.path_for(home)}/{name}", target / name
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("wb") as opened:
                for start in range(0, size, PART_BYTES):
                    (part,) = self.call(
                        [home.rank], LearnerRank.read_part, source, start, PART_BYTES
                    )
                    opened.write(part)

    def distribute(self) -> None:
        """Send each node what its ranks will read."""
        names = list(sizes_below(self.directory))
        for homes in self.away.values():
            wanted = self.call([home.rank for home in homes], LearnerRank.reads, names)
            for name in sorted(set().union(*wanted)):
                self._push(homes[0], self.directory / name)

    def close(self) -> None:
        """Delete the folders on the nodes."""
        for homes in self.away.values():
            folder = homes[0].folder
            assert folder is not None, "away"
            self.call([homes[0].rank], LearnerRank.remove_folder, folder)

    def _ask(self, ranks: Sequence[RemoteActor[LearnerRank]]) -> list[bool]:
        """Whether each rank sees the folder: a file that has just been written beside it, or, where
        nothing can be written, the files in it."""
        marker = self.directory.parent / f".{self.token}.unfinished"
        try:
            marker.write_text(self.token, encoding="utf-8")
        except OSError:
            if not (own := sizes_below(self.directory)):
                raise
            listed = self.call(ranks, LearnerRank.list_files, str(self.directory))
            return [found == own for found in listed]
        try:
            return self.call(ranks, LearnerRank.sees, str(marker), self.token)
        finally:
            marker.unlink()

    def _push(self, home: Home, file: Path) -> None:
        target = f"{self.path_for(home)}/{file.relative_to(self.directory).as_posix()}"
        with file.open("rb") as opened:
            self.call(
                [home.rank], LearnerRank.append_part, target, b""
            )  # an empty file is one, too
            while part := opened.read(PART_BYTES):
                self.call([home.rank], LearnerRank.append_part, target, part)
