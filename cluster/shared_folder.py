"""Does the learner see the run's folder? On several nodes that takes storage that they share.

The learner writes checkpoints and the policy where it sits, and the driver reads them where it
sits. Where these are two disks, every checkpoint would be an empty folder, found hours later.
"""

from __future__ import annotations

import secrets
import time
from pathlib import Path

import ray
from ray.exceptions import GetTimeoutError
from ray.util.placement_group import PlacementGroup
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from mgrpo.errors import ClusterError, DeadlineError

NUM_LOOKS = 10  # a second apart: network file systems may show a new file late


def refuse_unshared_folder(folder: Path, group: PlacementGroup, *, deadline_s: float) -> None:
    """Make a file here and look for it from each of a placement group's bundles.

    Args:
        folder: of the run; made if it is not there.
        group: the learner's, granted.
        deadline_s: the longest wait for all of its nodes.

    Raises:
        ClusterError: a node does not see the file.
        DeadlineError: a node did not answer.
    """
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    marker = folder / f".seen-by-every-node-{secrets.token_hex(8)}"
    marker.touch()
    try:
        looks = [
            ray.remote(num_cpus=0)(node_that_misses)
            .options(
                scheduling_strategy=PlacementGroupSchedulingStrategy(
                    placement_group=group, placement_group_bundle_index=bundle
                )
            )
            .remote(str(marker))
            for bundle in range(group.bundle_count)
        ]
        try:
            missing = ray.get(looks, timeout=deadline_s)
        except GetTimeoutError:
            raise DeadlineError(
                f"the learner's nodes to look for {marker}",
                deadline_s=deadline_s,
                setting="cluster.deadlines.placement_s",
            ) from None
    finally:
        marker.unlink(missing_ok=True)
    nodes = sorted({node for node in missing if node is not None})
    if nodes:
        raise ClusterError(
            f"The learner sits on {', '.join(nodes)}, which does not see the run's folder {folder} "
            "of the driver's node: its checkpoints would be lost. Set output.runs_dir to a folder "
            "that all nodes share, or keep the learner on the driver's node "
            "(cluster.learner_nodes)."
        )


def node_that_misses(file: str) -> str | None:
    """This node's address, unless the file is there. Runs on the node."""
    for _ in range(NUM_LOOKS):
        if Path(file).exists():
            return None
        time.sleep(1.0)
    return str(ray.util.get_node_ip_address())
