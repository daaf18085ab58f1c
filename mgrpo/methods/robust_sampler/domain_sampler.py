"""Draws problems by domain, more from where the policy fails (see mixture.py)."""

from __future__ import annotations

import random
from collections.abc import Sequence

from pydantic import Field, PositiveInt

from mgrpo.config.base import StrictConfig
from mgrpo.data.sampler import ShufflingSampler
from mgrpo.errors import DataError
from mgrpo.methods.robust_sampler.mixture import RobustMixture
from mgrpo.records.json_object import JsonObject
from mgrpo.types import Completion


class RobustSamplerSettings(StrictConfig):
    """Keys of robust."""

    radius: float = Field(default=0.2, ge=0, le=1)
    """Share of the draws that is moved from the best domains to the worst."""
    floor: float = Field(default=0.02, ge=0, le=1)
    """Minimum probability of a domain."""
    decay: float = Field(default=0.9, ge=0, lt=1)
    """Of the running pass rates."""
    hopeless_steps: PositiveInt = 50
    """A domain that was never solved in so many steps is drawn with at most its share of the data
    plus half of the radius, until it is solved."""


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
        self.samplers = {
            name: ShufflingSampler(len(places), seed) for name, places in self.places.items()
        }
        self.mixture = RobustMixture(
            names,
            [len(self.places[name]) / len(domains) for name in names],
            radius=config.radius,
            floor=config.floor,
            decay=config.decay,
            hopeless_steps=config.hopeless_steps,
        )

    def take(self, n: int) -> list[int]:
        """The next `n` indices, drawn by the present chances."""
        rng = random.Random(f"{self.seed}/domains/{self.num_draws}")
        self.num_draws += 1
        chances = self.mixture.probabilities()
        drawn = rng.choices(list(chances), weights=list(chances.values()), k=n)
        return [self.places[name][self.samplers[name].take(1)[0]] for name in drawn]

    def observe(self, completions: Sequence[Completion]) -> dict[str, float]:
        """Take in a step's first attempts; returns the chances of the next draw, by domain."""
        correctness: dict[str, list[bool]] = {}
        for one in completions:
            if one.layer == 1 and one.reward is not None and one.reward.is_usable:
                correctness.setdefault(one.domain, []).append(one.is_correct)
        self.mixture.observe({name: sum(own) / len(own) for name, own in correctness.items()})
        return self.mixture.probabilities()

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
