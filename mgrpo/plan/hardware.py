"""The nodes of a plan: a number of equal GPUs, or those of a cluster file."""

from __future__ import annotations

from dataclasses import dataclass

from cluster.fit import Node
from cluster.node_types import NodeType, all_nodes, read_cluster_file
from mgrpo.errors import ConfigError, ConfigFault
from mgrpo.plan.gpus import KNOWN, RAY_NAMES, GpuType, parse_gpus

ACCELERATOR_LABEL = "ray.io/accelerator-type"
ENOUGH_CPUS = 1e6  # of nodes of which only the GPUs are known


@dataclass(frozen=True, slots=True)
class Hardware:
    """Nodes, and the GPUs in each."""

    description: str
    nodes: list[Node]  # that are there from the start
    grown: list[Node]  # and those that an autoscaler may add
    gpus: dict[str, GpuType]  # by node name; nodes without GPUs are not in it
    has_labels: bool  # False: labels and custom resources of allocations are ignored

    def gpu_count(self, nodes: list[Node]) -> int:
        return sum(int(node.resources.get("GPU", 0)) for node in nodes)

    @property
    def gpus_per_node(self) -> int:
        """Of the largest node."""
        return max((int(node.resources.get("GPU", 0)) for node in self.grown), default=0)

    @property
    def smallest_gpu(self) -> GpuType:
        """By its memory."""
        return min(self.gpus.values(), key=lambda gpu: gpu.memory_bytes)


def named_hardware(text: str, num_nodes: int) -> Hardware:
    """`--gpus 8xH100-80GB --nodes 2`: as many equal nodes, with enough CPUs."""
    count, gpu = parse_gpus(text)
    nodes = [Node(f"node-{n}", {"CPU": ENOUGH_CPUS, "GPU": count}) for n in range(num_nodes)]
    plural = "" if num_nodes == 1 else "s"
    return Hardware(
        description=f"{num_nodes} node{plural} of {count} x {gpu.name}",
        nodes=nodes,
        grown=nodes,
        gpus={node.name: gpu for node in nodes},
        has_labels=False,
    )


def file_hardware(path: str, gpus: str | None) -> Hardware:
    """`--cluster cluster/aws.yaml`: the file's node types, labels included.

    Args:
        gpus: the kind of GPU, for types that do not name theirs by Ray's accelerator label.
    """
    types = read_cluster_file(path)
    kinds = {t.name: gpu_of(t, gpus, path) for t in types if t.resources.get("GPU")}
    smallest, largest = all_nodes(types, grown=False), all_nodes(types, grown=True)
    kind_of_node = {
        node.name: kinds[t.name] for t in types if t.name in kinds for node in t.nodes(t.max_count)
    }
    counts = ", ".join(f"{range_words(t)} {t.name}" for t in types)
    return Hardware(f"{path} ({counts})", smallest, largest, kind_of_node, has_labels=True)


def range_words(node_type: NodeType) -> str:
    low, high = node_type.min_count, node_type.max_count
    return f"{low} x" if low == high else f"{low} to {high} x"


def gpu_of(node_type: NodeType, gpus: str | None, path: str) -> GpuType:
    name = RAY_NAMES.get(node_type.labels.get(ACCELERATOR_LABEL, ""))
    if name is not None:
        return KNOWN[name]
    if gpus is not None:
        return parse_gpus(gpus)[1]
    fault = ConfigFault(
        path,
        node_type.name,
        f"this node type does not name its GPU (label {ACCELERATOR_LABEL}).",
        "Add the label, or give --gpus H100-80GB.",
    )
    raise ConfigError([fault], source="the cluster file")
