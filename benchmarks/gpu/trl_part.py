"""TRL's loss, its backward pass and its optimizer step on the same rows; a process of its own.

    PYTHON benchmarks/gpu/trl_part.py ASKED.json FOUND.json

Runs where TRL is installed, without a package of ours. The loss, the trainer and the optimizer are
TRL's; the rows, and which of them are a micro-batch, are those of the learner's padded form.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import datasets
import torch
import transformers
import trl

SEED = 0


def main() -> None:
    asked = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    began = time.monotonic()
    trainer = make_trainer(asked, Path(sys.argv[1]).parent)
    device = trainer.accelerator.device
    trainer.create_optimizer()
    model, optimizer = trainer.accelerator.prepare(trainer.model, trainer.optimizer)
    model.train()
    microbatches = [padded(rows, asked["padding_id"], device) for rows in asked["microbatches"]]
    trainer.current_gradient_accumulation_steps = len(microbatches)
    trained = sum(len(row["completion"]) for rows in asked["microbatches"] for row in rows)
    seconds: list[float] = []
    for number in range(asked["rounds"] + 1):
        if device.type == "cuda":
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        update_began = time.perf_counter()
        for inputs in microbatches:
            trainer.accelerator.backward(trainer.compute_loss(model, inputs))
        trainer.accelerator.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if device.type == "cuda":
            torch.cuda.synchronize()
        spent = time.perf_counter() - update_began
        if number > 0:
            seconds.append(spent)
        elif time.monotonic() - began + spent > asked["budget_s"]:
            raise SystemExit("the first update alone took all of the time")
        if seconds and time.monotonic() - began + spent > asked["budget_s"]:
            break
    found = {
        "trl": trl.__version__,
        "torch": torch.__version__,
        "seconds": statistics.median(seconds),
        "lowest_s": min(seconds),
        "highest_s": max(seconds),
        "rounds": len(seconds),
        "trained_tokens_per_s": trained / statistics.median(seconds),
        "peak_bytes": torch.cuda.max_memory_allocated() if device.type == "cuda" else None,
    }
    Path(sys.argv[2]).write_text(json.dumps(found), encoding="utf-8")


def make_trainer(asked: dict[str, Any], folder: Path) -> trl.GRPOTrainer:
    """As in `trl_baseline.py`; in bfloat16 as TRL has it, by autocast over float32 weights."""
    transformers.logging.set_verbosity_error()
    settings = dict(asked["config"])
    kind, is_cpu = settings.pop("model_type"), asked["device"] == "cpu"
    torch.manual_seed(SEED)
    config = transformers.AutoConfig.for_model(kind, **settings)
    with torch.device(asked["device"]):
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    return trl.GRPOTrainer(
        model=model,
        args=trl.GRPOConfig(
            output_dir=str(folder / "trl"),
            max_steps=1,
            per_device_train_batch_size=2,
            num_generations=2,
            temperature=1.0,
            learning_rate=1e-12,
            weight_decay=0.0,
            beta=0.0,
            epsilon=0.2,
            loss_type="grpo",
            scale_rewards="group",
            num_iterations=1,
            use_cpu=is_cpu,
            bf16=asked["dtype"] == "bfloat16",
            gradient_checkpointing=asked["gradient_checkpointing"],
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            seed=SEED,
        ),
        processing_class=transformers.AutoTokenizer.from_pretrained(
            folder / "tokenizer", padding_side="left"
        ),
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        train_dataset=datasets.Dataset.from_dict({"prompt": ["1 + 1 ="]}),
    )


def padded(rows: list[dict[str, Any]], padding_id: int, device: torch.device) -> dict[str, Any]:
    """Rows as TRL's loss reads them: prompts padded on the left, completions on the right."""
    prompts, completions = ([row[name] for row in rows] for name in ("prompt", "completion"))
    before, after = max(map(len, prompts)), max(map(len, completions))

    def table(lines: list[list[int]]) -> torch.Tensor:
        return torch.tensor(lines, device=device)

    return {
        "prompt_ids": table([[padding_id] * (before - len(one)) + one for one in prompts]),
        "prompt_mask": table([[0] * (before - len(one)) + [1] * len(one) for one in prompts]),
        "completion_ids": table([one + [padding_id] * (after - len(one)) for one in completions]),
        "completion_mask": table(
            [[1] * len(one) + [0] * (after - len(one)) for one in completions]
        ),
        "advantages": torch.tensor([row["advantage"] for row in rows], device=device),
    }


if __name__ == "__main__":
    main()
