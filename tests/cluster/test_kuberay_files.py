"""cluster/kuberay/*.yaml: against KubeRay's and Kubernetes' schemas, and against our
allocations."""

from __future__ import annotations

import copy
import re
import shlex
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from cluster.allocations import placement_recipe, plan_allocations
from cluster.fit import fit
from cluster.node_types import all_nodes, cpus, read_cluster_file
from mgrpo.cli import parse
from mgrpo.config.load import load_recipe
from tests.cluster.kuberay_schema import schema_of

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "cluster" / "kuberay"
FILES = [FOLDER / name for name in ("raycluster.yaml", "rayjob.yaml")]
GUIDE = (ROOT / "docs" / "guides" / "cluster.md").read_text(encoding="utf-8")
KUBERNETES_VERSION = "1.33.0"
each_file = pytest.mark.parametrize("file", FILES, ids=lambda path: path.name)


def documents(file: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(file.read_text(encoding="utf-8")))


def cluster_spec(file: Path) -> dict[str, Any]:
    (document,) = documents(file)
    spec: dict[str, Any] = document["spec"]
    found: dict[str, Any] = spec.get("rayClusterSpec", spec)
    return found


def groups(file: Path) -> list[dict[str, Any]]:
    spec = cluster_spec(file)
    return [spec["headGroupSpec"], *spec["workerGroupSpecs"]]


@each_file
def test_the_resource_is_one_that_kuberay_knows(file: Path) -> None:
    (document,) = documents(file)
    jsonschema.validate(document, schema_of(document["kind"]))


@each_file
@pytest.mark.parametrize(
    "damage",
    [
        lambda spec: spec["workerGroupSpecs"][1].update(maxReplica=4),
        lambda spec: spec["workerGroupSpecs"][1].pop("maxReplicas"),
        lambda spec: spec["autoscalerOptions"].update(version=2),
        lambda spec: spec["headGroupSpec"]["resources"].update(CPU=0),
    ],
)
def test_the_schema_notices_what_is_wrong(file: Path, damage: Any) -> None:
    document = copy.deepcopy(documents(file)[0])
    damage(document["spec"].get("rayClusterSpec", document["spec"]))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, schema_of(document["kind"]))


@pytest.mark.cluster
@each_file
def test_every_pod_is_one_that_kubernetes_knows(file: Path) -> None:
    kubernetes = pytest.importorskip("kubernetes_validate", reason="see tests/cluster")
    for group in groups(file):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, **group["template"]}
        kubernetes.validate(pod, KUBERNETES_VERSION, strict=True)


@pytest.mark.cluster
def test_storage_and_redis_are_ones_that_kubernetes_knows() -> None:
    kubernetes = pytest.importorskip("kubernetes_validate", reason="see tests/cluster")
    for document in documents(FOLDER / "storage.yaml"):
        kubernetes.validate(document, KUBERNETES_VERSION, strict=True)


@each_file
def test_the_papers_recipe_has_a_place_on_its_pods_by_role(file: Path) -> None:
    overrides = (
        "cluster.engine_nodes.labels.role=rollout",
        "cluster.learner_nodes.labels.role=learner",
        "learner.num_ranks=8",
    )
    allocations = plan_allocations(
        placement_recipe(load_recipe("qwen2.5_math_7b", overrides)), "cuda"
    )
    assert fit(allocations, all_nodes(read_cluster_file(file), grown=False)).left_out == []


@each_file
def test_the_head_takes_no_actor_and_workers_promise_what_they_ask_for(file: Path) -> None:
    head = read_cluster_file(file)[0]
    assert head.is_head and head.resources == {"CPU": 0, "GPU": 0}
    for group in groups(file):
        (container,) = group["template"]["spec"]["containers"]
        assert container["resources"]["requests"] == container["resources"]["limits"]


@each_file
def test_pods_share_the_claim_that_storage_makes(file: Path) -> None:
    claims = {d["metadata"]["name"]: d for d in documents(FOLDER / "storage.yaml")}
    for group in groups(file):
        spec = group["template"]["spec"]
        volumes = {v["name"]: v.get("persistentVolumeClaim", {}) for v in spec["volumes"]}
        assert claims[volumes["shared"]["claimName"]]["spec"]["accessModes"] == ["ReadWriteMany"]
        (container,) = spec["containers"]
        paths = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        assert set(paths) <= set(volumes)
        root = {variable["name"]: variable.get("value") for variable in container["env"]}
        assert root["MGRPO_RUNS_ROOT"].startswith(paths["shared"] + "/")


