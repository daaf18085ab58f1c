"""Which domains to draw problems from, so that the worst mixture does not stay bad.

After group distributionally robust RL (GDR-MDP, https://arxiv.org/abs/2210.12262): draw by the
worst mixture of groups in a ball. Of the paper only that is here: every domain is a group of its
own, which is known, and the ball stands around the data's own mixture, so there are no latent
groups and no belief over them. Drawing problems by the worst case is our reconstruction; the paper
has no form for language models. Plain lists of numbers: M domains.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

from pydantic import BaseModel, Field, FiniteFloat, NonNegativeInt

from mgrpo.records.json_object import JsonObject

Numbers = Sequence[float]


def worst_in_tv_ball(shares: Numbers, values: Numbers, *, radius: float) -> list[float]:
    """The mixture of lowest expected value that differs in total variation by `radius` at most.

    Mass `radius` moves to the domain of lowest value, taken from the one of highest value first,
    then from the next.

    Args:
        shares: [M], sum 1: what the ball is around.
        values: [M] pass rates.
    """
    worst = list(shares)
    order = sorted(range(len(worst)), key=lambda m: -values[m])
    lowest = order[-1]
    left = radius
    for m in order[:-1]:
        moved = min(left, worst[m])
        worst[m] -= moved
        worst[lowest] += moved
        left -= moved
    return worst


def capped(worst: Numbers, caps: Numbers) -> list[float]:
    """No domain above its cap; what is cut off goes to the others in proportion to their share.

    Where all domains are at their caps, the rest is spread by the caps.
    """
    kept = [min(share, cap) for share, cap in zip(worst, caps, strict=True)]
    for _ in kept:  # raising the others may lift one of them above its own cap
        excess = 1 - math.fsum(kept)
        room = [0.0 if share >= cap else share for share, cap in zip(kept, caps, strict=True)]
        if excess <= 0 or math.fsum(room) == 0:
            break
        kept = [
            min(share + excess * own / math.fsum(room), cap)
            for share, own, cap in zip(kept, room, caps, strict=True)
        ]
    return [share / math.fsum(kept) for share in kept]


def hopeless_caps(shares: Numbers, is_hopeless: Sequence[bool], *, radius: float) -> list[float]:
    """[M] at most share + radius / 2 for domains in which nothing has been solved for long."""
    return [
        share + radius / 2 if hopeless else 1.0
        for share, hopeless in zip(shares, is_hopeless, strict=True)
    ]


def floored(chances: Numbers, floor: float) -> list[float]:
    """[M] domains below the floor are raised to it, and the others give that in proportion.

    Raises:
        ValueError: the floor is more than all domains could have.
    """
    if floor * len(chances) > 1:
        raise ValueError(f"{len(chances)} domains cannot have {floor:g} each: that is more than 1.")
    found = list(chances)
    while True:
        is_low = [chance <= floor for chance in found]
        high = math.fsum(c for c, low in zip(found, is_low, strict=True) if not low)
        rest = 1 - floor * sum(is_low)
        raised = [
            floor if low else chance * rest / high
            for chance, low in zip(found, is_low, strict=True)
        ]
        if all(chance >= floor - 1e-15 for chance in raised):
            return raised
        found = raised


class MixtureState(BaseModel, strict=True):
    """What a checkpoint keeps of a mixture."""

    values: list[Annotated[FiniteFloat, Field(ge=0, le=1)] | None]
    num_steps_at_zero: list[NonNegativeInt]


class RobustMixture:
    """Follows pass rates and says with which chances to draw each domain next."""

    def __init__(
        self,
        domains: Sequence[str],
        nominal: Numbers,
        *,
        radius: float = 0.2,
        floor: float = 0.02,
        decay: float = 0.9,
        hopeless_steps: int = 50,
    ) -> None:
        """
        Args:
            domains: [M] names.
            nominal: [M] shares of the domains in the data: what the ball is around.
            radius: of the ball, in total variation.
            floor: least chance of a domain.
            decay: of the running pass rates.
            hopeless_steps: a domain with pass rate 0 for so many observations is held back.
        """
        self.domains, self.nominal = list(domains), list(nominal)
        self.radius, self.floor, self.decay = radius, floor, decay
        self.hopeless_steps = hopeless_steps
        self.values: list[float | None] = [None] * len(self.domains)  # None: not seen yet
        self.num_steps_at_zero = [0] * len(self.domains)

    def observe(self, pass_rates: dict[str, float]) -> None:
        """Take in one step's pass rate of every domain that was drawn."""
        for m, name in enumerate(self.domains):
            if name not in pass_rates:
                continue
            rate, before = pass_rates[name], self.values[m]
            self.values[m] = (
                rate if before is None else self.decay * before + (1 - self.decay) * rate
            )
            self.num_steps_at_zero[m] = self.num_steps_at_zero[m] + 1 if rate == 0 else 0

    def probabilities(self) -> dict[str, float]:
        """Chance of each domain; the nominal ones until every domain has been seen."""
        shares = self.nominal
        known = [value for value in self.values if value is not None]
        if len(known) == len(self.values):
            worst = worst_in_tv_ball(shares, known, radius=self.radius)
            is_hopeless = [count >= self.hopeless_steps for count in self.num_steps_at_zero]
            shares = capped(worst, hopeless_caps(shares, is_hopeless, radius=self.radius))
        return dict(zip(self.domains, floored(shares, self.floor), strict=True))

    def state_dict(self) -> JsonObject:
        """Plain values, fit for JSON."""
        return {
            "values": list(self.values),
            "num_steps_at_zero": list(self.num_steps_at_zero),
        }

    def load_state_dict(self, state: JsonObject) -> None:
        """Continue from a `state_dict`.

        Raises:
            ValueError: it is of another form, or of other domains.
        """
        kept = MixtureState.model_validate(state)
        if not len(kept.values) == len(kept.num_steps_at_zero) == len(self.domains):
            raise ValueError(f"the mixture has not the {len(self.domains)} domains of the data")
        self.values, self.num_steps_at_zero = kept.values, kept.num_steps_at_zero
