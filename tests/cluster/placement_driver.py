"""Takes the allocations of some recipes on a running cluster, one after another, and says who got
what.

    python tests/cluster/placement_driver.py GCS_ADDRESS '[["learner.num_ranks=8"], ...]'

A process of its own: the cluster's token and address touch nobody else's Ray. Prints one JSON
object per recipe: {"places": [[allocation, bundle, node's address, [GPUs]]]}, or {"error":
message}.
"""

from __future__ import annotations

import json
import sys
from functools import partial
from typing import Any

import ray

from cluster.allocations import placement_recipe, plan_allocations
from cluster.placement import Placement
from mgrpo.config.load import load_recipe
from mgrpo.errors import PlacementError
from tests.layouts import ENGINES_PER_LAYER


class Sitter:
    """Tells where it is and which GPUs Ray gave it."""

    def where(self) -> tuple[str, list[int]]:
        return str(ray.util.get_node_ip_address()), [int(gpu) for gpu in ray.get_gpu_ids()]


def try_recipe(overrides: list[str]) -> dict[str, Any]:
    config = load_recipe("qwen2.5_math_7b", [*ENGINES_PER_LAYER, *overrides])
    allocations = plan_allocations(placement_recipe(config), "cuda")
    deadline_s = config.cluster.deadlines.placement_s
    try:
        placement = Placement.reserve(allocations, deadline_s=deadline_s, can_grow=True)
    except PlacementError as error:
        return {"error": str(error)}
    try:
        actors = [
            (allocation.name, bundle, sit(placement, allocation, bundle))
            for allocation in allocations
            for bundle in range(len(allocation.bundles))
        ]
        places = [
            [name, bundle, *actor.submit(Sitter.where).result(deadline_s=120, setting="a test")]
            for name, bundle, actor in actors
        ]
    finally:
        placement.release()
    return {"places": places}


def sit(placement: Placement, allocation: Any, bundle: int) -> Any:
    name = f"{allocation.name}-{bundle}"
    return placement.start(
        partial(Sitter), allocation=allocation, bundle=bundle, name=name, environment={}
    )


if __name__ == "__main__":
    ray.init(address=sys.argv[1], log_to_driver=False, namespace="placement-test")
    for one in json.loads(sys.argv[2]):
        print(json.dumps(try_recipe(one)), flush=True)
