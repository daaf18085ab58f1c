"""Where things run, how weights travel, and how long anything may take."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from mgrpo.config.base import StrictConfig


class DeadlinesConfig(StrictConfig):
    """The longest that anything is waited for, in seconds. Nothing waits without one."""

    placement_s: PositiveFloat = 120
    """Until the cluster grants the resources."""
    engine_start_s: PositiveFloat = 600
    """Until an engine has loaded its model."""
    learner_start_s: PositiveFloat = 600
    generate_s: PositiveFloat = 600
    """One group's completions."""
    update_s: PositiveFloat = 1800
    """One update by the learner."""
    weight_sync_s: PositiveFloat = 300
    """One broadcast to every engine, its verification included."""
    shutdown_s: PositiveFloat = 20


class WeightsConfig(StrictConfig):
    """The broadcast after each update, and its verification."""

    backend: Literal["auto", "gloo", "nccl"] = "auto"
    """auto: nccl on GPUs, gloo on a CPU."""
    verify_checksums: bool = True
    """Compare a checksum of every tensor as sent with the same tensor as received."""
    verify_probe: bool = True
    """Compare a fixed prompt's log-probabilities between the learner and each engine."""
    probe_tolerance: PositiveFloat | None = None
    """Largest difference allowed, in nats. None: 0.01 for float32, 0.3 for 16-bit types."""
    packed_buffer_mib: PositiveInt = 256
    """Size of each of NCCL's two packing buffers, in MiB."""


LabelWanted = Annotated[str, Field(pattern=r"^!?(\w[\w.-]*|in\(\w[\w.-]*(, ?\w[\w.-]*)*\))$")]
"""A node label's value as a selector: "rollout", "!spot", "in(a,b)", "!in(a,b)"."""


class NodesConfig(StrictConfig):
    """Which of a cluster's nodes something may sit on; empty: any."""

    labels: dict[str, LabelWanted] = Field(default_factory=dict)
    """Ray's node labels that are needed, such as {role: rollout}; a value may also be
    "!spot", "in(a,b)" or "!in(a,b)"."""
    resources: dict[str, PositiveFloat] = Field(default_factory=dict)
    """Custom resources that each process takes besides CPU and GPU."""


class ClusterConfig(StrictConfig):
    """Ray, and which device the models live on."""

    address: str = "auto"
    """auto: the cluster named by RAY_ADDRESS if that is set, else a Ray of the run's own on this
    machine. local: always the latter. Anything else: that cluster."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: cuda where this machine, or the cluster, has GPUs."""
    engine_nodes: NodesConfig = NodesConfig()
    """Where the engines may sit."""
    learner_nodes: NodesConfig = NodesConfig()
    """Where the learner's ranks may sit."""
    env_prefixes: list[str] = Field(default=["NCCL_", "VLLM_", "HF_", "MGRPO_", "TORCH_"])
    """Environment variables with these prefixes travel to the actors; no others do."""
    deadlines: DeadlinesConfig = DeadlinesConfig()
