"""Ray's fake multi-node provider, with every node on a loopback address of its own.

The autoscaler asks a provider for machines; this one "rents" them on this machine, each as a
raylet of its own. Named in the autoscaler's configuration as an external provider, because Ray's
own class would give its nodes the address that other machines reach this one by.
"""

from __future__ import annotations

import json
from typing import Any

from ray._private import ray_constants
from ray._private.node import Node
from ray._private.parameter import RayParams
from ray.autoscaler._private.fake_multi_node.node_provider import FakeMultiNodeProvider
from ray.autoscaler.tags import (
    NODE_KIND_WORKER,
    STATUS_UP_TO_DATE,
    TAG_RAY_NODE_KIND,
    TAG_RAY_NODE_NAME,
    TAG_RAY_NODE_STATUS,
    TAG_RAY_USER_NODE_TYPE,
)

FIRST_WORKER_ADDRESS = 10  # of 127.0.0.x


class LoopbackNodeProvider(FakeMultiNodeProvider):
    """Starts each node on 127.0.0.10, 127.0.0.11, …; a node's number is never used again."""

    def _create_node_with_resources_and_labels(
        self,
        node_config: dict[str, Any],
        tags: dict[str, str],
        count: int,
        resources: dict[str, float],
        labels: dict[str, str],
    ) -> None:
        with self.lock:
            node_id = self._next_hex_node_id()
            node_type = tags[TAG_RAY_USER_NODE_TYPE]
            others = {key: value for key, value in resources.items() if key not in ("CPU", "GPU")}
            store_bytes = others.pop("object_store_memory", None)
            others.pop("memory", None)
            parameters = RayParams(
                node_ip_address=f"127.0.0.{FIRST_WORKER_ADDRESS + self._next_node_id}",
                min_worker_port=0,
                max_worker_port=0,
                dashboard_port=None,
                dashboard_agent_listen_port=0,
                num_cpus=resources.get("CPU", 0),
                num_gpus=resources.get("GPU", 0),
                object_store_memory=store_bytes,
                resources=others,
                labels=labels,
                redis_address=self._gcs_address,
                gcs_address=self._gcs_address,
                temp_dir=self.provider_config["temp_dir"],
                env_vars={
                    "RAY_OVERRIDE_NODE_ID_FOR_TESTING": node_id,
                    "RAY_CLOUD_INSTANCE_ID": node_id,
                    "RAY_NODE_TYPE_NAME": node_type,
                    ray_constants.RESOURCES_ENVIRONMENT_VARIABLE: json.dumps(others),
                    ray_constants.LABELS_ENVIRONMENT_VARIABLE: json.dumps(labels),
                },
            )
            node = Node(parameters, head=False, shutdown_at_exit=False, spawn_reaper=False)
            own_tags = {
                TAG_RAY_NODE_KIND: NODE_KIND_WORKER,
                TAG_RAY_USER_NODE_TYPE: node_type,
                TAG_RAY_NODE_NAME: node_id,
                TAG_RAY_NODE_STATUS: STATUS_UP_TO_DATE,
            }
            self._nodes[node_id] = {"tags": {**own_tags, **tags}, "node": node}
