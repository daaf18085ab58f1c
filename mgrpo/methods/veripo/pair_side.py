"""What a completion says of the preference pair that it is one side of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal

from mgrpo.methods.veripo.settings import PairKind
from mgrpo.types import Completion

METADATA = "pair"


@dataclass(frozen=True, slots=True)
class PairSide:
    """One side of a preference pair. Travels to the learner in the completion's metadata.

    Example: PairSide("penalty", 1, -41.5)
    """

    kind: PairKind
    role: Literal[1, -1]  # 1: chosen; -1: rejected
    ref_logprob: float  # nats: the completion's, under the policy as the phase of pairs began

    def on(self, completion: Completion) -> Completion:
        """The completion as this side of a pair."""
        return replace(completion, metadata={**completion.metadata, METADATA: asdict(self)})


def side_of(completion: Completion) -> PairSide | None:
    """The side that a completion is; None where it is of no pair."""
    found = completion.metadata.get(METADATA)
    return None if found is None else PairSide(**found)


def pair_roles(completions: Sequence[Completion]) -> list[int]:
    """[completions] 1 for chosen, -1 for rejected, 0 for those of no pair."""
    return [0 if side is None else side.role for side in map(side_of, completions)]


def pair_ref_logprobs(completions: Sequence[Completion]) -> list[float]:
    """[completions] nats under the reference; 0 for those of no pair."""
    return [0.0 if side is None else side.ref_logprob for side in map(side_of, completions)]
