"""TRL's GRPOTrainer on the workload of the step-time benchmark.

Runs in .venv-trl, which benchmarks/step_time.py makes, apart from our own packages:

    .venv-trl/bin/python benchmarks/trl_baseline.py WORKLOAD --steps 8

Writes one JSON line with versions, then one per step: {"step": 2, "seconds": 7.1,
"sampling_seconds": 3.1, "completion_tokens": 12288}. A step's seconds run from the end of the
step before to its own end, so they hold sampling, rewards, the update and whatever the trainer
does between steps. Step 0 has no step before it and is left out. Sampling ends when the rewards are
requested.

Every choice that the workload leaves open is made for speed: no gradient checkpointing (on by
default in TRL), no saving, no progress bar, no logging, and a number of completions per forward
and backward that is faster than all at once.
"""

from __future__ import annotations

import argparse
import json
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import datasets
import torch
import transformers
import trl
from digit_share import digit_share  # type: ignore[import-not-found]

PACKAGES = ("trl", "torch", "transformers", "accelerate", "datasets")


class StepClock(transformers.TrainerCallback):
    """When each step ended."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.ends.append(time.perf_counter())


class CountingReward:
    """`digit_share` as TRL calls it; notes when, and how many tokens were sampled."""

    __name__ = "digit_share"

    def __init__(self) -> None:
        self.tokens: list[int] = []  # one entry per step, like `called`
        self.called: list[float] = []

    def __call__(
        self, completions: list[str], completion_ids: list[list[int]], **_: Any
    ) -> list[float]:
        self.called.append(time.perf_counter())
        self.tokens.append(sum(len(ids) for ids in completion_ids))
        return [digit_share(text) for text in completions]


def main() -> None:
    args = parse()
    workload = Path(args.workload)
    profile = json.loads((workload / "profile.json").read_text(encoding="utf-8"))
    batch_size = args.batch_size or profile["trl_batch_size"]
    clock, reward = StepClock(), CountingReward()
    trainer = make_trainer(workload, profile, args.steps, batch_size, reward)
    trainer.add_callback(clock)
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.train()

    lines: list[dict[str, Any]] = [
        {
            "versions": {name: metadata.version(name) for name in PACKAGES},
            "threads": torch.get_num_threads(),
            "batch_size": batch_size,
        }
    ]
    lines += [step_row(step, clock, reward) for step in range(1, args.steps)]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    if args.output:
        Path(args.output).write_text(text, encoding="utf-8")
    else:
        print(text, end="")


def step_row(step: int, clock: StepClock, reward: CountingReward) -> dict[str, Any]:
    """What one step took. TRL asks for all of a step's rewards in one call."""
    began = clock.ends[step - 1]
    return {
        "step": step,
        "seconds": clock.ends[step] - began,
        "sampling_seconds": reward.called[step] - began,
        "completion_tokens": reward.tokens[step],
    }


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Time TRL's GRPO steps on a workload.")
    parser.add_argument("workload", help="folder written by benchmarks/workload.py")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--batch-size", type=int, help="completions per forward and backward")
    parser.add_argument("--output", help="file for the JSON lines, instead of standard output")
    return parser.parse_args()


def make_trainer(
    workload: Path, profile: dict[str, Any], steps: int, batch_size: int, reward: CountingReward
) -> trl.GRPOTrainer:
    model_dir = str(workload / "model")
    tokenizer = transformers.AutoTokenizer.from_pretrained(model_dir, padding_side="left")
    model = transformers.AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32)
    completions = profile["num_prompts"] * profile["group_size"]
    config = trl.GRPOConfig(
        output_dir=str(workload / "trl"),
        max_steps=steps,
        per_device_train_batch_size=batch_size,
        gradient_accumulation_steps=completions // batch_size,  # one update per rollout
        num_generations=profile["group_size"],
        max_completion_length=profile["completion_tokens"],
        temperature=1.0,
        learning_rate=profile["learning_rate"],
        lr_scheduler_type="constant",
        weight_decay=0.0,
        max_grad_norm=1.0,
        beta=0.0,  # no KL, no reference model
        epsilon=0.2,
        loss_type="grpo",
        scale_rewards="group",
        num_iterations=1,
        use_cpu=True,
        bf16=profile["dtype"] == "bfloat16",
        gradient_checkpointing=False,
        dataloader_pin_memory=False,
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        seed=0,
    )
    return trl.GRPOTrainer(
        model=model,
        args=config,
        processing_class=tokenizer,
        reward_funcs=reward,
        train_dataset=prompts(workload),
    )


def prompts(workload: Path) -> datasets.Dataset:
    """The same prompts as ours, as plain text."""
    texts = json.loads((workload / "prompts.json").read_text(encoding="utf-8"))
    return datasets.Dataset.from_dict({"prompt": texts})


if __name__ == "__main__":
    main()
