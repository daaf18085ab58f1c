"""Tokens and keys on their way to a run's processes on a cluster.

Ray writes a runtime environment's variables to its logs on every node and shows them in its
dashboard. Those that are secret go by its key-value store instead: the driver puts them there
before it joins, the set-up hook of every worker takes them, and they are deleted at the run's end.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

import ray
from ray._private import services
from ray._raylet import GcsClient  # type: ignore[attr-defined]
from ray.exceptions import RpcError

from cluster.stacks import RUN_VARIABLE
from mgrpo.records.secret_values import is_secret_name
from mgrpo.rooms import PRIVATE_VARIABLES

NAMESPACE = b"mgrpo-private"
WORKER_S = 30
"""Longest wait of a worker's start for the store, which it has just been connected to."""


def split_secrets(variables: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Those that anybody may read, and those whose names say that they are secret."""
    secret = {name: value for name, value in variables.items() if is_secret_name(name)}
    return {name: variables[name] for name in variables if name not in secret}, secret


@contextmanager
def handed_over(
    address: str, run_id: str, secret: Mapping[str, str], deadline_s: float
) -> Iterator[None]:
    """They are where the run's workers find them, while this context lasts.

    Args:
        address: of the cluster, which answers.
        deadline_s: longest wait for it.
    """
    if not secret:
        yield
        return
    store = GcsClient(address=services.canonicalize_bootstrap_address_or_die(address))
    key, value = run_id.encode(), json.dumps(dict(secret)).encode()
    store.internal_kv_put(key, value, True, NAMESPACE, timeout=deadline_s)
    try:
        yield
    finally:
        with suppress(RpcError):  # of a cluster that is gone
            store.internal_kv_del(key, False, NAMESPACE, timeout=deadline_s)


def take_over() -> None:
    """Give this worker the variables that its environment names; part of its set-up."""
    store = ray._private.worker.global_worker.gcs_client
    run_id = os.environ[RUN_VARIABLE]
    found = store.internal_kv_get(run_id.encode(), NAMESPACE, timeout=WORKER_S)
    if found is None:
        names = os.environ[PRIVATE_VARIABLES]
        raise LookupError(f"The cluster's store no longer has {names} of run {run_id}.")
    os.environ |= json.loads(found)
