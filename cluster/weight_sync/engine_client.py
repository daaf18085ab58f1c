"""How learner rank 0 drives the engines' side of a broadcast, and the ranks' side of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from cluster.engine_actor import EngineActor
from cluster.progress_board import Counter, Progress
from cluster.remote import Call, RemoteActor, Result, wait_for

SYNC_DEADLINE = "cluster.deadlines.weight_sync_s"


class EngineClient:
    """Drives the engines from inside learner rank 0: vLLM's four-method client protocol.

    vLLM's own client gives every engine the same ranks and waits without a deadline; this one
    gives each engine its own rank range and names the engine that did not answer.
    """

    def __init__(
        self,
        engines: Sequence[RemoteActor[EngineActor]],
        *,
        workers_per_engine: int,
        deadline_s: float,
    ) -> None:
        self.engines = list(engines)
        self.workers_per_engine = workers_per_engine
        self.deadline_s = deadline_s
        self.version = "0"
        self.progress: Counter | None = None  # of the rank's sending, in whose process this is

    def init_weight_transfer_engine(self, init_info: dict[str, object]) -> None:
        calls = []
        for index, engine in enumerate(self.engines):
            info = dict(init_info)
            offset = info.get("rank_offset")
            if isinstance(offset, int):  # a transport without ranks has none
                info["rank_offset"] = offset + index * self.workers_per_engine
            calls.append(engine.submit(EngineActor.init_weight_transfer_engine, info))
        self.wait(calls, "join the weight group")

    def start_weight_update(self) -> None:
        self.wait([engine.submit(EngineActor.start_weight_update) for engine in self.engines])

    def update_weights(self, update_info: dict[str, object] | list[dict[str, object]]) -> None:
        self.wait([one.submit(EngineActor.update_weights, update_info) for one in self.engines])

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        version = weight_version or self.version
        self.wait([one.submit(EngineActor.finish_weight_update, version) for one in self.engines])

    def wait(self, calls: list[Call[Result]], doing: str | None = None) -> list[Result]:
        return wait_for(
            calls,
            doing=doing,
            deadline_s=self.deadline_s,
            setting=SYNC_DEADLINE,
            progress=self.progress,
        )


@dataclass(frozen=True, slots=True)
class SentWeights:
    """What a rank sent; rank 0 sends all."""

    checksums: dict[str, int]  # by tensor; empty where there are none
    num_bytes: int


class RankActor(Protocol):
    """The methods of a learner rank's actor that the cluster calls; `learner.rank.LearnerRank` has
    them."""

    def meeting_point(self) -> tuple[str, int]: ...

    def progress(self) -> Progress: ...

    def connect(
        self, client: EngineClient, *, backend: str, address: str, port: int, num_receivers: int
    ) -> None: ...

    def send_weights(self, policy_version: int) -> SentWeights: ...

    def probe_logprobs(self, token_ids: list[int]) -> list[float]: ...

    def leave_gpu(self, part: Literal["weights", "optimizer"]) -> None: ...

    def return_to_gpu(self) -> None: ...
