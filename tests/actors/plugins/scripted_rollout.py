"""A rollout on a scripted engine, and completions, that the plug-ins' tests share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from actors.plugin import RolloutPlugin
from actors.rollout import Rollout
from actors.scripted import ScriptedEngine
from actors.templates import PromptBuilder
from cluster.fleet.leases import FixedEngines
from mgrpo.config import CorrectLayer, SolveLayer
from mgrpo.plugin import find_plugin
from mgrpo.types import Completion, Problem, Reward
from tests.actors.byte_tokenizer import END, ByteTokenizer

TOKENIZER = ByteTokenizer()
PROBLEM = Problem(problem_id="p", question="3+4?", answer="7", solution="3 and 4 are 7")


class EndsWithAnswer:
    """A text is right when it ends with the answer, in a box or not."""

    def __init__(self) -> None:
        self.scored: list[str] = []

    async def score(self, problem: Problem, texts: list[str], *_: object) -> list[Reward]:
        self.scored += texts
        right = [text.rstrip("}.").endswith(problem.answer) for text in texts]
        return [Reward(value=float(is_right), correct=is_right) for is_right in right]


def plugin(use: str, *layers: int, **settings: Any) -> Any:
    """One of our plug-ins, on layer 1 unless others are named."""
    kind = find_plugin(use)
    return kind(kind.Settings.model_validate(settings), frozenset(layers or (1,)))


def rollout(
    script: Callable[[str, int], str],
    plugins: Sequence[RolloutPlugin],
    *,
    group_sizes: Sequence[int] = (4,),
    seed: int = 0,
    **layer: Any,
) -> Rollout:
    """`script` says what answers a prompt's text, by the sample's number."""
    engine = ScriptedEngine(
        lambda prompt, index: script(TOKENIZER.decode(prompt), index),
        encode=TOKENIZER.encode,
        end_id=END,
    )
    layers = [
        (SolveLayer if n == 1 else CorrectLayer).model_validate(
            {"name": f"layer{n}", "group_size": size, **layer}
        )
        for n, size in enumerate(group_sizes, start=1)
    ]
    return Rollout(
        engines=FixedEngines({number: [engine] for number in range(1, len(layers) + 1)}),
        scorer=EndsWithAnswer(),
        builder=PromptBuilder(TOKENIZER),
        layers=layers,
        temperature=1.0,
        seed=seed,
        plugins=plugins,
    )


def sampled(parts: Rollout, problem: Problem = PROBLEM) -> list[Completion]:
    return asyncio.run(parts.run(0, [problem]))
