"""The nodes of a running cluster, read over its dashboard's HTTP API without joining it."""

from __future__ import annotations

from cluster.fit import Node
from cluster.jobs.client import JobServer
from mgrpo.records.json_object import JsonObject

MAX_NODES = 10_000  # Ray's own bound of one answer
GROUP_LABEL = "ray.io/node-group"
"""Ray labels a node with its node type where an autoscaler started it."""


def live_nodes(server: JobServer) -> list[Node]:
    """Every node that is alive, with all of its resources and its labels; the head first.

    Raises:
        JobError: the server does not answer, or refuses the token.
    """
    with server.errors("list its nodes"):
        answer = server.client._do_request("GET", f"/api/v0/nodes?limit={MAX_NODES}&detail=true")
        answer.raise_for_status()
        found: list[JsonObject] = answer.json()["data"]["result"]["result"]
    alive = [node for node in found if node["state"] == "ALIVE"]
    alive.sort(key=lambda node: (not node["is_head_node"], node["node_ip"], node["node_id"]))
    return [
        Node(
            name=node["node_ip"],
            resources=node["resources_total"],
            labels=node.get("labels") or {},
        )
        for node in alive
    ]


def node_groups(nodes: list[Node]) -> list[str]:
    """The node types that an autoscaler has started nodes of, by name."""
    return sorted({node.labels[GROUP_LABEL] for node in nodes if GROUP_LABEL in node.labels})
