"""An engine that answers from a function: the light twin of `VllmEngine`.

With it the whole rollout runs without a model, in tests and in examples.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from actors.shortest import kept_first
from mgrpo.config.layers import Speculation, Stop
from mgrpo.records.turns import Prompt
from mgrpo.types import Generation

Script = Callable[[list[int], int], str]  # (prompt token ids, its number) -> completion text


class ScriptedEngine:
    """Answers each prompt from the script, at once or after a pause.

    Args:
        script: makes a completion's text.
        encode: makes its token ids; the end-of-turn token is added.
        end_id: the end-of-turn token.
        pause_s: how long an answer takes, by prompt; lets tests order events.
    """

    def __init__(
        self,
        script: Script,
        *,
        encode: Callable[[str], Sequence[int]],
        end_id: int,
        name: str = "scripted",
        pause_s: Callable[[list[int]], float] = lambda prompt: 0.0,
    ) -> None:
        self.script, self.encode, self.end_id = script, encode, end_id
        self.name, self.pause_s = name, pause_s
        self.num_inflight = 0
        self.policy_version = 0
        self.prompts: list[list[int]] = []
        self.seeds: list[int] = []
        self.asked: list[dict[str, Any]] = []  # what else came with each prompt

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
    ) -> list[Generation]:
        self.asked.append(
            {
                "num_samples": num_samples,
                "max_tokens": max_tokens,
                "temperature": temperature,
                "speculation": speculation,
                "stop": stop,
                "priority": priority,
            }
        )
        token_ids = prompt.token_ids.tolist()
        self.prompts.append(token_ids)
        self.seeds.append(seed)
        await asyncio.sleep(self.pause_s(token_ids))
        texts = [self.script(token_ids, index) for index in range(num_samples + num_spare)]
        whole = [self.generation(text, max_tokens) for text in texts]
        ordered = kept_first(dict(enumerate(whole)), num_samples)
        dropped = [replace(one, finish_reason="aborted") for one in ordered[num_samples:]]
        return [*ordered[:num_samples], *dropped]

    def generation(self, text: str, max_tokens: int) -> Generation:
        ids = [*self.encode(text), self.end_id]
        is_cut = len(ids) > max_tokens
        kept = ids[:max_tokens]
        return Generation(
            token_ids=np.array(kept, dtype=np.int32),
            logprobs=np.full(len(kept), -0.5, dtype=np.float32),
            finish_reason="length" if is_cut else "stop",
            version_spans=((0, self.policy_version),),
            text=text,
        )
