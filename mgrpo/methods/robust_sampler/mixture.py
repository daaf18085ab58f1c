"""Which domains to draw problems from, so that the worst mixture does not stay bad.

After group distributionally robust RL (GDR-MDP, https://arxiv.org/abs/2210.12262): latent groups
that draw domains with chances of their own, a belief over the groups that may follow what is
observed, and the worst belief in a ball around it. Drawing problems by that worst case is our
reconstruction; the paper has no form for language models. Plain lists of numbers: Z groups, M
domains.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, Field, FiniteFloat, NonNegativeInt, PositiveFloat, PositiveInt

from mgrpo.config.base import OnlyWith, StrictConfig
from mgrpo.records.json_object import JsonObject

Numbers = Sequence[float]
MAX_ITERATIONS = 1000
"""Of the belief that fits the data; each is Z times M sums."""


class RobustSamplerSettings(StrictConfig):
    """Keys of robust."""

    ball: Literal["tv", "kl"] = "tv"
    """Which beliefs are near: tv, by total variation; kl, by their divergence, which costs."""
    radius: Annotated[float, Field(ge=0, le=1), OnlyWith(ball="tv")] = 0.2
    """Share of the draws that is moved from the best groups to the worst."""
    temperature: Annotated[PositiveFloat, OnlyWith(ball="kl")] = 0.5
    """The price of divergence: a group's share is multiplied by exp(- pass rate / temperature)."""
    groups: dict[str, dict[str, PositiveFloat]] = Field(default_factory=dict)
    """Latent groups: by name, how often each draws the data's domains, relative to each other. {}:
    each domain is a group."""
    belief: Literal["data", "adaptive"] = "data"
    """What the ball is around: data, how the training data is mixed; adaptive, a belief that begins
    there and follows the outcomes of first attempts by Bayes' rule."""
    evidence: Annotated[PositiveFloat, OnlyWith(belief="adaptive")] = 1.0
    """How many observations the outcomes of a step count for."""
    forgetting: Annotated[float, Field(gt=0, le=1), OnlyWith(belief="adaptive")] = 0.01
    """Share of the uniform belief that each step mixes in, so that no group is ever ruled out."""
    floor: float = Field(default=0.02, ge=0, le=1)
    """Minimum probability of a domain."""
    decay: float = Field(default=0.9, ge=0, lt=1)
    """Of the running pass rates."""
    hopeless_steps: PositiveInt = 50
    """A group that was never solved in so many steps is drawn with at most its belief, in a ball of
    tv plus half of the radius, until it is solved."""


def worst_in_tv_ball(belief: Numbers, values: Numbers, *, radius: float) -> list[float]:
    """The belief of lowest expected value that differs in total variation by `radius` at most.

    Mass `radius` moves to the group of lowest value, taken from the one of highest value first,
    then from the next.

    Args:
        belief: [Z], sum 1: what the ball is around.
        values: [Z] pass rates.
    """
    worst = list(belief)
    order = sorted(range(len(worst)), key=lambda z: -values[z])
    lowest = order[-1]
    left = radius
    for z in order[:-1]:
        moved = min(left, worst[z])
        worst[z] -= moved
        worst[lowest] += moved
        left -= moved
    return worst


def worst_in_kl_ball(belief: Numbers, values: Numbers, *, temperature: float) -> list[float]:
    """b(z) exp(-V(z) / temperature), normalised: the belief b' that minimises its expected value
    plus temperature KL(b' || b).

    A large temperature leaves the belief as it is.
    """
    lowest = min(values)  # its factor is 1, so not all can be 0
    return normalised(
        [
            b * math.exp((lowest - value) / temperature)
            for b, value in zip(belief, values, strict=True)
        ],
        otherwise=belief,
    )


def updated_belief(
    belief: Numbers, values: Numbers, *, right: float, evidence: float = 1.0, forgetting: float
) -> list[float]:
    """Bayes: b(z) V(z) after a success, b(z) (1 - V(z)) after a failure, normalised.

    Args:
        belief: [Z], sum 1.
        values: [Z] pass rate of each group.
        right: share of successes among what was observed, which counts as `evidence` observations.
        forgetting: share of the uniform belief that is mixed in.
    """
    logs = [
        xlogy(1.0, b) + evidence * (xlogy(right, value) + xlogy(1 - right, 1 - value))
        for b, value in zip(belief, values, strict=True)
    ]
    highest = max(logs)
    if highest == -math.inf:  # no group could have done this: nothing is learned from it
        found = list(belief)
    else:
        found = normalised([math.exp(one - highest) for one in logs], otherwise=belief)
    return [(1 - forgetting) * b + forgetting / len(found) for b in found]


def fitting_belief(shares: Numbers, groups: Sequence[Numbers]) -> list[float]:
    """[Z] the belief under which domains are most likely to have these shares: expectation and
    maximisation from the uniform one. Where each domain is a group, these are the shares.

    Args:
        shares: [M] of the domains in the data.
        groups: [Z][M] how each group draws domains, each row with sum 1.
    """
    belief = [1 / len(groups)] * len(groups)
    for _ in range(MAX_ITERATIONS):
        drawn = domain_shares(belief, groups)
        found = [
            math.fsum(
                share * (b * group[m] / drawn[m]) for m, share in enumerate(shares) if drawn[m] > 0
            )
            for b, group in zip(belief, groups, strict=True)
        ]
        change = max(abs(one - other) for one, other in zip(found, belief, strict=True))
        belief = found
        if change < 1e-12:
            break
    return belief