@each_file
def test_autoscaling_is_v2_with_pods_that_are_replaced(file: Path) -> None:
    spec = cluster_spec(file)
    assert spec["enableInTreeAutoscaling"] is True
    assert spec["autoscalerOptions"]["version"] == "v2"
    assert all(g["template"]["spec"]["restartPolicy"] == "Never" for g in groups(file))
    learner, rollout = spec["workerGroupSpecs"]
    assert learner["minReplicas"] == learner["maxReplicas"] == 1
    assert 1 <= rollout["minReplicas"] < rollout["maxReplicas"]
    longest = load_recipe("qwen2.5_math_7b").cluster.deadlines.engine_start_s
    assert spec["autoscalerOptions"]["idleTimeoutSeconds"] > longest


@each_file
def test_the_token_comes_from_a_secret_that_no_file_holds(file: Path) -> None:
    options = cluster_spec(file)["authOptions"]
    assert options == {"mode": "token", "secretName": "mgrpo-token"}
    kinds = {d["kind"] for name in FOLDER.glob("*.yaml") for d in documents(name)}
    assert "Secret" not in kinds
    for secret, key in (("mgrpo-token", "auth_token"), ("mgrpo-redis", "password")):
        assert re.search(rf"kubectl create secret generic {secret}\b[^\n]*{key}=", GUIDE)


def test_the_heads_memory_is_kept_in_the_redis_that_storage_starts() -> None:
    options = cluster_spec(FOLDER / "raycluster.yaml")["gcsFaultToleranceOptions"]
    host, port = options["redisAddress"].split(":")
    named = {(d["kind"], d["metadata"]["name"]): d for d in documents(FOLDER / "storage.yaml")}
    assert named["Service", host]["spec"]["ports"][0]["port"] == int(port)
    store = named["StatefulSet", host]["spec"]["template"]["spec"]["containers"][0]
    wanted = options["redisPassword"]["valueFrom"]["secretKeyRef"]
    assert store["env"][0]["valueFrom"]["secretKeyRef"] == wanted


def test_the_jobs_entrypoint_is_a_command_that_we_have() -> None:
    (job,) = documents(FOLDER / "rayjob.yaml")
    words = shlex.split(job["spec"]["entrypoint"])
    assert words[:3] == ["python", "-m", "mgrpo"]
    # KubeRay puts the entrypoint into a shell script of its own.
    assert re.fullmatch(r"[\w\s./=-]+", job["spec"]["entrypoint"])
    args = parse(words[3:])
    config = load_recipe(args.recipe, args.overrides)
    nodes = all_nodes(read_cluster_file(FILES[1]), grown=False)
    assert fit(plan_allocations(placement_recipe(config), "cuda"), nodes).left_out == []
    assert config.cluster.deadlines.placement_s < job["spec"]["preRunningDeadlineSeconds"]


def test_the_job_ends_some_time_and_retries_with_a_cluster_of_its_own() -> None:
    (job,) = documents(FOLDER / "rayjob.yaml")
    spec = job["spec"]
    assert 0 < spec["preRunningDeadlineSeconds"] < spec["activeDeadlineSeconds"]
    assert spec["backoffLimit"] >= 1 and spec["submitterConfig"]["backoffLimit"] == 0
    assert spec["shutdownAfterJobFinishes"] is True
    yaml.safe_load(spec["runtimeEnvYAML"])["env_vars"]["RAY_JOB_STOP_WAIT_TIME_S"]


def test_the_images_version_of_ray_is_ours() -> None:
    pinned = re.search(r'"ray\[default\]==([\d.]+)"', (ROOT / "pyproject.toml").read_text())
    assert pinned is not None
    assert {cluster_spec(file)["rayVersion"] for file in FILES} == {pinned[1]}


@pytest.mark.parametrize(("text", "number"), [("4", 4.0), ("0.5", 0.5), ("500m", 0.5)])
def test_kubernetes_quantities_of_cpu(text: str, number: float) -> None:
    assert cpus(text) == number


def test_everything_to_fill_in_is_explained_in_the_guide() -> None:
    for file in FOLDER.iterdir():
        for name in re.findall(r"REPLACE_[A-Z_]+", file.read_text(encoding="utf-8")):
            assert name in GUIDE, name
