"""What counts as the same number.

Run twice on one machine, every number here is equal to its last digit: the processes have one
thread each. The bounds below are for code that adds up in another order, which float32 shows in
its seventh digit. They were taken from what 1, 2 and 4 ranks do to each other's numbers, each of
which lays its micro-batches out differently; a test holds them to that.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import takewhile
from typing import Any

LOSS = GRADIENT_NORM = ADVANTAGE = 1e-6
METRIC = 5e-6
PROJECTION = 5e-6
"""Of a gradient, relative to its norm; the gradient of a second optimizer step has the rounding of
the first one's weights in it."""
CHANGE = 5e-5
"""Of the weights' change, relative to its norm: weights are about 0.2, so float32 keeps a change
of 1e-3 to its fifth digit."""
AMPLIFIES = {"methods/disco": 20.0}
"""Recipes whose loss is an exponential of scores over a small temperature: gradients are tens of
times longer, and rounding of scores grows as much."""
PER_RANKS = ("learner/input_tokens",)
"""Metrics that depend on which completions are computed together."""


def differences(
    recipe: str,
    kept: list[dict[str, Any]],
    found: list[dict[str, Any]],
    *,
    same_ranks: bool = True,
) -> list[str]:
    """Everything that is not the same in the updates of a case, as lines for people."""
    if len(kept) != len(found):
        return [f"{recipe}: {len(found)} updates, {len(kept)} were recorded"]
    factor = AMPLIFIES.get(recipe, 1.0)
    return [
        f"{recipe}, update {number}: {line}"
        for number, (old, new) in enumerate(zip(kept, found, strict=True), start=1)
        for line in update_differences(old, new, factor, same_ranks=same_ranks)
    ]


def update_differences(
    kept: Mapping[str, Any], found: Mapping[str, Any], factor: float, *, same_ranks: bool
) -> Iterator[str]:
    yield from metric_differences(
        kept["metrics"], found["metrics"], factor, skipped=() if same_ranks else PER_RANKS
    )
    for name in ("selected", "advantages", "gradients"):
        if len(kept[name]) != len(found[name]):
            yield f"{len(found[name])} {name}, {len(kept[name])} were recorded"
            return
    if kept["selected"] != found["selected"]:
        yield f"selected {found['selected']}, recorded {kept['selected']}"
    for place, (old, new) in enumerate(zip(kept["advantages"], found["advantages"], strict=True)):
        yield from unlike(f"advantage of completion {place}", old, new, ADVANTAGE * factor, 1.0)
    for step, (old, new) in enumerate(zip(kept["gradients"], found["gradients"], strict=True)):
        yield from print_differences(f"gradient {step}", old, new, factor, PROJECTION)
    yield from print_differences("weights' change", kept["change"], found["change"], factor, CHANGE)


def metric_differences(
    kept: Mapping[str, Any], found: Mapping[str, Any], factor: float, *, skipped: tuple[str, ...]
) -> Iterator[str]:
    """Metrics are [sum, count]: counts are equal, sums to a share of themselves or of the count."""
    if kept.keys() != found.keys():
        yield f"metrics {sorted(kept.keys() ^ found.keys())} are only in the record or only here"
    for name in sorted((kept.keys() & found.keys()) - set(skipped)):
        (old, old_count), (new, new_count) = kept[name], found[name]
        if old_count != new_count:
            yield f"{name} is of {new_count:g}, recorded of {old_count:g}"
        tight = {"learner/loss": LOSS, "learner/grad_norm": GRADIENT_NORM}
        bound = tight.get(name, METRIC) * factor
        yield from unlike(name, old, new, bound, max(1.0, old_count))


def print_differences(
    what: str, kept: Mapping[str, Any], found: Mapping[str, Any], factor: float, bound: float
) -> Iterator[str]:
    norm = kept["norm"]
    norm_bound = GRADIENT_NORM if bound == PROJECTION else bound
    yield from unlike(f"{what}: norm", norm, found["norm"], norm_bound * factor)
    for place, (old, new) in enumerate(zip(kept["projections"], found["projections"], strict=True)):
        yield from unlike(f"{what}: projection {place}", old, new, bound * factor, norm)


def unlike(what: str, kept: float, found: float, bound: float, scale: float = 0.0) -> Iterator[str]:
    """A line where two numbers differ by more than `bound` of the larger of `scale` and `kept`,
    and by more than 1e-8."""
    allowed = bound * max(abs(kept), scale) + 1e-8
    if not abs(found - kept) <= allowed:
        yield f"{what} is {found:.10g}, recorded {kept:.10g}, off by {abs(found - kept):.2g}"


RUN = 1e-3
"""Of a run's losses and gradient norms, while the same tokens are sampled: log-probabilities from
engines whose batches form as requests come in."""
RUN_SCALE = 1e-3
"""Numbers below this may differ by 1e-6, float32's rounding of a log-probability: losses on policy
are about 0, and the engines' gap to the learner is rounding alone."""


def same_steps(kept: list[dict[str, Any]], found: list[dict[str, Any]]) -> int:
    """How many steps, from the first on, sampled the recorded tokens."""
    pairs = zip(kept, found, strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0]["tokens"] == pair[1]["tokens"], pairs))


def step_differences(kept: list[dict[str, Any]], found: list[dict[str, Any]]) -> list[str]:
    """What is not the same in a run, up to the first step that sampled other tokens."""
    if len(kept) != len(found):
        return [f"{len(found)} steps, {len(kept)} were recorded"]
    num_same = same_steps(kept, found)
    if num_same == 0:
        return ["the first step sampled other tokens"]
    lines: list[str] = []
    for number, (old, new) in enumerate(zip(kept[:num_same], found[:num_same], strict=True)):
        if old.keys() != new.keys():
            lines.append(f"step {number}: {sorted(old.keys() ^ new.keys())} is only in one of them")
        for name in sorted(old.keys() & new.keys()):
            lines += unlike(f"step {number}: {name}", old[name], new[name], RUN, RUN_SCALE)
    return lines
