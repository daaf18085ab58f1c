"""Placement, weight sync, deadlines and health checks."""

from __future__ import annotations

import os
from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from mgrpo.config.base import RelationError, StrictConfig
from mgrpo.errors import ConfigFault


class DeadlinesConfig(StrictConfig):
    """Deadlines in seconds. Every wait has one; docs/guides/liveness.md says what counts as
    progress."""

    connect_s: PositiveFloat = 10
    """Until a cluster that the run joins answers."""
    placement_s: PositiveFloat = 120
    """Longest time in which the cluster grants none of the resources and no node joins it."""
    engine_start_s: PositiveFloat = 600
    """Longest time without progress of an engine that loads its model: its processes read and write
    no MiB."""
    learner_start_s: PositiveFloat = 600
    """Longest time without progress of the ranks' start, and of loading a checkpoint."""
    engine_return_s: PositiveFloat = 600
    """Longest time without progress of a layer that lost its last engine: resources, model,
    weights."""
    generate_s: PositiveFloat = 600
    """Longest time in which a busy engine generates no token: longer than any forward pass,
    independent of the length of completions and of the queue. An engine that then does not answer a
    new request either is restarted; otherwise it stays in use, and its hanging requests are retried
    on another, at most cluster.health.max_resends times."""
    update_s: PositiveFloat = 600
    """Longest time without progress of an update by the learner, of a measurement, and of writing
    its files: no rank begins a pass over a micro-batch, gathers a weight, or reads or writes
    another MiB. Longer than any of these; ranks that show none are replaced
    (learner.max_restarts)."""
    weight_sync_s: PositiveFloat = 300
    """Longest time without progress of a broadcast to every engine, its verification included: no
    tensor is sent."""
    shutdown_s: PositiveFloat = 20


class WeightsConfig(StrictConfig):
    """The broadcast after each update, and its verification."""

    backend: Literal["auto", "gloo", "nccl", "ipc"] = "auto"
    """auto: nccl on GPUs, ipc where engines and learner share them (cluster.colocate), gloo on a
    CPU."""
    verify_checksums: bool = True
    """Compare a checksum of every tensor as sent with the same tensor as received."""
    verify_probe: bool = True
    """Compare a fixed prompt's log-probabilities between the learner and each engine."""
    probe_tolerance: PositiveFloat | None = None
    """Largest mean difference allowed, in nats; one token may differ by ten times as much. None:
    0.001 in float32, 0.02 in float32 on GPUs, whose kernels round to TF32, 0.1 where weights,
    engines or learner have a 16-bit type."""
    packed_buffer_mib: PositiveInt = 256
    """Size of each of NCCL's two packing buffers, in MiB; of ipc's only one, if its largest
    tensor is no larger."""


LabelWanted = Annotated[str, Field(pattern=r"^!?(\w[\w.-]*|in\(\w[\w.-]*(, ?\w[\w.-]*)*\))$")]
"""A node label's value as a selector: "rollout", "!spot", "in(a,b)", "!in(a,b)"."""


class NodesConfig(StrictConfig):
    """The nodes that processes may be placed on; empty: any."""

    labels: dict[str, LabelWanted] = Field(default_factory=dict)
    """Required node labels of Ray, such as {role: rollout}; a value may also be
    "!spot", "in(a,b)" or "!in(a,b)"."""
    resources: dict[str, PositiveFloat] = Field(default_factory=dict)
    """Custom resources that each process takes besides CPU and GPU."""


class HealthConfig(StrictConfig):
    """Health checks of engines, restarts and retries."""

    heartbeat_s: PositiveFloat = 5
    """Seconds between two health checks of an engine."""
    suspect_after_s: PositiveFloat = 20
    """Seconds without an answer after which an engine gets no new requests."""
    dead_after_s: PositiveFloat = 60
    """Seconds without an answer after which an engine is ended and restarted, and a learner rank
    is replaced. vLLM's own process behind an engine is ended when it was stopped, or idle without
    an answer, for so long."""
    max_restarts: NonNegativeInt = 5
    """Restarts of one engine within restart_window_s; one more death and it is abandoned. 0: a lost
    engine is not restarted."""
    restart_window_s: PositiveFloat = 3600
    max_resends: NonNegativeInt = 3
    """Retries of a request whose engine was lost, or could not sample it. Without this bound a
    request that crashes engines would end them all."""
    max_broadcasts: PositiveInt = 3
    """Maximum broadcasts of the same weights, if engines are lost during them."""

    @model_validator(mode="after")
    def check_order(self) -> HealthConfig:
        if self.dead_after_s <= self.suspect_after_s:
            reason = f"must be above suspect_after_s, which is {self.suspect_after_s:g}."
            raise RelationError([ConfigFault("dead_after_s", f"{self.dead_after_s:g}", reason)])
        return self


