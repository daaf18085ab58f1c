"""Which domains to draw problems from, so that the worst mixture does not stay bad.

After group distributionally robust RL (GDR-MDP, https://arxiv.org/abs/2210.12262): latent groups
of domains, a belief over groups that follows what is observed, and the worst belief in a ball
around it. Drawing problems by that worst case is our own reconstruction; the paper has no form
for language models. Plain lists of numbers: Z groups, M domains.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

Numbers = Sequence[float]


def updated_belief(
    belief: Numbers, values: Numbers, *, is_success: bool, uniform_share: float = 0.0
) -> list[float]:
    """Bayes: b(z) * V(z) after a success, b(z) * (1 - V(z)) after a failure, normalised.

    Args:
        belief: [Z], sum 1.
        values: [Z] pass rate of each group.
        uniform_share: mixed in afterwards, so that no group is ever ruled out.
    """
    likelihoods = [value if is_success else 1 - value for value in values]
    return mixed(product(belief, likelihoods, otherwise=belief), uniform_share)


def belief_after(
    belief: Numbers, values: Numbers, *, num_successes: int, num_failures: int, uniform_share: float
) -> list[float]:
    """The belief after many observations, in logarithms so that nothing underflows."""
    logs = [
        safe_log(b) + count_log(num_successes, value) + count_log(num_failures, 1 - value)
        for b, value in zip(belief, values, strict=True)
    ]
    highest = max(logs)
    if highest == -math.inf:  # no group could have done this: nothing is learned from it
        return mixed(list(belief), uniform_share)
    raised = [math.exp(one - highest) for one in logs]
    return mixed([one / math.fsum(raised) for one in raised], uniform_share)


def worst_in_tv_ball(belief: Numbers, values: Numbers, *, radius: float) -> list[float]:
    """The belief of lowest expected value that differs in total variation by `radius` at most.

    Mass `radius` moves to the group of lowest value, taken from the one of highest value first,
    then from the next.
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
    """b(z) * exp(-V(z) / temperature), normalised: the worst case with KL divergence as the price.

    A large temperature leaves the belief as it is.
    """
    lowest = min(values)  # the highest factor is then 1
    factors = [math.exp(-(value - lowest) / temperature) for value in values]
    return product(belief, factors, otherwise=belief)


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


def hopeless_caps(belief: Numbers, is_hopeless: Sequence[bool], *, radius: float) -> list[float]:
    """[Z] at most b(z) + radius / 2 for groups in which nothing has been solved for long."""
    return [
        b + radius / 2 if hopeless else 1.0 for b, hopeless in zip(belief, is_hopeless, strict=True)
    ]


def domain_probabilities(
    worst: Numbers, mixtures: Sequence[Numbers], *, floor: float = 0.0
) -> list[float]:
    """[M] chances of drawing each domain: sum over z of worst(z) * mu_z(m), none below `floor`.

    Args:
        worst: [Z] the belief to draw by.
        mixtures: [Z][M] domains of each group, each row sum 1.
        floor: domains below it are raised to it, and the others give that in proportion.

    Raises:
        ValueError: the floor is more than all domains could have.
    """
    num_domains = len(mixtures[0])
    if floor * num_domains > 1:
        raise ValueError(f"{num_domains} domains cannot have {floor:g} each: that is more than 1.")
    found = [
        math.fsum(share * mixture[m] for share, mixture in zip(worst, mixtures, strict=True))
        for m in range(num_domains)
    ]
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


def expected_value(belief: Numbers, values: Numbers) -> float:
    return math.fsum(b * value for b, value in zip(belief, values, strict=True))


class RobustMixture:
    """Follows pass rates and says with which chances to draw each domain next."""

    def __init__(
        self,
        domains: Sequence[str],
        mixtures: Sequence[Numbers],
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
            mixtures: [Z][M] domains of each group; the identity makes each domain a group.
            nominal: [Z] shares of the groups in the data: what the ball is around.
            radius: of the ball, in total variation.
            floor: least chance of a domain.
            decay: of the running pass rates.
            hopeless_steps: a group with pass rate 0 for so many observations is held back.
        """
        self.domains, self.mixtures, self.nominal = list(domains), mixtures, list(nominal)
        self.radius, self.floor, self.decay = radius, floor, decay
        self.hopeless_steps = hopeless_steps
        self.values: list[float | None] = [None] * len(self.nominal)  # None: not seen yet
        self.num_steps_at_zero = [0] * len(self.nominal)

    def observe(self, pass_rates: dict[str, float]) -> None:
        """Take in one step's pass rate of every domain that was drawn."""
        for z, mixture in enumerate(self.mixtures):
            seen = [
                (mixture[m], pass_rates[name])
                for m, name in enumerate(self.domains)
                if name in pass_rates and mixture[m] > 0
            ]
            if not seen:
                continue
            rate = math.fsum(w * r for w, r in seen) / math.fsum(w for w, _ in seen)
            before = self.values[z]
            self.values[z] = (
                rate if before is None else self.decay * before + (1 - self.decay) * rate
            )
            self.num_steps_at_zero[z] = self.num_steps_at_zero[z] + 1 if rate == 0 else 0

    def probabilities(self) -> dict[str, float]:
        """Chance of each domain; the nominal ones until every group has been seen."""
        belief = self.nominal
        known = [value for value in self.values if value is not None]
        if len(known) == len(self.values):
            worst = worst_in_tv_ball(belief, known, radius=self.radius)
            is_hopeless = [count >= self.hopeless_steps for count in self.num_steps_at_zero]
            belief = capped(worst, hopeless_caps(belief, is_hopeless, radius=self.radius))
        chances = domain_probabilities(belief, self.mixtures, floor=self.floor)
        return dict(zip(self.domains, chances, strict=True))

    def state_dict(self) -> dict[str, Any]:
        """Plain values, fit for JSON."""
        return {
            "values": list(self.values),
            "num_steps_at_zero": list(self.num_steps_at_zero),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.values = list(state["values"])
        self.num_steps_at_zero = list(state["num_steps_at_zero"])


def product(shares: Numbers, factors: Numbers, *, otherwise: Numbers) -> list[float]:
    """shares * factors, normalised; `otherwise` where everything is 0."""
    raised = [share * factor for share, factor in zip(shares, factors, strict=True)]
    total = math.fsum(raised)
    return list(otherwise) if total == 0 else [one / total for one in raised]


def mixed(belief: list[float], uniform_share: float) -> list[float]:
    """Some of the uniform distribution mixed in."""
    return [(1 - uniform_share) * b + uniform_share / len(belief) for b in belief]


def safe_log(value: float) -> float:
    return math.log(value) if value > 0 else -math.inf


def count_log(count: int, chance: float) -> float:
    """log(chance ** count)."""
    return 0.0 if count == 0 else count * safe_log(chance)
