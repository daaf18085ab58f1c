"""The rule for a metric's name in Prometheus.

`layer2/accuracy` becomes `mgrpo_layer_accuracy{layer="2"}`: what differs between metrics of one
meaning (a layer, a domain, an engine, a reason) is a tag, the other words are the name, joined
with "_" after `mgrpo_`. Ray puts `ray_` before every name that it exports.

A metric's row in the catalogue is a pattern in which tags are written in braces. Metrics that
no row describes, such as those of a user's own plug-in, are named by the same rule; of their
words only `layerN` is known to be a tag.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

PREFIX = "mgrpo"
EXPORTED_PREFIX = "ray_"
"""Ray's own addition to every name that it exports."""

TAG = re.compile(r"\{(\w+)\}")
ACCEPTED = {"layer": r"\d+", "layer_or_all": r"(?:layer\d+|all)", "domain": r".+", "term": r".+"}
ANYTHING = r"[^/]+"
FRACTION = "fraction"
"""The unit of shares: of 1, not of 100."""
LAYER = re.compile(r"^layer(\d+)$")


@dataclass(frozen=True)
class Family:
    """Metrics of one meaning: a row of the table of metrics.

    Example:
        accuracy = Family("layer{layer}/accuracy", "fraction", "Right answers of the layer.")
        accuracy.name                     "mgrpo_layer_accuracy"
        accuracy.match("layer2/accuracy")  {"layer": "2"}
    """

    pattern: str
    """As in metrics.jsonl, with tags in braces."""
    unit: str
    meaning: str
    is_counted: bool = False
    """A number of events in one step: a second series, the counter, adds the steps up."""
    only_when: str = ""
    """The condition for the metric to exist; empty: every run has it."""

    @cached_property
    def tags(self) -> tuple[str, ...]:
        """Tag keys, in the order of the pattern."""
        return tuple(tag_key(key) for key in TAG.findall(self.pattern))

    @cached_property
    def name(self) -> str:
        """In Ray's API; Prometheus sees `exported_name`."""
        return prometheus_name(TAG.sub("", self.pattern))

    @property
    def exported_name(self) -> str:
        return EXPORTED_PREFIX + self.name

    @property
    def counter_name(self) -> str:
        """In Ray's API, where it is a gauge: a Ray counter does not exist before its first event,
        and Prometheus does not count the event that a counter begins with."""
        return f"{self.name}_total"

    @cached_property
    def regex(self) -> re.Pattern[str]:
        parts = TAG.split(self.pattern)  # text, tag, text, tag, ..., text
        for index, part in enumerate(parts):
            is_tag = index % 2 == 1
            parts[index] = f"({ACCEPTED.get(part, ANYTHING)})" if is_tag else re.escape(part)
        return re.compile("".join(parts))

    def match(self, metric: str) -> dict[str, str] | None:
        """The tags of a metric that belongs to this family; None for another's."""
        found = self.regex.fullmatch(metric)
        if found is None:
            return None
        tags = dict(zip(self.tags, found.groups(), strict=True))
        if "layer" in tags:
            tags["layer"] = LAYER.sub(r"\1", tags["layer"])
        return tags


def tag_key(placeholder: str) -> str:
    return "layer" if placeholder == "layer_or_all" else placeholder


def prometheus_name(text: str) -> str:
    """`transition//copy_fraction` -> `mgrpo_transition_copy_fraction`: letters, digits and "_"."""
    words = re.sub(r"[^a-zA-Z0-9]+", "_", text).strip("_")
    return f"{PREFIX}_{words}" if words else PREFIX


class Names:
    """Finds the family of a metric: the first that matches."""

    def __init__(self, families: Iterable[Family]) -> None:
        self.families = list(families)
        self.taken = {family.name for family in self.families}
        self.found: dict[str, tuple[Family, dict[str, str]]] = {}

    def resolve(self, metric: str) -> tuple[Family, dict[str, str]]:
        """The family and the tags of a metric, whether the catalogue has it or not."""
        if metric not in self.found:
            self.found[metric] = self.known(metric) or self.derived(metric)
        return self.found[metric]

    def known(self, metric: str) -> tuple[Family, dict[str, str]] | None:
        """The metric's row of the catalogue and its tags; None if there is none."""
        for family in self.families:
            tags = family.match(metric)
            if tags is not None:
                return family, tags
        return None

    def derived(self, metric: str) -> tuple[Family, dict[str, str]]:
        """A family for a metric without a row in the catalogue: always with the one tag `layer`."""
        words = metric.split("/")
        layers = [match[1] for word in words if (match := LAYER.match(word))]
        rest = "/".join("layer" if LAYER.match(word) else word for word in words)
        if prometheus_name(rest) in self.taken:  # that name has other tags
            rest = f"other/{rest}"
        family = Family(f"{rest}{{layer}}", "as its plug-in has it", f"{metric}, not in the table.")
        return family, {"layer": layers[0] if layers else ""}
