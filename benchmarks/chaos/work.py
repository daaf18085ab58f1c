"""The run that faults come to: the shipped policy learns small sums, a second a step."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from benchmarks.chaos.schedule import Order

NUM_PROBLEMS, NUM_HELDOUT = 400, 100
PROMPTS, ATTEMPTS, CORRECTIONS = 4, 4, 2
RUN = "chaos"
SUMS = {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 2}


def write_recipe(folder: Path, order: Order, *, num_steps: int, seed: int, reward_url: str) -> Path:
    """The recipe of one run, whose files go to `folder`/runs/chaos."""
    file = folder / "recipe.yaml"
    tree = recipe(folder, order, num_steps=num_steps, seed=seed, reward_url=reward_url)
    file.write_text(yaml.safe_dump(tree, sort_keys=False), encoding="utf-8")
    return file


def recipe(
    folder: Path, order: Order, *, num_steps: int, seed: int, reward_url: str
) -> dict[str, Any]:
    layer = {"max_completion_tokens": 24}
    tasks = [{"name": "chain_sum", "settings": SUMS}]
    problems = {"source": "reasoning_gym", "tasks": tasks}
    heldout = {**problems, "size": NUM_HELDOUT, "seed": 7_000_000}
    return {
        "name": RUN,
        "seed": seed,
        "steps": num_steps,
        "prompts_per_step": PROMPTS,
        "model": {"path": "default", "dtype": "float32"},
        "data": {
            "train": {
                **problems,
                "size": NUM_PROBLEMS,
                "seed": 1,
                "exclude_questions_of": [heldout],
            },
            "heldout": heldout,
        },
        "layers": [
            {"name": "solve", "group_size": ATTEMPTS, "system_prompt": "", **layer},
            {
                "name": "correct",
                "group_size": CORRECTIONS,
                "system_prompt": "Check the attempt.",
                "select": "none",
                "skip_truncated_parents": False,
                **layer,
            },
        ],
        "plugins": [{"use": "benchmarks.chaos.hostile:SpoiledLogprobs"}],
        "pipeline": {"max_staleness_steps": {"streamed": 0, "overlapped": 1}[order]},
        "rewards": {
            "terms": [
                {"check": "math_answer"},
                {
                    "http": reward_url,
                    "weight": 0.1,
                    "correct_at": None,
                    "deadline_s": 20,
                    "max_retries": 20,
                },
            ],
            "deadline_s": 5,
            "start_deadline_s": 30,
            "num_processes": 2,
        },
        "learner": {"learning_rate": 1.0e-4, "num_threads": 1, "max_restarts": 1000},
        "engines": {
            "shared": True,
            "num_shared_engines": 2,
            "num_threads": 1,
            "extra_args": {
                "worker_extension_cls": "benchmarks.chaos.hostile_worker.SpoilingWorker"
            },
        },
        "checkpoints": {"every_steps": 3, "keep": 3},
        "evaluation": {"every_steps": 0, "guidance": "first"},
        "cluster": {
            "address": "local",
            "device": "cpu",
            "deadlines": {"update_s": 60, "weight_sync_s": 40, "generate_s": 30},
            "health": {
                "heartbeat_s": 1,
                "suspect_after_s": 8,
                "dead_after_s": 24,
                "max_restarts": 1000,
                "max_resends": 20,
            },
        },
        "output": {
            "runs_dir": str(folder / "runs"),
            "trackers": [],
            "report": False,
            "rollouts_per_step": PROMPTS,
        },
    }


def write_json(path: Path, value: object) -> None:
    """As a whole or not at all."""
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    unfinished.replace(path)
