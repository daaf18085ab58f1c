"""Secrets reach actors on a cluster, and neither Ray's logs nor its record of the job."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import ray

from cluster.private_variables import NAMESPACE, split_secrets
from cluster.runtime import init_ray, ray_runtime
from mgrpo.config import ClusterConfig
from tests.repository import REPOSITORY

HEAD = "127.0.0.7"
VALUE = "hf_" + "of-the-hub"


@pytest.mark.parametrize(
    "name",
    [
        *("HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "VLLM_API_KEY", "X_PASSWORD", "hub_token"),
        *("AZURE_STORAGE_CONNECTION_STRING", "SSH_PASSPHRASE", "GOOGLE_APPLICATION_CREDENTIALS"),
    ],
)
def test_names_tell_what_is_secret(name: str) -> None:
    others = {"NCCL_DEBUG": "INFO", "HF_HOME": "/x", "TOKENIZERS_PARALLELISM": "false"}
    others |= {"HF_TOKEN_PATH": "/x", "AWS_SHARED_CREDENTIALS_FILE": "/x"}
    assert split_secrets({name: "s", **others}) == (others, {name: "s"})


class Reader:
    def of(self, name: str) -> str:
        return os.environ[name]


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    with tempfile.TemporaryDirectory(prefix="mgrpo-n-") as folder:  # short, for sockets
        monkeypatch.setenv("RAY_TMPDIR", folder)
        monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))  # actors of this file
        (Path(folder) / "ray").mkdir()
        given = {"node_ip_address": HEAD, "num_cpus": 1, "object_store_memory": 80 << 20}
        head = {**given, "temp_dir": folder, "include_dashboard": False}
        running = Cluster(initialize_head=True, head_node_args=head)
        running.folder = Path(folder)
        try:
            yield running
        finally:
            running.shutdown()


@pytest.mark.cluster
@pytest.mark.timeout(280)
def test_a_token_reaches_the_actors_and_no_log(
    cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", VALUE)
    at_head = partial(init_ray, _node_ip_address=HEAD)  # else it is looked for at this machine's
    monkeypatch.setattr("cluster.runtime.init_ray", at_head)
    config = ClusterConfig(address=cluster.address, deadlines={"connect_s": 60})
    with ray_runtime(config, num_cpus=1, logs_to=None) as runtime:
        reader = ray.remote(Reader).remote()
        assert ray.get(reader.of.remote("HF_TOKEN"), timeout=120) == VALUE
        store = ray._private.worker.global_worker.gcs_client
        assert store.internal_kv_keys(b"", NAMESPACE) == [runtime.run_id.encode()]
    logs = [file for file in cluster.folder.rglob("*.*") if file.is_file()]
    assert len(logs) > 3
    for log in logs:
        assert VALUE not in log.read_text(errors="replace"), log
    ray.init(address=cluster.address, log_to_driver=False, _node_ip_address=HEAD)
    try:
        store = ray._private.worker.global_worker.gcs_client
        assert store.internal_kv_keys(b"", NAMESPACE) == []
    finally:
        ray.shutdown()
