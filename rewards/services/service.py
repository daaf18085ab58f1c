"""What answers for a term, in the term's own process."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

from mgrpo.config.services import HttpTerm, JudgeTerm, ModelTerm, ServiceTerm
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


def open_service(term: ServiceTerm) -> Service:
    """The service of a term; each kind imports what it needs.

    Raises:
        RewardError: it cannot be used.
    """
    if isinstance(term, HttpTerm):
        from rewards.services.http_reward import HttpReward

        return HttpReward(term)
    if isinstance(term, JudgeTerm):
        from rewards.services.judge import Judge

        return Judge(term)
    assert isinstance(term, ModelTerm), term
    from rewards.services.reward_model import RewardModel

    return RewardModel(term)
