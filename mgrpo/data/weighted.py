"""Draws from several sources by their weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from mgrpo.data.sampler import ShufflingSampler
from mgrpo.errors import DataError
from mgrpo.records.json_object import JsonObject
from mgrpo.types import Completion


class WeightedSampler:
    """Endless indices into the problems of several sources, each source's own reshuffled each
    time that it is through.

    After any number of draws, every source has had its share to within one draw.
    """

    def __init__(self, sources: Sequence[str], weights: Mapping[str, float], seed: int) -> None:
        """
        Args:
            sources: of every problem.
            weights: of each source, above 0.

        Raises:
            DataError: a source has no problem.
        """
        self.shares = {name: weight / sum(weights.values()) for name, weight in weights.items()}
        self.places: dict[str, list[int]] = {name: [] for name in weights}
        for place, name in enumerate(sources):
            self.places[name].append(place)
        empty = [name for name, places in self.places.items() if not places]
        if empty:
            raise DataError(f"The source {empty[0]} of data.train has no usable problem to draw.")
        self.samplers = {
            name: ShufflingSampler(len(places), seed) for name, places in self.places.items()
        }
        self.num_drawn: Counter[str] = Counter()

    def take(self, n: int) -> list[int]:
        """The next `n` indices."""
        names = [self.next_source() for _ in range(n)]
        taken = {name: iter(self.samplers[name].take(names.count(name))) for name in {*names}}
        return [self.places[name][next(taken[name])] for name in names]

    def next_source(self) -> str:
        """The source that is furthest behind its share."""
        total = self.num_drawn.total() + 1
        name = max(self.shares, key=lambda one: self.shares[one] * total - self.num_drawn[one])
        self.num_drawn[name] += 1
        return name

    def observe(self, completions: Sequence[Completion]) -> dict[str, float]:
        """Results do not change the shares."""
        return {}

    def state_dict(self) -> JsonObject:
        """Plain values for JSON."""
        return {
            "num_drawn": dict(self.num_drawn),
            "samplers": {name: one.state_dict() for name, one in self.samplers.items()},
        }

    def load_state_dict(self, state: JsonObject) -> None:
        """Continue from a `state_dict`.

        Raises:
            DataError: the state is of other sources, data or another seed.
        """
        if state["samplers"].keys() != self.samplers.keys():
            raise DataError(
                f"The checkpoint's sampler draws from {', '.join(state['samplers'])}, this run "
                f"from {', '.join(self.samplers)}. Resume with the sources of the checkpoint."
            )
        self.num_drawn = Counter(state["num_drawn"])
        for name, own in state["samplers"].items():
            self.samplers[name].load_state_dict(own)
