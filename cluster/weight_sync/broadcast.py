"""The weight broadcast after each update, and its verification.

Three checks: the version that each engine reports, always; a checksum of every tensor as sent
against the same tensor as received (the wire), and a fixed prompt's log-probabilities on learner
and engines (the whole way, loading included), both unless the recipe turns them off.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cluster.engine_actor import EngineActor
from cluster.progress_board import Counter
from cluster.remote import Call, RemoteActor, Result, wait_for
from cluster.weight_sync.engine_client import SYNC_DEADLINE, EngineClient, RankActor
from cluster.weight_sync.handover import Handover, SeparateGpus, SharedGpus
from mgrpo.config import WeightsConfig
from mgrpo.errors import WeightSyncError

# Nats, of the mean. Two 16-bit programs round each logit by themselves, up to 0.25 where logits are
# near 50; a weight that is not as sent moves all tokens. For float32 on GPUs vLLM's attention is
# Triton's, which multiplies in TF32: simulated on the shipped policy: 0.002; one token 0.035.
DEFAULT_TOLERANCE = {"float32": 0.001, "tf32": 0.02, "bfloat16": 0.1}
ONE_TOKEN = 10.0  # times the tolerance of the mean


@dataclass(frozen=True, slots=True)
class SyncReport:
    """Measurements of one verified broadcast."""

    policy_version: int
    seconds: float
    num_tensors: int
    probe_gap_max: float | None  # nats; None when verify_probe is off
    num_bytes: int = 0  # of the weights, once


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupSettings:
    """Settings of a weight group."""

    backend: str  # "gloo", "nccl" or "ipc"
    workers_per_engine: int
    shares_gpus: bool  # engines and learner take turns (cluster.colocate)
    deadline_s: float  # longest joining, and longest broadcast with its verification
    in_flight: bool = False  # running requests go on with the new weights


class WeightBroadcaster:
    """Sends the learner's weights to engines, and verifies the arrival.

    The weight group is the learner and the engines of the last broadcast. For other engines a new
    group is made, which costs one rendezvous of all.

    Args:
        learner: rank actors; all take part, rank 0 sends.
        group: how learner and engines meet.
        config: which checks.
        dtype: the coarsest of learner and engines, for the probe's default tolerance.
        probe_token_ids: a fixed token sequence, at least two tokens.
        progress: of the learner's ranks; a deadline is then for a time without any.
    """

    def __init__(
        self,
        learner: Sequence[RemoteActor[RankActor]],
        *,
        group: GroupSettings,
        config: WeightsConfig,
        dtype: str,
        probe_token_ids: list[int],
        progress: Counter | None = None,
    ) -> None:
        self.learner = list(learner)
        self.engines: list[RemoteActor[EngineActor]] = []  # in the group with the learner
        self.group, self.config = group, config
        self.tolerance = config.probe_tolerance or DEFAULT_TOLERANCE[dtype]
        self.probe_token_ids, self.progress = probe_token_ids, progress
        self.meanwhile: Callable[[], None] | None = None  # about once a second in each wait
        self.num_groups = 0  # made so far
        self.handover: Handover = (
            SharedGpus(self.wait, learner)
            if group.shares_gpus
            else SeparateGpus(self.wait, in_flight=group.in_flight)
        )

    def connect(self, engines: Sequence[RemoteActor[EngineActor]]) -> None:
        """Make a weight group of the learner and these engines, in place of the one before.

        Raises:
            DeadlineError, ActorDiedError, MgrpoError: a process did not join; there is no group.
        """
        self.disband()
        group = self.group
        client = EngineClient(
            engines, workers_per_engine=group.workers_per_engine, deadline_s=group.deadline_s
        )
        ((address, port),) = self.wait([self.learner[0].submit(RankActor.meeting_point)])
        calls = [
            rank.submit(
                RankActor.connect,
                client,
                backend=group.backend,
                address=address,
                port=port,
                num_receivers=group.workers_per_engine * len(engines),
            )
            for rank in self.learner
        ]
        self.wait(calls, "join the weight group")
        self.engines = list(engines)
        self.num_groups += 1

    def disband(self) -> None:
        """Forget the group: the next broadcast makes a new one."""
        self.engines = []

    def broadcast(
        self, policy_version: int, engines: Sequence[RemoteActor[EngineActor]]
    ) -> SyncReport:
        """Hand GPUs over to the broadcast, send, commit, verify, hand them to the engines.

        Args:
            policy_version: the learner's.
            engines: the receivers; at least one.

        Raises:
            WeightSyncError: an engine holds other weights than the learner.
            DeadlineError, ActorDiedError: naming the process.
        """
        began = time.monotonic()
        if self.engines != list(engines):
            self.connect(engines)
        self.handover.to_broadcast(self.engines)
        calls = [rank.submit(RankActor.send_weights, policy_version) for rank in self.learner]
        sent = self.wait(calls)[0]
        self.check_versions(policy_version)
        if self.config.verify_checksums:
            self.check_checksums(sent.checksums, policy_version)
        expected = self.expected_probe()
        self.handover.to_engines(self.engines)
        gap = None if expected is None else self.check_probe(policy_version, expected)
        seconds = time.monotonic() - began
        return SyncReport(policy_version, seconds, len(sent.checksums), gap, sent.num_bytes)

    def check_versions(self, policy_version: int) -> None:
        calls = [engine.submit(EngineActor.weight_version) for engine in self.engines]
        for engine, version in zip(self.engines, self.wait(calls), strict=True):
            if version != str(policy_version):
                raise WeightSyncError(
                    f"{engine.name} reports policy version {version!r} after the broadcast of "
                    f"version {policy_version}. It holds other weights, so the run stops instead "
                    "of sampling from them."
                )

    def check_checksums(self, sent: dict[str, int], policy_version: int) -> None:
        calls = [engine.submit(EngineActor.received_checksums) for engine in self.engines]
        for engine, workers in zip(self.engines, self.wait(calls), strict=True):
            for worker, received in enumerate(workers):
                differing = differing_tensors(sent, received)
                if differing:
                    raise WeightSyncError(
                        f"{engine.name} (worker {worker}) received {len(differing)} of "
                        f"{len(sent)} tensors of policy version {policy_version} that are not as "
                        f"sent: {', '.join(differing[:5])}. The transport corrupts data; check "
                        "the network and the memory of that node, then resume the run."
                    )

    def expected_probe(self) -> list[float] | None:
        """The probe's log-probabilities on the learner; None where they are not compared."""
        if not self.config.verify_probe:
            return None
        tokens = self.probe_token_ids
        return self.wait([one.submit(RankActor.probe_logprobs, tokens) for one in self.learner])[0]

    def check_probe(self, policy_version: int, expected: Sequence[float]) -> float:
        """Largest log-probability difference over the probe, learner against every engine."""
        worst, tokens = 0.0, self.probe_token_ids
        calls = [engine.submit(EngineActor.probe_logprobs, tokens) for engine in self.engines]
        for engine, found in zip(self.engines, self.wait(calls), strict=True):
            mean, largest = differences(expected, found)
            # Written so that NaN is refused, too.
            if not (mean <= self.tolerance and largest <= ONE_TOKEN * self.tolerance):
                raise WeightSyncError(
                    f"{engine.name}'s probe log-probabilities differ from the learner's after the "
                    f"broadcast of version {policy_version}: mean {mean:.4g} nats, max "
                    f"{largest:.4g} (limits {self.tolerance:g} and "
                    f"{ONE_TOKEN * self.tolerance:g}). The weights arrived but were not loaded as "
                    "sent. If the two compute in different precision, raise "
                    "weights.probe_tolerance."
                )
            worst = max(worst, largest)
        return worst

    def wait(self, calls: Sequence[Call[Result]], doing: str | None = None) -> list[Result]:
        return wait_for(
            calls,
            doing=doing,
            deadline_s=self.group.deadline_s,
            setting=SYNC_DEADLINE,
            meanwhile=self.meanwhile,
            progress=self.progress,
        )


def differing_tensors(sent: dict[str, int], received: dict[str, int]) -> list[str]:
    """Names of tensors that are missing, extra or different on the receiving side."""
    names = [*sent, *(name for name in received if name not in sent)]
    return [name for name in names if sent.get(name) != received.get(name)]


def differences(expected: Sequence[float], found: Sequence[float]) -> tuple[float, float]:
    """(mean, largest) absolute difference; infinite for different lengths, NaN if any value is."""
    if len(expected) != len(found):
        return math.inf, math.inf
    gaps = [abs(a - b) for a, b in zip(expected, found, strict=True)]
    if any(math.isnan(gap) for gap in gaps):
        return math.nan, math.nan
    return sum(gaps) / max(1, len(gaps)), max(gaps, default=0.0)
