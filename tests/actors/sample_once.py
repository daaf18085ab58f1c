"""Run by test_stop_tokens.py in a process of its own: one engine, some groups, written as JSON.

One group is sampled whole and again with over-sampling. In the middle of the last the engine is
paused and its version changes.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import sys
from pathlib import Path

from actors.engine import EngineSettings, VllmEngine
from mgrpo.config import SolveLayer
from mgrpo.config.layers import Stop
from mgrpo.config.run import ModelConfig
from mgrpo.models.policy_tokenizer import load_builder
from mgrpo.records.turns import Prompt


async def main(model_dir: str, output: Path) -> None:
    builder = load_builder(model_dir, ModelConfig(path=model_dir))
    engine = VllmEngine(
        EngineSettings(
            name="engine",
            model_dir=model_dir,
            dtype="float32",
            max_model_len=256,
            max_num_seqs=8,
            tensor_parallel_size=1,
            gpu_memory_utilization=0.9,
            enforce_eager=True,
            device="cpu",
            weight_backend="gloo",
            seed=0,
            extra_args={},
            stop_token_ids=builder.stop_ids,
        )
    )
    await engine.start()
    layer = SolveLayer(name="solve", group_size=2)
    prompt = Prompt.of(builder.solve_prompt(layer, "What is 3 + 4?"))
    asked = {"num_samples": 4, "max_tokens": 64, "temperature": 1.0}
    group = await engine.generate(prompt, **asked, seed=1)
    six = await engine.generate(prompt, **{**asked, "num_samples": 6}, seed=3)
    spared = await engine.generate(prompt, **{**asked, "num_samples": 2}, seed=3, num_spare=4)
    stopped_by = group[0].text[4:7]
    stop = Stop(texts=[stopped_by])
    stopped = await engine.generate(prompt, **asked, seed=1, stop=stop)
    order = await order_of(engine, prompt, priorities=[5, 7, 6])
    num_left = len(engine.engine.output_processor.request_states)
    later = asyncio.create_task(engine.generate(prompt, **asked, seed=2))
    counts = await change_version(engine, "1")
    found = {
        "group": [dataclasses.asdict(one) for one in group],
        "later": [dataclasses.asdict(one) for one in await later],
        "counts": counts,
        "six": [dataclasses.asdict(one) for one in six],
        "spared": [dataclasses.asdict(one) for one in spared],
        "order": order,
        "num_left": num_left,
        "stopped_by": stopped_by,
        "stopped": [dataclasses.asdict(one) for one in stopped],
    }
    output.write_text(json.dumps(found, default=lambda column: column.tolist()))
    await engine.stop()


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
