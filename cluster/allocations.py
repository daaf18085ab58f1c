"""The resource requests of a run: one allocation per engine and one for the learner.

An allocation has a placement group of its own; with `cluster.colocate` all allocations share one,
whose bundles are GPUs. Pure: no Ray, so that `mgrpo check` and the plan can use it anywhere.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from mgrpo.config import ClusterConfig, EnginesConfig, LayerConfig, LearnerConfig, RunConfig
from mgrpo.config.cluster import NodesConfig
from mgrpo.config.engines import EngineRange

OWN_LABELS = ("ray.io/node-id",)
"""Labels that Ray sets on every node itself and that are not shown."""
NODE_RESOURCE_PREFIXES = ("node:", "bundle_", "accelerator_type:")
COLOCATED = "colocated"
"""Name of the group of all allocations where engines and learner share their GPUs."""
GPU_SHARE = 0.5
"""The nominal GPU share of an engine and a learner rank on one GPU, for Ray's accounting."""


@dataclass(frozen=True, slots=True)
class Allocation:
    """The resources of one engine, or of the learner.

    An engine is one bundle with all its GPUs, so the ranks of its tensor parallelism share a
    node; the learner is one bundle per rank, packed on as few nodes as hold them.
    """

    name: str  # "layer1-engine-0", "learner"
    bundles: tuple[dict[str, float], ...]  # the resources of each process
    layers: tuple[int, ...] = ()  # which layers an engine serves; () for the learner
    labels: dict[str, str] = field(default_factory=dict)  # of the nodes that every bundle needs
    shares: str = ""  # name of the group that it shares with others; "" has one of its own
    first_bundle: int = 0  # index in that group; the others follow

    @property
    def group(self) -> str:
        return self.shares or self.name

    @property
    def is_learner(self) -> bool:
        return not self.layers

    def __str__(self) -> str:
        return asked_text(self.bundles, self.labels)


@dataclass(frozen=True, slots=True)
class Group:
    """One placement group: the bundles of its allocations."""

    name: str
    allocations: tuple[Allocation, ...]

    @property
    def bundles(self) -> tuple[dict[str, float], ...]:
        """Each holds the processes that share it."""
        summed: dict[int, Counter[str]] = {}
        for allocation in self.allocations:
            for number, bundle in enumerate(allocation.bundles, start=allocation.first_bundle):
                summed.setdefault(number, Counter()).update(bundle)
        return tuple(dict(summed[number]) for number in sorted(summed))

    @property
    def labels(self) -> dict[str, str]:
        return self.allocations[0].labels

    @property
    def strategy(self) -> str:
        return "STRICT_PACK" if len(self.bundles) == 1 else "PACK"

    @property
    def label_selectors(self) -> list[dict[str, str]] | None:
        """One per bundle, as Ray's placement groups take them; None where any node will do."""
        return [dict(self.labels) for _ in self.bundles] if self.labels else None

    @property
    def has_learner(self) -> bool:
        return any(allocation.is_learner for allocation in self.allocations)

    def __str__(self) -> str:
        return asked_text(self.bundles, self.labels)


@dataclass(frozen=True, slots=True)
class Pool:
    """Engines that do the same work: those of one layer, or one pool that serves every layer."""

    name: str  # "layer1", or "shared"
    layers: tuple[int, ...]
    count: EngineRange

    def engine_name(self, index: int) -> str:
        return f"engine-{index}" if self.name == "shared" else f"{self.name}-engine-{index}"


def engine_allocation(
    engines: EnginesConfig, cluster: ClusterConfig, device: str, pool: Pool, index: int
) -> Allocation:
    """The allocation of a pool's engine; `index` may go beyond those that a run begins with."""
    name, cpus = pool.engine_name(index), engines.num_cpus
    if cluster.takes_turns:
        nodes = cluster.learner_nodes
        bundle = bundle_of(cpus, GPU_SHARE if device == "cuda" else 0, NodesConfig())
        return Allocation(name, (bundle,), pool.layers, nodes.labels, COLOCATED, first_bundle=index)
    nodes = cluster.engine_nodes
    gpus = engines.tensor_parallel_size if device == "cuda" else 0
    return Allocation(name, (bundle_of(cpus, gpus, nodes),), pool.layers, nodes.labels)


