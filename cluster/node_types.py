"""The node types of a cluster file: Ray's launcher YAML, or KubeRay's RayCluster and RayJob.

Only that file states the autoscaler's limits: a running Ray does not report them. So
`mgrpo plan --cluster FILE` and `mgrpo check --address A --cluster FILE` read it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import yaml

from cluster.fit import Node
from mgrpo.errors import ClusterError
from mgrpo.records.json_object import JsonObject

GPU_LIMIT = "nvidia.com/gpu"
RESOURCE_OF_PARAM = {"num-cpus": "CPU", "num-gpus": "GPU"}


@dataclass(frozen=True, slots=True)
class NodeType:
    """One kind of node, and how many of it there may be."""

    name: str
    resources: dict[str, float]
    labels: dict[str, str]
    min_count: int
    max_count: int
    is_head: bool = False

    def nodes(self, count: int) -> list[Node]:
        return [Node(f"{self.name}-{n}", self.resources, self.labels) for n in range(count)]


def read_cluster_file(path: str | Path) -> list[NodeType]:
    """The node types of a cluster file, the head's first.

    Raises:
        ClusterError: it cannot be read, or is neither kind of file.
    """
    try:
        documents = [d for d in yaml.safe_load_all(Path(path).read_text("utf-8")) if d]
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ClusterError(f"The cluster file {path} cannot be read: {error}") from error
    for document in documents:
        if not isinstance(document, dict):
            continue
        if "available_node_types" in document:
            return launcher_types(document)
        if document.get("kind") == "RayCluster":
            return kuberay_types(document["spec"])
        if document.get("kind") == "RayJob":
            return kuberay_types(document["spec"]["rayClusterSpec"])
    raise ClusterError(
        f"{path} is not a cluster file: it has neither available_node_types (Ray's cluster "
        "launcher) "
        "nor a RayCluster or RayJob (KubeRay)."
    )


def launcher_types(document: JsonObject) -> list[NodeType]:
    """Of `ray up`'s file; a type's max_workers defaults to the file's, as Ray has it."""
    types = []
    for name, entry in document["available_node_types"].items():
        is_head = name == document["head_node_type"]
        types.append(
            NodeType(
                name=name,
                resources={key: float(n) for key, n in entry.get("resources", {}).items()},
                labels=dict(entry.get("labels", {})),
                min_count=1 if is_head else int(entry.get("min_workers", 0)),
                max_count=1
                if is_head
                else int(entry.get("max_workers", document.get("max_workers", 0))),
                is_head=is_head,
            )
        )
    return sorted(types, key=lambda node_type: not node_type.is_head)


def kuberay_types(spec: JsonObject) -> list[NodeType]:
    """Of a RayCluster's spec."""
    head = spec["headGroupSpec"]
    types = [NodeType("head", group_resources(head), dict(head.get("labels", {})), 1, 1, True)]
    types += [
        NodeType(
            name=group["groupName"],
            resources=group_resources(group),
            labels=dict(group.get("labels", {})),
            min_count=int(group.get("minReplicas", 0)),
            max_count=int(group["maxReplicas"]),
        )
        for group in spec.get("workerGroupSpecs", [])
    ]
    return types


def group_resources(group: JsonObject) -> dict[str, float]:
    """A pod's resources as Ray counts them: container limits, then rayStartParams, then
    resources."""
    limits = group["template"]["spec"]["containers"][0].get("resources", {}).get("limits", {})
    found = {}
    if "cpu" in limits:
        found["CPU"] = cpus(str(limits["cpu"]))
    if GPU_LIMIT in limits:
        found["GPU"] = float(limits[GPU_LIMIT])
    for param, value in group.get("rayStartParams", {}).items():
        if param in RESOURCE_OF_PARAM:
            found[RESOURCE_OF_PARAM[param]] = float(value)
    found.update({key: float(value) for key, value in group.get("resources", {}).items()})
    return found


def cpus(quantity: str) -> float:
    """A Kubernetes quantity of CPU: "4", "0.5" or "500m"."""
    return float(quantity[:-1]) / 1000 if quantity.endswith("m") else float(quantity)


def all_nodes(types: list[NodeType], *, grown: bool) -> list[Node]:
    """Every node of a cluster at its smallest, or grown to its largest."""
    return [node for t in types for node in t.nodes(t.max_count if grown else t.min_count)]
