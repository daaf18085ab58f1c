"""Run by test_stop_tokens.py in a process of its own: one engine, one group, written as JSON."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import sys
from pathlib import Path

from actors.engine import EngineSettings, VllmEngine
from mgrpo.config import SolveLayer
from mgrpo.config.run import ModelConfig
from mgrpo.models.policy_tokenizer import load_builder


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
    samples = await engine.generate(
        builder.solve_prompt(layer, "What is 3 + 4?"),
        num_samples=4,
        max_tokens=64,
        temperature=1.0,
        seed=1,
    )
    rows = [dataclasses.asdict(sample) for sample in samples]
    output.write_text(json.dumps(rows, default=lambda column: column.tolist()))
    await engine.stop()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