def learner_allocation(learner: LearnerConfig, cluster: ClusterConfig, device: str) -> Allocation:
    """The allocation of all the learner's ranks, one bundle each."""
    nodes, is_shared = cluster.learner_nodes, cluster.takes_turns
    gpu_share = GPU_SHARE if is_shared else 1
    rank = bundle_of(learner.num_cpus, gpu_share if device == "cuda" else 0, nodes)
    ranks = tuple(dict(rank) for _ in range(learner.num_ranks))
    return Allocation("learner", ranks, (), nodes.labels, COLOCATED if is_shared else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementRecipe:
    """The parts of a recipe that decide what runs where."""

    layers: Sequence[LayerConfig]
    engines: EnginesConfig
    learner: LearnerConfig
    cluster: ClusterConfig

    @property
    def pools(self) -> list[Pool]:
        """The pools of engines, layer 1's first."""
        if self.engines.shared:
            every_layer = tuple(range(1, len(self.layers) + 1))
            return [Pool("shared", every_layer, self.engines.pool)]
        return [
            Pool(f"layer{number}", (number,), layer.num_engines)
            for number, layer in enumerate(self.layers, start=1)
        ]

    @property
    def num_engines(self) -> int:
        """Engines at the start of the run; elastic pools may grow further."""
        return sum(pool.count.min for pool in self.pools)


def placement_recipe(config: RunConfig) -> PlacementRecipe:
    return PlacementRecipe(
        layers=config.layers, engines=config.engines, learner=config.learner, cluster=config.cluster
    )


def plan_allocations(recipe: PlacementRecipe, device: str) -> list[Allocation]:
    """The allocations of the learner and of every engine that a recipe starts with.

    Engines of one layer never share an allocation with another layer's, unless engines.shared.
    """
    return allocations_with(recipe, device, lambda count: count.min)


def most_allocations(recipe: PlacementRecipe, device: str) -> list[Allocation]:
    """The same with as many engines as elastic pools may grow to."""
    return allocations_with(recipe, device, lambda count: count.max)


def allocations_with(
    recipe: PlacementRecipe, device: str, num_engines: Callable[[EngineRange], int]
) -> list[Allocation]:
    engines = [
        engine_allocation(recipe.engines, recipe.cluster, device, pool, index)
        for pool in recipe.pools
        for index in range(num_engines(pool.count))
    ]
    return [*engines, learner_allocation(recipe.learner, recipe.cluster, device)]


def groups_of(allocations: Sequence[Allocation]) -> list[Group]:
    """The placement groups of allocations, in the order of their first allocations."""
    members: dict[str, list[Allocation]] = {}
    for allocation in allocations:
        members.setdefault(allocation.group, []).append(allocation)
    return [Group(name, tuple(group)) for name, group in members.items()]


def packing_order(groups: Sequence[Group]) -> list[Group]:
    """The order of reservation: groups that need most of one node first.

    Ray places each group on the emptiest node, so small engines reserved first could leave no node
    with room for a wide one, although the total suffices.
    """
    return sorted(groups, key=lambda group: (-widest(group), group.name))


def widest(group: Group) -> float:
    """GPUs (CPUs, if it needs none) that a group prefers to have on one node."""
    resource = "GPU" if "GPU" in group.bundles[0] else "CPU"
    return sum(bundle[resource] for bundle in group.bundles)


def bundle_of(cpus: float, gpus: float, nodes: NodesConfig) -> dict[str, float]:
    """The resources of one process."""
    gpu = {"GPU": float(gpus)} if gpus else {}
    return {"CPU": cpus, **gpu, **nodes.resources}


def total(allocations: Sequence[Allocation]) -> dict[str, float]:
    """The total resources of all allocations."""
    demand: dict[str, float] = {}
    for allocation in allocations:
        for bundle in allocation.bundles:
            for resource, amount in bundle.items():
                demand[resource] = demand.get(resource, 0) + amount
    return demand


def asked_text(bundles: Sequence[Mapping[str, float]], labels: Mapping[str, str]) -> str:
    """A request in words: "4 x (1 CPU, 1 GPU) on nodes with role=learner"."""
    counts = Counter(resource_text(bundle) for bundle in bundles)
    shown = [text if n == 1 else f"{n} x ({text})" for text, n in counts.items()]
    return " + ".join(shown) + labels_text(labels, " on nodes with ")


def has_labels(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    """Whether a node with these labels satisfies a selector, by Ray's rules.

    A value is a word, "!word", "in(a,b)" or "!in(a,b)"; a negated one is also satisfied by a
    node without the label.
    """
    return all(is_wanted(value, labels.get(key)) for key, value in selector.items())


def is_wanted(value: str, found: str | None) -> bool:
    wants = not value.startswith("!")
    value = value.removeprefix("!")
    words = [value]
    if value.startswith("in(") and value.endswith(")"):
        words = [word.strip() for word in value[3:-1].split(",")]
    return (found in words) is wants


def resource_text(resources: Mapping[str, float]) -> str:
    """ "4 CPU, 1 GPU": resources in words, without Ray's internal ones."""
    others = sorted(
        key
        for key in resources
        if key not in ("CPU", "GPU", "memory", "object_store_memory")
        and not key.startswith(NODE_RESOURCE_PREFIXES)
    )
    shown = [f"{resources[key]:g} {key}" for key in ("CPU", "GPU", *others) if resources.get(key)]
    return ", ".join(shown) or "nothing"


def labels_text(labels: Mapping[str, str], before: str = " with ") -> str:
    """Labels as key=value, after `words`; "" if there are none."""
    shown = [f"{key}={value}" for key, value in labels.items() if key not in OWN_LABELS]
    return before + ", ".join(shown) if shown else ""
