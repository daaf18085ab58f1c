"""The part of KubeRay's v1 custom resources that our files use, as a JSON schema.

KubeRay's own definition is generated from its Go types and is larger than this repository; no
package carries it. This is a subset of it by hand: the same names, types, required keys and
allowed values for what is here, and nothing beyond it is let through. Pod templates inside are
the business of Kubernetes' schema (see test_kuberay_files.py).
"""

from __future__ import annotations

from typing import Any

TEXT: dict[str, Any] = {"type": "string"}
TRUTH: dict[str, Any] = {"type": "boolean"}
COUNT: dict[str, Any] = {"type": "integer", "minimum": 0}
SECONDS: dict[str, Any] = {"type": "integer", "minimum": 1}
TEXTS: dict[str, Any] = {"type": "object", "additionalProperties": TEXT}
ANY_OBJECT: dict[str, Any] = {"type": "object"}


def record(required: tuple[str, ...] = (), **properties: Any) -> dict[str, Any]:
    """An object with these keys and no others."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


def one_of(*values: str) -> dict[str, Any]:
    return {"enum": list(values)}


HEAD_GROUP = record(
    ("rayStartParams", "template"),
    rayStartParams=TEXTS,
    template=ANY_OBJECT,
    resources=TEXTS,
    labels=TEXTS,
    serviceType=one_of("ClusterIP", "NodePort", "LoadBalancer"),
)
WORKER_GROUP = record(
    ("groupName", "minReplicas", "maxReplicas", "template"),
    groupName=TEXT,
    replicas=COUNT,
    minReplicas=COUNT,
    maxReplicas=COUNT,
    numOfHosts=SECONDS,
    idleTimeoutSeconds=COUNT,
    rayStartParams=TEXTS,
    resources=TEXTS,
    labels=TEXTS,
    template=ANY_OBJECT,
)
CLUSTER_SPEC = record(
    ("headGroupSpec",),
    rayVersion=TEXT,
    enableInTreeAutoscaling=TRUTH,
    autoscalerOptions=record(
        version=one_of("v1", "v2"),
        upscalingMode=one_of("Default", "Aggressive", "Conservative"),
        idleTimeoutSeconds=COUNT,
        resources=ANY_OBJECT,
    ),
    authOptions=record(mode=one_of("disabled", "token"), secretName=TEXT),
    gcsFaultToleranceOptions=record(
        redisAddress=TEXT,
        redisPassword=record(valueFrom=ANY_OBJECT, value=TEXT),
        externalStorageNamespace=TEXT,
    ),
    headGroupSpec=HEAD_GROUP,
    workerGroupSpecs={"type": "array", "items": WORKER_GROUP},
)
JOB_SPEC = record(
    ("entrypoint", "rayClusterSpec"),
    entrypoint=TEXT,
    runtimeEnvYAML=TEXT,
    submissionMode=one_of("K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"),
    submitterConfig=record(backoffLimit=COUNT),
    shutdownAfterJobFinishes=TRUTH,
    ttlSecondsAfterFinished=COUNT,
    activeDeadlineSeconds=SECONDS,
    preRunningDeadlineSeconds=SECONDS,
    backoffLimit=COUNT,
    rayClusterSpec=CLUSTER_SPEC,
)
# KubeRay makes labels of these names, and longer names from them.
NAME = {"type": "string", "pattern": "^[a-z]([-a-z0-9]*[a-z0-9])?$", "maxLength": 47}
METADATA = record(("name",), name=NAME, labels=TEXTS, annotations=TEXTS)


def schema_of(kind: str) -> dict[str, Any]:
    """The schema of a RayCluster or a RayJob."""
    spec = {"RayCluster": CLUSTER_SPEC, "RayJob": JOB_SPEC}[kind]
    return record(
        ("apiVersion", "kind", "metadata", "spec"),
        apiVersion=one_of("ray.io/v1"),
        kind=one_of(kind),
        metadata=METADATA,
        spec=spec,
    )