class WatchdogConfig(StrictConfig):
    """What happens when no part of a run makes progress."""

    after_s: PositiveFloat = 300
    """Longest time without progress of the whole run: no token, no pass, no weight sent, no phase
    of a step, no file. Then the Python stacks of every process of the run on every node, the
    engines' states, queues and prompts are written to hangs/ in the run's directory."""
    action: Literal["warn", "checkpoint_and_stop"] = "warn"
    """Then: name the files, once for each hang; or end the run as SIGTERM does, with a checkpoint
    of the last whole step."""


class ElasticConfig(StrictConfig):
    """Autoscaling of engine pools whose count is a range.

    Decided after each step, from the busy fractions of each pool and of the learner.
    """

    grow_above: float = Field(default=0.5, gt=0, le=1)
    """A pool grows when its engines were busy for more than this share of the step, on average,
    and nothing else was busy for longer."""
    grow_min_inflight: PositiveFloat = 8
    """And when its engines, while busy, worked on at least this many completions at a time: with
    fewer, one more engine would be mostly idle."""
    grow_after_steps: PositiveInt = 2
    """Consecutive steps in favour of growing before an engine is requested."""
    shrink_below: float = Field(default=0.15, ge=0, lt=1)
    """A pool shrinks when its engines were busy for less than this share of the step, or when
    they would have fewer than grow_min_inflight completions at a time with one engine fewer. At
    most half of grow_above: the work of two engines can make the remaining one twice as busy."""
    shrink_after_steps: PositiveInt = 5
    """Consecutive steps in favour of shrinking before an engine and its resources are released."""

    @model_validator(mode="after")
    def check_distance(self) -> ElasticConfig:
        if self.shrink_below > self.grow_above / 2:
            half = f"{self.grow_above / 2:g}"
            reason = f"must be at most half of grow_above ({half}): a pool that shrank would grow."
            raise RelationError([ConfigFault("shrink_below", f"{self.shrink_below:g}", reason)])
        return self


class ClusterConfig(StrictConfig):
    """Ray, and the device of the models."""

    address: str = "auto"
    """auto: the cluster named by RAY_ADDRESS if that is set, else a local Ray for this run. local:
    always the latter. Anything else: that cluster."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: cuda where the cluster has GPUs, or this machine has GPUs and vLLM's CUDA build."""
    colocate: bool | Literal["auto"] = False
    """Put one engine and one learner rank on each GPU, in turn: engines are offloaded while the
    learner computes, and the learner's states are in host memory while the engines sample. For few
    GPUs: nothing overlaps. Needs engines.shared, as many engines as ranks, and learner.zero_stage
    2. Engines that share a GPU are not restarted. auto: only where this machine has too few GPUs
    for one pool of engines beside the learner; where it has enough for that and fewer than asked
    for, one pool serves every layer. Keys of engines and learner are then set to fit. On a cluster
    auto is false."""
    dashboard: bool = False
    """Start the dashboard of a local Ray on 127.0.0.1; the run prints its address. It takes about
    10 s and 0.6 GiB. A cluster always has one."""
    engine_nodes: NodesConfig = NodesConfig()
    """Nodes of the engines."""
    learner_nodes: NodesConfig = NodesConfig()
    """Nodes of the learner's ranks."""
    env_prefixes: list[str] = Field(default=["NCCL_", "VLLM_", "HF_", "MGRPO_", "TORCH_"])
    """Environment variables with these prefixes are passed to the actors; no others are."""
    deadlines: DeadlinesConfig = DeadlinesConfig()
    health: HealthConfig = HealthConfig()
    watchdog: WatchdogConfig = WatchdogConfig()
    elastic: ElasticConfig = ElasticConfig()

    @property
    def takes_environment(self) -> bool:
        """Whether RAY_ADDRESS determines the run's cluster."""
        return self.address == "auto"

    @property
    def joins(self) -> str | None:
        """The address of the cluster that the run joins; None: it starts a local Ray."""
        address = os.environ.get("RAY_ADDRESS", "") if self.takes_environment else self.address
        return None if address.strip() in ("", "local") else address.strip()

    @property
    def has_roles(self) -> bool:
        """Whether engines or learner must be on nodes of their own."""
        return (self.engine_nodes, self.learner_nodes) != (NodesConfig(), NodesConfig())

    @property
    def takes_turns(self) -> bool:
        """Whether engines and learner share their GPUs. False as long as `auto` is not decided."""
        return self.colocate is True

    @property
    def starts_ray(self) -> bool:
        """Whether the run starts a local Ray instead of joining a cluster."""
        return self.joins is None
