"""Engines and a learner without models, in real Ray actors: everything but the bytes of weights.

They die when told to, in the middle of whatever they are asked.
"""

from __future__ import annotations

import asyncio
import os
import uuid
from functools import partial
from typing import Any

from cluster.address import own_address
from cluster.allocations import Allocation
from cluster.placement import Placement
from cluster.progress_board import Progress
from cluster.remote import RemoteActor
from cluster.weight_sync.engine_client import SentWeights
from mgrpo.errors import RequestError
from mgrpo.records.turns import Prompt
from mgrpo.types import Generation

REFUSED_PROMPT = [13]


class LightEngine:
    """Answers like `VllmEngine`; a completion's tokens say which seed and prompt made it."""

    def __init__(self, name: str, pause_s: float, loads: bool) -> None:
        self.name, self.pause_s, self.loads = name, pause_s, loads
        self.version = "0"
        self.dies_at = ""
        self.num_tokens = 0
        self.hangs_at: set[str] = set()
        self.needs: list[str] = []  # what is to wake, in this order, before it can work

    async def reach(self, method: str) -> None:
        if method == self.dies_at:
            os._exit(1)
        if method in self.hangs_at:
            await asyncio.sleep(3600)

    def process_id(self) -> int:
        return os.getpid()

    async def die_at(self, method: str) -> None:
        self.dies_at = method

    async def hang_at(self, *methods: str) -> None:
        self.hangs_at = set(methods)

    async def start(self) -> str:
        await asyncio.sleep(0 if self.loads else 3600)
        return self.name

    def progress(self) -> Progress:
        return Progress(0, "its start", 0)

    async def stop(self) -> None:
        await self.reach("stop")

    async def check_health(self) -> None:
        await self.reach("check_health")

    async def num_sampled_tokens(self) -> int:
        await self.reach("num_sampled_tokens")
        return self.num_tokens

    async def generate(
        self,
        prompt: Prompt,
        *,
        num_samples: int,
        max_tokens: int,
        temperature: float,
        seed: int,
        **_: object,
    ) -> list[Generation]:
        await self.reach("generate")
        assert not self.needs, "asleep"
        token_ids = prompt.token_ids.tolist()
        if token_ids == REFUSED_PROMPT:
            raise RequestError(f"{self.name} failed to sample it")
        await asyncio.sleep(self.pause_s)
        self.num_tokens += num_samples
        return [
            Generation(
                token_ids=[*token_ids, seed, index],
                logprobs=[-0.5] * (len(token_ids) + 2),
                finish_reason="stop",
                version_spans=((0, int(self.version)),),
                text=str(seed),
            )
            for index in range(num_samples)
        ]

    async def pause(self, *, in_flight: bool) -> None:
        await self.reach("pause")

    async def resume(self) -> None:
        await self.reach("resume")

    async def sleep(self) -> None:
        await self.reach("sleep")
        self.needs = ["weights", "kv_cache"]

    async def wake(self, part: str) -> None:
        await self.reach("wake")
        assert self.needs.pop(0) == part

    async def init_weight_transfer_engine(self, init_info: dict[str, object]) -> None:
        await self.reach("init_weight_transfer_engine")

    async def start_weight_update(self) -> None:
        await self.reach("start_weight_update")

    async def update_weights(self, update_info: Any) -> None:
        await self.reach("update_weights")

    async def finish_weight_update(self, weight_version: str) -> None:
        await self.reach("finish_weight_update")
        self.version = weight_version

    async def abandon_weight_update(self) -> None:
        await self.reach("abandon_weight_update")

    async def weight_version(self) -> str:
        return self.version

    async def received_checksums(self) -> list[dict[str, int]]:
        return [{"weight": int(self.version)}]

    async def probe_logprobs(self, token_ids: list[int]) -> list[float]:
        await self.reach("probe_logprobs")
        return [-float(self.version)]


class LightLearner:
    """Drives the engines' side of a broadcast as vLLM's trainer engine does, and sends nothing."""

    def __init__(self) -> None:
        self.version = 0
        self.client: Any = None
        self.dies = False
        self.away: list[str] = []

    def meeting_point(self) -> tuple[str, int]:
        return own_address(), 1

    def die_at_next_broadcast(self) -> None:
        self.dies = True

    def connect(self, client: Any, **keys: Any) -> None:
        self.client = client
        client.init_weight_transfer_engine({"rank_offset": 1})

    def send_weights(self, policy_version: int) -> SentWeights:
        if self.dies:
            os._exit(1)
        self.client.version = str(policy_version)
        self.client.start_weight_update()
        self.client.update_weights({})
        self.client.finish_weight_update()
        self.version = policy_version
        return SentWeights({"weight": policy_version}, 8)

    def probe_logprobs(self, token_ids: list[int]) -> list[float]:
        return [-float(self.version)]

    def leave_gpu(self, part: str) -> None:
        self.away.append(part)

    def return_to_gpu(self) -> None:
        self.away = []

    def what_is_away(self) -> list[str]:
        return self.away


class LightLauncher:
    """Makes light engines in a placement's allocations."""

    def __init__(self, placement: Placement, *, pause_s: float = 0.05) -> None:
        self.placement, self.pause_s = placement, pause_s
        self.loads = True
        self.suffix = f".{uuid.uuid4().hex[:8]}"  # the test before may still hold its names

    def start_engine(self, allocation: Allocation, name: str) -> RemoteActor[LightEngine]:
        actor = self.placement.start(
            partial(LightEngine, name=allocation.name, pause_s=self.pause_s, loads=self.loads),
            allocation=allocation,
            bundle=0,
            name=name + self.suffix,
            environment={},
            answers_looks=True,
            max_concurrency=1000,
        )
        return RemoteActor(actor.handle, allocation.name)

    def start_learner(self, allocation: Allocation) -> RemoteActor[LightLearner]:
        actor = self.placement.start(
            partial(LightLearner),
            allocation=allocation,
            bundle=0,
            name="learner-rank-0" + self.suffix,
            environment={},
        )
        return RemoteActor(actor.handle, "learner-rank-0")
