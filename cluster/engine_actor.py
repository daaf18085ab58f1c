"""The methods of an engine's actor that the cluster calls; `actors.engine.VllmEngine` has them."""

from __future__ import annotations

from typing import Protocol

from cluster.progress_board import Progress
from mgrpo.config.layers import Speculation, Stop
from mgrpo.records.turns import Prompt
from mgrpo.types import Generation


class EngineActor(Protocol):
    """An engine in a process of its own. See `actors.engine.VllmEngine` for what the methods do."""

    async def start(self) -> str: ...

    def progress(self) -> Progress: ...

    async def stop(self) -> None: ...

    async def check_health(self) -> None: ...

    async def num_sampled_tokens(self) -> int: ...

    async def generate(
        self,
        prompt: Prompt,
        *,
        num_samples: int,
        max_tokens: int,
        temperature: float,
        seed: int,
        num_spare: int = 0,
        speculation: Speculation | None = None,
        stop: Stop | None = None,
        priority: int = 0,
    ) -> list[Generation]: ...

    async def pause(self, *, in_flight: bool) -> None: ...

    async def resume(self) -> None: ...

    async def sleep(self) -> None: ...

    async def wake(self, part: str) -> None: ...

    async def init_weight_transfer_engine(self, init_info: dict[str, object]) -> None: ...

    async def start_weight_update(self) -> None: ...

    async def update_weights(
        self, update_info: dict[str, object] | list[dict[str, object]]
    ) -> None: ...

    async def finish_weight_update(self, weight_version: str) -> None: ...

    async def abandon_weight_update(self) -> None: ...

    async def weight_version(self) -> str: ...

    async def received_checksums(self) -> list[dict[str, int]]: ...

    async def probe_logprobs(self, token_ids: list[int]) -> list[float]: ...
