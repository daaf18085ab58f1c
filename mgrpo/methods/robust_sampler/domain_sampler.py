"""Draws problems by domain, more from where the policy fails (see mixture.py)."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence

from mgrpo.data.sampler import ShufflingSampler
from mgrpo.errors import DataError
from mgrpo.methods.robust_sampler.mixture import RobustMixture, RobustSamplerSettings
from mgrpo.records.json_object import JsonObject
from mgrpo.types import Completion


class DomainSampler:
    """Endless indices into the problems: a domain is drawn, then its next problem."""

    def __init__(self, domains: Sequence[str], config: RobustSamplerSettings, seed: int) -> None:
        """
        Args:
            domains: of every problem.
        """
        self.places: dict[str, list[int]] = {}
        for place, domain in enumerate(domains):
            self.places.setdefault(domain, []).append(place)
        names = sorted(self.places)
        if len(names) < 2:
            raise DataError(
                f"data.sampler: robust draws by domain, and the data has only "
                f"{', '.join(names) or 'none'}. Leave it out, or set the source's domain_field."
            )
        self.seed = seed
        self.num_draws = 0
        self.group_names = list(config.groups) or (names if config.belief == "adaptive" else [])
        self.samplers = {
            name: ShufflingSampler(len(places), seed) for name, places in self.places.items()
        }
        shares = [len(self.places[name]) / len(domains) for name in names]
        self.mixture = RobustMixture(names, shares, groups_of(names, config.groups), config)

    def take(self, n: int) -> list[int]:
        """The next `n` indices, drawn by the present chances."""
        rng = random.Random(f"{self.seed}/domains/{self.num_draws}")
        self.num_draws += 1
        chances = self.mixture.probabilities()
        drawn = rng.choices(list(chances), weights=list(chances.values()), k=n)
        return [self.places[name][self.samplers[name].take(1)[0]] for name in drawn]

    def observe(self, completions: Sequence[Completion]) -> dict[str, float]:
        """Take in a step's first attempts; returns the chances of the next draw by domain, and the
        belief by group where the recipe has groups or an adaptive belief."""
        outcomes: dict[str, list[bool]] = {}
        for one in completions:
            if one.layer == 1 and one.reward is not None and one.reward.is_usable:
                outcomes.setdefault(one.domain, []).append(one.is_correct)
        self.mixture.observe(outcomes)
        chances = self.mixture.probabilities()
        found = {f"sampler/{name}": chance for name, chance in chances.items()}
        if self.group_names:
            beliefs = zip(self.group_names, self.mixture.belief, strict=True)
            found |= {f"sampler_belief/{name}": belief for name, belief in beliefs}
        return found

    def state_dict(self) -> JsonObject:
        """Plain values, fit for JSON."""
        return {
            "num_draws": self.num_draws,
            "mixture": self.mixture.state_dict(),
            "samplers": {name: one.state_dict() for name, one in self.samplers.items()},
        }

    def load_state_dict(self, state: JsonObject) -> None:
        """Continue where `state_dict` was taken.

        Raises:
            DataError: the state is of other data or another seed.
        """
        if state["samplers"].keys() != self.samplers.keys():
            raise DataError(
                f"The checkpoint's sampler draws from {', '.join(sorted(state['samplers']))}, this "
                f"run from {', '.join(sorted(self.samplers))}. Resume with the checkpoint's data."
            )
        self.num_draws = int(state["num_draws"])
        self.mixture.load_state_dict(state["mixture"])
        for name, own in state["samplers"].items():
            self.samplers[name].load_state_dict(own)


def groups_of(
    domains: Sequence[str], groups: Mapping[str, Mapping[str, float]]
) -> list[list[float]]:
    """[Z][M] how each group draws the domains, each row with sum 1; without groups each domain is
    one.

    Raises:
        DataError: a group names a domain that the data has not, or none names one that it has.
    """
    if not groups:
        return [[float(name == other) for other in domains] for name in domains]
    in_data = f"The data's domains: {', '.join(domains)}."
    for group, own in groups.items():
        if unknown := sorted(own.keys() - set(domains)):
            raise DataError(f"data.sampler.groups.{group} has {', '.join(unknown)}. {in_data}")
    if left := [name for name in domains if not any(name in own for own in groups.values())]:
        raise DataError(f"data.sampler.groups: no group has {', '.join(left)}. {in_data}")
    return [
        [own.get(name, 0.0) / math.fsum(own.values()) for name in domains]
        for own in groups.values()
    ]