def domain_shares(belief: Numbers, groups: Sequence[Numbers]) -> list[float]:
    """[M] how often each domain is drawn: the sum over groups z of b(z) mu_z(m)."""
    return [
        math.fsum(b * group[m] for b, group in zip(belief, groups, strict=True))
        for m in range(len(groups[0]))
    ]


def capped(worst: Numbers, caps: Numbers) -> list[float]:
    """No group above its cap; what is cut off goes to the others in proportion to their share.

    Where all groups are at their caps, the rest is spread by the caps.
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


def hopeless_caps(belief: Numbers, is_hopeless: Sequence[bool], *, margin: float) -> list[float]:
    """[Z] at most b(z) + margin for groups in which nothing has been solved for long."""
    return [
        b + margin if hopeless else 1.0 for b, hopeless in zip(belief, is_hopeless, strict=True)
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


def normalised(values: Numbers, *, otherwise: Numbers) -> list[float]:
    """With sum 1; `otherwise` where all are 0."""
    total = math.fsum(values)
    return list(otherwise) if total == 0 else [one / total for one in values]


def xlogy(x: float, y: float) -> float:
    """x log y, 0 where x is 0."""
    if x == 0:
        return 0.0
    return x * math.log(y) if y > 0 else -math.inf


Chance = Annotated[FiniteFloat, Field(ge=0, le=1)]


class MixtureState(BaseModel, strict=True):
    """What a checkpoint keeps of a mixture."""

    values: list[Chance | None]
    num_steps_at_zero: list[NonNegativeInt]
    belief: list[Annotated[FiniteFloat, Field(ge=0)]]


class RobustMixture:
    """Follows pass rates and says with which chances to draw each domain next."""

    def __init__(
        self,
        domains: Sequence[str],
        shares: Numbers,
        groups: Sequence[Numbers],
        settings: RobustSamplerSettings,
    ) -> None:
        """
        Args:
            domains: [M] names.
            shares: [M] of the domains in the data.
            groups: [Z][M] how each group draws domains, each row with sum 1.
        """
        self.domains, self.shares, self.groups = list(domains), list(shares), groups
        self.settings = settings
        self.belief = fitting_belief(shares, groups)
        self.values: list[float | None] = [None] * len(groups)  # None: not seen yet
        self.num_steps_at_zero = [0] * len(groups)

    @property
    def known_values(self) -> list[float] | None:
        """[Z] running pass rates; None until every group has been seen."""
        known = [value for value in self.values if value is not None]
        return known if len(known) == len(self.values) else None

    def observe(self, outcomes: Mapping[str, Sequence[bool]]) -> None:
        """Take in whether each first attempt of a step was right, by domain."""
        own, known = self.settings, self.known_values
        everything = [right for some in outcomes.values() for right in some]
        if own.belief == "adaptive" and known is not None and everything:
            self.belief = updated_belief(
                self.belief,
                known,
                right=sum(everything) / len(everything),
                evidence=own.evidence,
                forgetting=own.forgetting,
            )
        pass_rates = {name: sum(some) / len(some) for name, some in outcomes.items() if some}
        for z, group in enumerate(self.groups):
            seen = [
                (share, pass_rates[name])
                for name, share in zip(self.domains, group, strict=True)
                if name in pass_rates and share > 0
            ]
            if not seen:
                continue
            rate = math.fsum(w * r for w, r in seen) / math.fsum(w for w, _ in seen)
            before = self.values[z]
            self.values[z] = rate if before is None else own.decay * before + (1 - own.decay) * rate
            self.num_steps_at_zero[z] = self.num_steps_at_zero[z] + 1 if rate == 0 else 0

    def probabilities(self) -> dict[str, float]:
        """Chance of each domain; its share of the data until every group has been seen."""
        own, shares = self.settings, self.shares
        if (values := self.known_values) is not None:
            if own.ball == "tv":
                worst = worst_in_tv_ball(self.belief, values, radius=own.radius)
            else:
                worst = worst_in_kl_ball(self.belief, values, temperature=own.temperature)
            is_hopeless = [count >= own.hopeless_steps for count in self.num_steps_at_zero]
            margin = own.radius / 2 if own.ball == "tv" else 0.0
            belief = capped(worst, hopeless_caps(self.belief, is_hopeless, margin=margin))
            shares = domain_shares(belief, self.groups)
        return dict(zip(self.domains, floored(shares, own.floor), strict=True))

    def state_dict(self) -> JsonObject:
        """Plain values, fit for JSON."""
        return {
            "values": list(self.values),
            "num_steps_at_zero": list(self.num_steps_at_zero),
            "belief": list(self.belief),
        }

    def load_state_dict(self, state: JsonObject) -> None:
        """Continue from a `state_dict`.

        Raises:
            ValueError: it is of another form, or of other groups.
        """
        kept = MixtureState.model_validate(state)
        lengths = {len(kept.values), len(kept.num_steps_at_zero), len(kept.belief)}
        if lengths != {len(self.groups)}:
            raise ValueError(f"the mixture has not the {len(self.groups)} groups of the recipe")
        if not math.isclose(math.fsum(kept.belief), 1, abs_tol=1e-6):
            raise ValueError(f"the mixture's belief {kept.belief} has another sum than 1")
        self.values, self.num_steps_at_zero = kept.values, kept.num_steps_at_zero
        self.belief = kept.belief
