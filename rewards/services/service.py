"""What answers for a term, in the term's own process."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

from rewards.conventions import Group
from rewards.score import Outcome

Progress = Callable[[], None]


class ServiceFailure(Exception):
    """The service did not answer as it must; for the detail of a reward."""


class ServiceTimeout(ServiceFailure):
    """It did not answer in time."""


class Service(ABC):
    """Scores groups of completions; many groups are in it at a time."""

    @abstractmethod
    async def score(self, group: Group, on_progress: Progress) -> list[Outcome]:
        """What the term says of each completion: [len(group.texts)].

        Args:
            on_progress: called after every part of the work.
        """
