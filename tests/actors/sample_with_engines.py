"""Run by test_real_engines.py in a process of its own; writes what it sampled as JSON.

The same requests go to an engine without drafts and to one that drafts. The first also samples a
group whole and again with over-sampling; in the middle of the last it is paused and its version
changes.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

from actors.engine import EngineSettings, VllmEngine
from actors.templates import PromptBuilder
from mgrpo.config import CorrectLayer, SolveLayer
from mgrpo.config.layers import Speculation, Stop
from mgrpo.config.run import ModelConfig
from mgrpo.models.policy_tokenizer import load_builder
from mgrpo.records.turns import Prompt
from mgrpo.types import Generation

SOLVE = SolveLayer(name="solve", group_size=2, system_prompt="")
CORRECT = CorrectLayer(name="correct", group_size=2, system_prompt="Check the attempt.")
SUMS = ((34, 52), (18, 77), (65, 29), (48, 41), (83, 12), (27, 96))
MAX_TOKENS = 48


async def main(model_dir: str, output: Path) -> None:
    builder = load_builder(model_dir, ModelConfig(path=model_dir))
    found: dict[str, Any] = {}
    for name, speculation in (("plain", None), ("drafting", Speculation(max_draft_tokens=5))):
        engine = started(model_dir, builder, speculation)
        await engine.start()
        found[name] = await corrected(engine, builder, speculation)
        if speculation is None:
            found |= await stopped_and_paused(engine, builder)
        await engine.stop()
    output.write_text(json.dumps(found, default=lambda column: column.tolist()))


async def corrected(
    engine: VllmEngine, builder: PromptBuilder, speculation: Speculation | None
) -> dict[str, Any]:
    """Attempts, and corrections of them at several temperatures."""
    prompts = [builder.solve_prompt(SOLVE, f"What is {one} + {two}?") for one, two in SUMS]
    attempts = await sample(engine, prompts, temperature=1.0)
    corrections = [
        builder.correction_prompt(
            CORRECT,
            f"What is {one} + {two}?",
            parent_prompt_ids=prompt,
            parent_ids=attempt.token_ids,
            guidance="Is that right?",
            parent_answer=None,
        )
        for (one, two), prompt, (attempt, *_) in zip(SUMS, prompts, attempts, strict=True)
    ]
    asked = {"speculation": speculation}
    return {
        "prompts": [list(map(int, prompt)) for prompt in corrections],
        "undrafted": plain(attempts),
        **{
            str(temperature): plain(
                await sample(engine, corrections, temperature=temperature, **asked)
            )
            for temperature in (0.0, 0.7, 1.0)
        },
    }


async def stopped_and_paused(engine: VllmEngine, builder: PromptBuilder) -> dict[str, Any]:
    layer = SolveLayer(name="solve", group_size=2)
    prompt = Prompt.of(builder.solve_prompt(layer, "What is 3 + 4?"))
    asked: dict[str, Any] = {"num_samples": 4, "max_tokens": 64, "temperature": 1.0}
    group = await engine.generate(prompt, **asked, seed=1)
    six = await engine.generate(prompt, **{**asked, "num_samples": 6}, seed=3)
    spared = await engine.generate(prompt, **{**asked, "num_samples": 2}, seed=3, num_spare=4)
    stopped_by = group[0].text[4:7]
    stopped = await engine.generate(prompt, **asked, seed=1, stop=Stop(texts=[stopped_by]))
    order = await order_of(engine, prompt, priorities=[5, 7, 6])
    num_left = len(engine.engine.output_processor.request_states)
    later = asyncio.create_task(engine.generate(prompt, **asked, seed=2))
    counts = await change_version(engine, "1")
    names = ("group", "later", "six", "spared", "stopped")
    groups = plain([group, await later, six, spared, stopped])
    return {
        **dict(zip(names, groups, strict=True)),
        "counts": counts,
        "order": order,
        "num_left": num_left,
        "stopped_by": stopped_by,
    }


def started(model_dir: str, builder: PromptBuilder, speculation: Speculation | None) -> VllmEngine:
    return VllmEngine(
        EngineSettings(
            name="engine",
            model_dir=model_dir,
            dtype="float32",
            max_model_len=256,
            max_num_seqs=8,
            tensor_parallel_size=1,
            gpu_memory_utilization=0.2,
            enforce_eager=True,
            device="cpu",
            weight_backend="gloo",
            seed=0,
            extra_args={},
            stop_token_ids=builder.stop_ids,
            max_draft_tokens=speculation.max_draft_tokens if speculation else 0,
        )
    )


async def sample(
    engine: VllmEngine, prompts: list[list[int]], *, temperature: float, **asked: Any
) -> list[list[Generation]]:
    """All prompts at the same time: more completions than the engine samples at a time."""
    num_samples = 4 if temperature > 0 else 1
    return await asyncio.gather(
        *(
            engine.generate(
                Prompt.of(prompt),
                num_samples=num_samples,
                max_tokens=MAX_TOKENS,
                temperature=temperature,
                seed=seed,
                **asked,
            )
            for seed, prompt in enumerate(prompts, start=7)
        )
    )


def plain(groups: list[list[Generation]]) -> list[list[dict[str, Any]]]:
    return [[dataclasses.asdict(one) for one in group] for group in groups]


async def order_of(engine: VllmEngine, prompt: Prompt, priorities: list[int]) -> list[int]:
    """In which order requests end that each fill the engine, begun in the order given."""
    ended: list[int] = []

    async def sample(priority: int) -> None:
        given = {"num_samples": engine.settings.max_num_seqs, "max_tokens": 4, "temperature": 1.0}
        await engine.generate(prompt, **given, seed=priority, priority=priority)
        ended.append(priority)

    await asyncio.gather(*(sample(one) for one in priorities))
    return ended


async def change_version(engine: VllmEngine, version: str) -> list[int]:
    """Once a few tokens are there; returns how many each completion had by then."""
    before = await engine.num_sampled_tokens()
    while await engine.num_sampled_tokens() < before + 12:
        await asyncio.sleep(0.002)
    await engine.engine.pause_generation(mode="keep", clear_cache=True)
    states = engine.engine.output_processor.request_states.values()
    counts = {one.request_index: one.detokenizer.num_output_tokens() for one in states}
    await engine.engine.update_weight_version(version)
    await engine.resume()
    return [counts[index] for index in sorted(counts)]


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
