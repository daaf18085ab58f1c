"""Predicts whether allocations fit on nodes, and on which. Pure: no Ray.

A prediction by Ray's own rules: a bundle is never split, labels must match, an engine stays on
one node, the learner takes as few nodes as hold it. Where several nodes would do, Ray may choose
another one of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from cluster.allocations import (
    Allocation,
    Group,
    groups_of,
    has_labels,
    labels_text,
    packing_order,
    resource_text,
    widest,
)


@dataclass(frozen=True, slots=True)
class Node:
    """One node with its resources, as Ray counts them."""

    name: str
    resources: Mapping[str, float]  # all of it, or what is free
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PlacedBundle:
    """One bundle of an allocation on its node."""

    allocation: Allocation
    bundle: int
    node: str
    gpus: tuple[int, ...]  # numbers of its GPUs on that node; () without one


@dataclass(frozen=True, slots=True)
class Fit:
    """The predicted placement, and the groups that cannot be placed."""

    placed: list[PlacedBundle]
    left_out: list[Group]


class Room:
    """The free resources of one node."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.free = dict(node.resources)
        self.next_gpu = 0

    def holds(self, bundle: Mapping[str, float]) -> bool:
        return all(self.free.get(key, 0) >= amount for key, amount in bundle.items())

    def copies(self, bundle: Mapping[str, float]) -> int:
        """Number of such bundles that still fit."""
        return min(int(self.free.get(key, 0) // amount) for key, amount in bundle.items() if amount)

    def take(self, group: Group, index: int) -> list[PlacedBundle]:
        """Room for one bundle of a group, and what that places."""
        bundle = group.bundles[index]
        for key, amount in bundle.items():
            self.free[key] -= amount
        first, self.next_gpu = self.next_gpu, self.next_gpu + int(bundle.get("GPU", 0))
        gpus = tuple(range(first, self.next_gpu))
        return [
            PlacedBundle(allocation, index - allocation.first_bundle, self.node.name, gpus)
            for allocation in group.allocations
            if 0 <= index - allocation.first_bundle < len(allocation.bundles)
        ]


def fit(allocations: Sequence[Allocation], nodes: Sequence[Node]) -> Fit:
    """Place what fits, in the order in which a run requests it.

    A group goes to the fullest node that still holds all of it. Only if there is none,
    its bundles are spread over several nodes, the emptiest first.
    """
    rooms = [Room(node) for node in nodes]
    placed: list[PlacedBundle] = []
    left_out: list[Group] = []
    for group in packing_order(groups_of(allocations)):
        chosen = rooms_for(group, rooms)
        if chosen is None:
            left_out.append(group)
            continue
        for index, room in enumerate(chosen):
            placed += room.take(group, index)
    order = {node.name: number for number, node in enumerate(nodes)}
    placed.sort(key=lambda one: (order[one.node], one.gpus, one.allocation.name, one.bundle))
    return Fit(placed, left_out)


def rooms_for(group: Group, rooms: Sequence[Room]) -> list[Room] | None:
    """A node for every bundle of a group, in order; None if not all of them fit.

    The bundles of one group are all alike.
    """
    bundle, count = group.bundles[0], len(group.bundles)
    resource = "GPU" if "GPU" in bundle else "CPU"
    allowed = [room for room in rooms if has_labels(group.labels, room.node.labels)]
    whole = [room for room in allowed if room.copies(bundle) >= count]
    if whole:
        return [min(whole, key=lambda room: room.free[resource])] * count
    chosen: list[Room] = []
    for room in sorted(allowed, key=lambda room: -room.copies(bundle)):
        chosen += [room] * min(room.copies(bundle), count - len(chosen))
    return chosen if len(chosen) == count else None


def reasons(group: Group, nodes: Sequence[Node]) -> str:
    """Why a group cannot be placed: its labels, one bundle, or the sum."""
    allowed = [node for node in nodes if has_labels(group.labels, node.labels)]
    if not allowed:
        labels = labels_text(group.labels, "no node has the labels ")
        return labels or "there is no node"
    bundle = group.bundles[0]
    for key, amount in bundle.items():
        most = max(node.resources.get(key, 0) for node in allowed)
        if most < amount:
            return f"one process needs {amount:g} {key}, and no node has more than {most:g}"
    if not any(Room(node).holds(bundle) for node in allowed):
        return f"no node has {resource_text(bundle)} together"
    resource = "GPU" if "GPU" in bundle else "CPU"
    here = sum(node.resources.get(resource, 0) for node in allowed)
    wants = f"it needs {widest(group):g} {resource}"
    return f"{wants}, and the other groups leave too few of the {here:g}"
