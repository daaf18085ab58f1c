"""Reserves the allocations of a run: one placement group per engine and one for the learner.

Engines come and go one by one, so each has a group of its own, unless the recipe puts engines
and learner on the same GPUs (`cluster.colocate`): then there is one group for all. A group that
cannot be reserved is an error that compares demand and supply, never a silent wait (verl#6663).
"""

from __future__ import annotations

from functools import partial
from typing import TypeVar

import ray
from ray.util.placement_group import (
    PlacementGroup,
    placement_group,
    placement_group_table,
    remove_placement_group,
)
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from cluster.allocations import (
    Allocation,
    Group,
    groups_of,
    labels_text,
    packing_order,
    resource_text,
    total,
)
from cluster.node_probes import NodeProbes
from cluster.own_ray import what_is_lost
from cluster.progress_board import LOOK_S, Patience
from cluster.remote import LOOKS, RemoteActor, errors_of_signals
from cluster.vllm_build import choose_device, installed_build
from mgrpo.config.cluster import ClusterConfig
from mgrpo.errors import DeadlineError, PlacementError

Instance = TypeVar("Instance")


class Placement:
    """The granted placement groups of one run.

    Args:
        groups: by name.
        can_grow: whether new nodes may appear; a local Ray gets none.
    """

    def __init__(self, groups: dict[str, PlacementGroup], *, can_grow: bool) -> None:
        self.groups = groups
        self.can_grow = can_grow
        # By allocation: a reference that is ready once the group is granted.
        self.grants: dict[str, ray.ObjectRef] = {}
        self.probes: dict[str, NodeProbes] = {}  # by allocation

    @classmethod
    def reserve(
        cls, allocations: list[Allocation], *, deadline_s: float, can_grow: bool
    ) -> Placement:
        """Reserve all allocations or none.

        Args:
            allocations: from `cluster.allocations.plan_allocations`.
            deadline_s: longest time in which none of them is granted and no node joins.
            can_grow: whether new nodes may appear; else what does not fit fails at once.

        Raises:
            PlacementError: with what was asked and what each node has.
        """
        if not can_grow:
            refuse_too_few(allocations, "the cluster's total resources are too few")
        groups: dict[str, PlacementGroup] = {}
        placed = Placed()
        patience = Patience(deadline_s, placed)
        for asked in packing_order(groups_of(allocations)):  # all before the first wait, to be seen
            groups[asked.name] = ask_for(asked, asked.name)
        for name, group in groups.items():
            while not is_placed(group):
                if patience.left_s() > 0:
                    continue
                message = describe_shortage(
                    allocations, f"{name} was not placed within {deadline_s:g} s. {placed.said()}"
                )
                for taken in groups.values():
                    remove_placement_group(taken)
                raise PlacementError(message)
            placed.num_groups += 1
        return cls(groups, can_grow=can_grow)

    def ask(self, allocation: Allocation, name: str) -> None:
        """Request an allocation without waiting; a pending request is visible to an autoscaler.

        Args:
            allocation: with a group of its own, which was released or never requested.
            name: of the group, unlike those that came before: Ray forgets names late.
        """
        (asked,) = groups_of([allocation])
        group = self.groups[allocation.group] = ask_for(asked, name)
        self.grants[allocation.name] = group.ready()

    def is_granted(self, allocation: Allocation) -> bool:
        """Whether the allocation has been granted. Does not wait."""
        grant = self.grants.get(allocation.name)  # none: taken by `reserve`, which waited
        if grant is None:
            return True
        with errors_of_signals():
            return bool(ray.wait([grant], timeout=0)[0])

    def node_of(self, allocation: Allocation) -> str:
        """The address of the node that a granted allocation's first bundle is on; "" if unknown."""
        nodes = {node["NodeID"]: str(node["NodeManagerAddress"]) for node in ray.nodes()}
        return nodes.get(self.node_ids_of(allocation)[0], "")

    def is_whole(self, allocation: Allocation) -> bool:
        """Whether all nodes of a granted allocation live, so that it can be used again.

        A new one may wait long: where the clock was set back, Ray grants none until it has
        caught up.
        """
        alive = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
        return alive.issuperset(self.node_ids_of(allocation))

    def nodes_are_known(self, allocation: Allocation) -> bool:
        """Whether each node of an allocation answers or, as Ray knows, is dead. Does not wait.

        The first call asks the nodes; once they are known, the next one asks again.

        Raises:
            PlacementError: they are dead, and a local Ray gets no others.
        """
        self.refuse_lost_node(allocation)
        if not self.probes_of(allocation).are_known():
            return False
        self.forget_probes(allocation)
        return True

    def await_nodes(self, allocation: Allocation, *, deadline_s: float, setting: str) -> None:
        """Wait until `nodes_are_known`.

        Raises:
            DeadlineError: none answered or was found dead within `deadline_s`; names `setting`.
            PlacementError: they are dead, and a local Ray gets no others.
        """
        probes = self.probes_of(allocation)
        patience = Patience(deadline_s, probes)
        while not probes.are_known(timeout_s=LOOK_S):
            self.refuse_lost_node(allocation)
            if patience.left_s() <= 0:
                raise DeadlineError(
                    f"the nodes of {allocation.name}",
                    deadline_s=deadline_s,
                    setting=setting,
                    detail=patience.detail,
                )
        self.forget_probes(allocation)

    def explain_wait(self, allocations: list[Allocation]) -> str:
        """What engines without a process wait for: their nodes' answers, or else resources."""
        asked = [self.probes[one.name] for one in allocations if one.name in self.probes]
        if asked or not allocations:
            return " ".join(probes.said() for probes in asked)
        return describe_shortage(allocations, "an engine cannot be placed")

    def forget_probes(self, allocation: Allocation) -> None:
        """Its nodes are known now."""
        del self.probes[allocation.name]
        self.refuse_lost_node(allocation)
        if not self.can_grow:
            why = "its node is lost, and a local Ray gets no other; repeat the command to resume"
            refuse_too_few([allocation], why)

    def refuse_lost_node(self, allocation: Allocation) -> None:
        """Raise PlacementError if a local Ray's own processes are gone, known to Ray or not."""
        if lost := what_is_lost():
            raise PlacementError(
                f"{allocation.name} cannot be started again: {lost}. Repeat the command to resume."
            )

    def probes_of(self, allocation: Allocation) -> NodeProbes:
        """Those that are not over, else new ones."""
        if allocation.name not in self.probes:
            node_ids = self.node_ids_of(allocation)
            self.probes[allocation.name] = NodeProbes(set(filter(None, node_ids)))
        return self.probes[allocation.name]

    def node_ids_of(self, allocation: Allocation) -> list[str]:
        """Ray's ids of the nodes that an allocation's bundles are on; "" where that is unknown."""
        table = placement_group_table(self.groups[allocation.group])
        node_ids = table.get("bundles_to_node_id", {})
        first = allocation.first_bundle
        return [node_ids.get(first + bundle, "") for bundle in range(len(allocation.bundles))]

    def give_back(self, allocation: Allocation) -> None:
        """Remove an allocation's group and everything in it, so that its node can be released.

        A shared group stays for the others.
        """
        if allocation.shares:
            return
        self.grants.pop(allocation.name, None)
        self.probes.pop(allocation.name, None)
        group = self.groups.pop(allocation.group, None)
        if group is not None:
            remove_placement_group(group)

    def start(
        self,
        construct: partial[Instance],
        *,
        allocation: Allocation,
        bundle: int,
        name: str,
        environment: dict[str, str],
        max_concurrency: int | None = None,
        answers_looks: bool = False,
    ) -> RemoteActor[Instance]:
        """Make a plain class an actor in one bundle of an allocation. Does not wait for it.

        Args:
            construct: the class with its arguments: partial(VllmEngine, settings=...).
            bundle: index of the bundle in the allocation.
            name: of the actor, in messages too.
            environment: variables of its process.
            max_concurrency: calls at the same time; None: Ray's default.
            answers_looks: has a thread beside the one that works, for `RemoteActor.look`.
        """
        resources = allocation.bundles[bundle]
        options: dict[str, object] = {
            "name": name,
            "num_cpus": resources.get("CPU", 0),
            "num_gpus": resources.get("GPU", 0),
            "runtime_env": {"env_vars": environment},
            "scheduling_strategy": PlacementGroupSchedulingStrategy(
                placement_group=self.groups[allocation.group],
                placement_group_bundle_index=allocation.first_bundle + bundle,
            ),
        }
        if max_concurrency is not None:
            options["max_concurrency"] = max_concurrency
        remote = ray.remote(concurrency_groups={LOOKS: 1}) if answers_looks else ray.remote
        made = remote(construct.func).options(**options)
        return RemoteActor(made.remote(*construct.args, **construct.keywords), name)

    def release(self) -> None:
        for group in self.groups.values():
            remove_placement_group(group)
        self.groups = {}


