"""Compares a recipe's resource demand with a running cluster and its autoscaler's limits.

A running Ray does not report its autoscaler's limits: those are in the cluster file, which is
compared too if it is given.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence

from cluster.allocations import (
    Allocation,
    PlacementRecipe,
    labels_text,
    plan_allocations,
    resource_text,
    total,
)
from cluster.fit import Fit, Node, fit, reasons
from cluster.jobs.client import JobServer
from cluster.live_nodes import live_nodes, node_groups
from cluster.node_types import NodeType, all_nodes, read_cluster_file
from mgrpo.config import ClusterConfig
from mgrpo.errors import NoServerError
from mgrpo.findings import CheckLine, Status, counted

POLL_S = 2.0


def check_cluster(
    recipe: PlacementRecipe,
    address: str,
    *,
    run: str,
    cluster_file: str | None = None,
    wait_s: float = 0.0,
) -> list[CheckLine]:
    """Compare a recipe's demand with a running cluster.

    Args:
        run: the run's name; its own job is no other run.
        address: of its job server, http://HOST:8265.
        cluster_file: Ray's launcher YAML, a RayCluster or a RayJob: the limits of its growth.
        wait_s: how long to wait for the server, and for nodes that are still coming.

    Raises:
        JobError: the cluster does not answer.
        ClusterError: the cluster file cannot be read.
    """
    types = read_cluster_file(cluster_file) if cluster_file else []
    end = time.monotonic() + wait_s
    server = reach(address, end=end)
    while True:
        nodes = live_nodes(server)
        allocations = plan_allocations(
            recipe, device_of(recipe.cluster, [*nodes, *all_nodes(types, grown=True)])
        )
        found = fit(allocations, nodes)
        if not found.left_out or time.monotonic() >= end:
            break
        time.sleep(min(POLL_S, max(0.0, end - time.monotonic())))
    others = [job.run for job in server.jobs() if not job.is_over and job.run != run]
    return [
        node_line(server.address, nodes),
        demand_line(allocations),
        *placement_lines(found, nodes, types, cluster_file),
        *busy_lines(others),
    ]


def reach(address: str, *, end: float) -> JobServer:
    """The job server, as soon as it answers and knows its nodes.

    Raises:
        NoServerError: it does not answer until `end`, in seconds of time.monotonic.
        JobError: it answers, and refuses.
    """
    while True:
        try:
            server = JobServer(address)
            live_nodes(server)
        except NoServerError:
            if time.monotonic() >= end:
                raise
            time.sleep(min(POLL_S, max(0.0, end - time.monotonic())))
        else:
            return server


def device_of(cluster: ClusterConfig, nodes: Sequence[Node]) -> str:
    """As configured, or cuda where the cluster has GPUs or may get them."""
    if cluster.device != "auto":
        return cluster.device
    return "cuda" if any(node.resources.get("GPU") for node in nodes) else "cpu"


def node_line(address: str, nodes: Sequence[Node]) -> CheckLine:
    kinds = Counter(resource_text(node.resources) + labels_text(node.labels) for node in nodes)
    shown = "; ".join(f"{count} x ({kind})" for kind, count in kinds.items())
    return CheckLine("ok", "cluster", f"{address} has {counted(len(nodes), 'node')}: {shown}")


def demand_line(allocations: list[Allocation]) -> CheckLine:
    engines = sum(not allocation.is_learner for allocation in allocations)
    return CheckLine(
        "ok",
        "demand",
        f"{counted(engines, 'engine')} and the learner: {resource_text(total(allocations))}",
    )


def placement_lines(
    found: Fit, nodes: list[Node], types: list[NodeType], cluster_file: str | None
) -> list[CheckLine]:
    """The placement now, or the missing resources and whether the autoscaler can add them."""
    if not found.left_out:
        where = Counter(one.node for one in found.placed)
        shown = ", ".join(f"{count} on {node}" for node, count in where.items())
        return [CheckLine("ok", "placement", f"every process can be placed: {shown}")]
    missing = [f"{group.name} ({group}): {reasons(group, nodes)}" for group in found.left_out]
    allocations = [p.allocation for p in found.placed] + [
        s for group in found.left_out for s in group.allocations
    ]
    allocations = list({allocation.name: allocation for allocation in allocations}.values())
    status, hope = prospect(allocations, nodes, types, cluster_file)
    lines = [CheckLine(status, "missing", text) for text in missing]
    return [*lines, CheckLine(status, "autoscaler", hope)]


def prospect(
    allocations: list[Allocation],
    nodes: list[Node],
    types: list[NodeType],
    cluster_file: str | None,
) -> tuple[Status, str]:
    """Whether the autoscaler can add the missing resources: a status and a sentence."""
    groups = node_groups(nodes)
    if cluster_file:
        grown = all_nodes(types, grown=True)
        then = fit(allocations, grown)
        if then.left_out:
            names = ", ".join(group.name for group in then.left_out)
            why = reasons(then.left_out[0], grown)
            return (
                "fail",
                f"even grown to the limits of {cluster_file}, {names} cannot be placed: {why}",
            )
        used = {one.node for one in then.placed}
        wanted = Counter(
            t.name for t in types for node in t.nodes(t.max_count) if node.name in used
        )
        shown = ", ".join(f"{count} x {name}" for name, count in wanted.items())
        return "warn", (
            f"it can add the missing resources: {shown} of {cluster_file} are enough. "
            "cluster.deadlines.placement_s is how long the run waits for them."
        )
    if groups:
        return "warn", (
            f"this cluster was started by one (node types {', '.join(groups)}), but Ray does not "
            "report its limits: give its file with --cluster."
        )
    return "fail", (
        "none was found here, so no nodes will be added. Lower layers.*.num_engines, "
        "engines.tensor_parallel_size or learner.num_ranks, or add nodes with these labels; with "
        "an autoscaler, give its file with --cluster."
    )


def busy_lines(others: list[str]) -> list[CheckLine]:
    if not others:
        return []
    text = f"{', '.join(others)} also runs on it, and its resources are not free"
    return [CheckLine("warn", "other runs", text)]
