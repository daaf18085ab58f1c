"""Run by test_speculation.py in a process of its own: the same requests to an engine without drafts
and to one that drafts, written as JSON."""

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
from mgrpo.config.layers import Speculation
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
    prompts = [builder.solve_prompt(SOLVE, f"What is {one} + {two}?") for one, two in SUMS]
    found: dict[str, Any] = {}
    for name, speculation in (("plain", None), ("drafting", Speculation(max_draft_tokens=5))):
        engine = started(model_dir, builder, speculation)
        await engine.start()
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
        found[name] = {
            "prompts": [list(map(int, prompt)) for prompt in corrections],
            "undrafted": plain(attempts),
            **{
                str(temperature): plain(
                    await sample(engine, corrections, temperature=temperature, **asked)
                )
                for temperature in (0.0, 0.7, 1.0)
            },
        }
        await engine.stop()
    output.write_text(json.dumps(found, default=lambda column: column.tolist()))


def started(model_dir: str, builder: PromptBuilder, speculation: Speculation | None) -> VllmEngine:
    return VllmEngine(
        EngineSettings(
            name="engine",
            model_dir=model_dir,
            dtype="float32",
            max_model_len=160,
            max_num_seqs=16,
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


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