class Placed:
    """Progress of a reservation; see `cluster.progress_board.Counter`."""

    def __init__(self) -> None:
        self.num_groups = 0

    def count(self) -> int:
        """Groups that are granted, and nodes that have ever joined."""
        return self.num_groups + len(ray.nodes())

    def said(self) -> str:
        return "In that time nothing was granted, and no node joined."


def ask_for(group: Group, name: str) -> PlacementGroup:
    return placement_group(
        list(group.bundles),
        strategy=group.strategy,
        name=name,
        bundle_label_selector=group.label_selectors,
    )


def is_placed(group: PlacementGroup) -> bool:
    """Within the longest single wait in Ray."""
    with errors_of_signals():
        return bool(group.wait(timeout_seconds=LOOK_S))


def refuse_too_few(allocations: list[Allocation], why: str) -> None:
    """Raise PlacementError if the nodes that live have, in all, less than is asked for."""
    demand, supply = total(allocations), ray.cluster_resources()
    if any(demand[key] > supply.get(key, 0) for key in demand):
        raise PlacementError(describe_shortage(allocations, why))


def describe_shortage(allocations: list[Allocation], why: str) -> str:
    """Demand against supply, per group and per node."""
    lines = [f"The cluster cannot place this run: {why}.", "Asked for:"]
    lines += [f"  {group.name}: {group}" for group in groups_of(allocations)]
    lines.append(f"  in all: {resource_text(total(allocations))}")
    lines.append("The cluster has:")
    for node in ray.nodes():
        if node["Alive"]:
            labels = labels_text(node["Labels"])
            has = resource_text(node["Resources"])
            lines.append(f"  {node['NodeManagerAddress']}: {has}{labels}")
    lines.append(f"  free in all: {resource_text(ray.available_resources())}")
    lines.append(
        "Lower layers.*.num_engines, engines.tensor_parallel_size or learner.num_ranks, set "
        "engines.shared: true, or add nodes; cluster.deadlines.placement_s is the longest wait. "
        "With cluster.colocate engines and learner take turns on the same GPUs: true on a cluster, "
        "auto with a local Ray."
    )
    return "\n".join(lines)


def detect_device(config: ClusterConfig) -> str:
    """cpu or cuda: as configured, or what the cluster's nodes have.

    The installed build says nothing about other nodes: an autoscaled cluster's head may have the
    CPU build, its workers the CUDA build.
    """
    num_gpus = ray.cluster_resources().get("GPU", 0)
    build = installed_build() if config.starts_ray else None
    return choose_device(config.device, num_gpus=num_gpus, build=build)
