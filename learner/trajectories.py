"""Trajectories: a first attempt and the turns that follow on it, one after the other.

A chain of layers in which each later one writes a single completion of a parent (`group_size: 1`)
samples what a policy would write in one pass: solution, verification, solution, ... Each turn
is a completion of its own here, whose `group_key` names the turn before it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from learner.columns import StepBatch
from learner.other_prompts import root_of
from mgrpo.config import MethodView
from mgrpo.config.layers import later_layers
from mgrpo.errors import ConfigFault, Faults, must_be
from mgrpo.types import Completion


def trajectories(batch: StepBatch) -> dict[str, list[int]]:
    """By the first attempt's id, places of a trajectory's turns, first to last."""
    found: dict[str, list[int]] = defaultdict(list)
    for place, one in enumerate(batch.completions):
        found[root_of(one, batch.parents).completion_id].append(place)
    return {
        first: sorted(places, key=lambda place: batch.completions[place].layer)
        for first, places in found.items()
    }


def last_answer(batch: StepBatch, places: list[int]) -> int:
    """The place of a trajectory's last turn that is an answer, and no verification."""
    return [place for place in places if batch.completions[place].accepts is None][-1]


def turns_before(one: Completion, parents: Mapping[str, Completion]) -> list[Completion]:
    """The turns that a completion has read, first to last."""
    found: list[Completion] = []
    before = parents.get(one.group_key)
    while before is not None:
        found.insert(0, before)
        before = parents.get(before.group_key)
    return found


def trajectory_faults(layers: frozenset[int], method: MethodView) -> Faults:
    """What keeps a chain from sampling trajectories whose turns are learned from together."""
    if len(layers) < len(method.layers) or len(layers) < 2:
        why = "is of whole trajectories: of all layers, and of two or more."
        yield ConfigFault("(layers)", str(sorted(layers)), why, "Have it in every layer.")
    for depth, layer in enumerate(later_layers(method.layers), start=1):
        why, path = "is of trajectories, which do not branch.", f"(layers.{depth}.group_size)"
        yield from must_be(path, layer.group_size, 1, why, "Use 1, and group_by: query.")
    why = "is of whole trajectories, and an update has turns of one layer."
    order = method.objective.update_order.type
    yield from must_be("(objective.update_order)", order, "joint", why)
