"""Run directories with made-up but plausible contents, written by the same code as real ones.

Also a command, to look at a report by eye: python -m tests.mgrpo.report.fake_run DIRECTORY
"""

from __future__ import annotations

import json
import math
import random
import sys
from pathlib import Path

import yaml

from mgrpo.config import GUIDANCE_PHRASES, RunConfig
from mgrpo.metrics.log import MetricsLog
from mgrpo.report import write_report
from mgrpo.types import Completion, CompletionId, FinishReason, Reward


def make_run(
    run_dir: Path,
    *,
    steps: int = 60,
    planned_steps: int | None = None,
    num_layers: int = 2,
    evaluate: bool = True,
    rollouts_every: int = 5,
    seed: int = 0,
) -> Path:
    """Write a run of `steps` steps; one with fewer than `planned_steps` was interrupted."""
    planned = planned_steps or max(steps, 1)
    draw = random.Random(seed)
    run_dir.mkdir(parents=True, exist_ok=True)
    config = make_config(run_dir.name, planned, num_layers)
    (run_dir / "config.yaml").write_text(
        yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
    )
    (run_dir / "environment.json").write_text(json.dumps(make_environment()))
    with MetricsLog(run_dir) as log:
        if evaluate:
            log.write_evaluation(make_evaluation(0, "before", 0.42, num_layers))
        for step in range(steps):
            progress = 1 - math.exp(-3 * step / planned)
            log.write(step, make_metrics(step, progress, num_layers, draw))
            if rollouts_every and step % rollouts_every == 0:
                log.write_rollouts(step, make_rollouts(step, progress, num_layers, draw))
            if evaluate and step and step % 20 == 0:
                accuracy = 0.42 + 0.29 * progress
                log.write_evaluation(make_evaluation(step, "during", accuracy, num_layers))
        if evaluate and steps == planned:
            log.write_evaluation(make_evaluation(steps, "after", 0.71, num_layers))
    return run_dir


def make_config(name: str, steps: int, num_layers: int) -> RunConfig:
    task = {"source": "reasoning_gym", "tasks": [{"name": "chain_sum"}], "size": 512}
    layers = [{"name": "solve", "group_size": 8}, {"name": "correct", "group_size": 4}]
    return RunConfig.model_validate(
        {
            "name": name,
            "description": "Sums and comparisons with a small policy, on a laptop.",
            "steps": steps,
            "prompts_per_step": 16,
            "model": {"path": "smollm2"},
            "data": {"train": task, "heldout": {**task, "seed": 1, "size": 200}},
            "layers": layers[:num_layers],
        }
    )


def make_environment() -> dict[str, object]:
    return {
        "python": "3.11.9",
        "versions": {"torch": "2.13.0", "vllm": "0.32.0", "ray": "2.60.0"},
        "hardware": {"cpus": 2, "gpus": []},
        "git": {"revision": "0123abc", "dirty": False},
    }


def make_metrics(
    step: int, progress: float, num_layers: int, draw: random.Random
) -> dict[str, float]:
    """One step's values. `progress` runs from 0 to nearly 1."""

    def about(value: float, noise: float = 0.1) -> float:
        return value * (1 + draw.uniform(-noise, noise))

    first = min(1.0, about(0.40 + 0.33 * progress, 0.08))
    values = {
        "policy_version": step + 1,
        "wall_s": 8.2 * (step + 1),
        "layer1/accuracy": first,
        "layer1/reward_mean": about(first),
        "layer1/completion_tokens_mean": about(62 - 18 * progress),
        "layer1/truncated_fraction": about(0.12 - 0.1 * progress, 0.4),
        "layer1/zero_variance_fraction": about(0.15 + 0.3 * progress),
        "layer1/selected_fraction": about(0.8 - 0.3 * progress),
        "learner/loss": draw.gauss(0, 0.02),
        "learner/grad_norm": about(0.8 - 0.4 * progress, 0.3),
        "learner/entropy": about(0.62 - 0.4 * progress),
        "learner/clip_fraction": about(0.01, 0.5),
        "learner/learning_rate": 1e-6,
        "learner/tokens": draw.randint(20_000, 30_000),
        "mismatch/logprob_gap_mean": about(2e-3),
        "mismatch/logprob_gap_p99": about(2e-2),
        "mismatch/logprob_gap_max": about(0.2, 0.6),
        "mismatch/importance_weight_mean": about(1.0, 0.01),
        "rewards/scored": 0.93 + 0.05 * progress,
        "rewards/unparsable": 0.06 - 0.05 * progress,
        "rewards/timeout": 0.01,
        "rewards/error": 0.0,
        "seconds/rollout": about(4.6),
        "seconds/update": about(2.4),
        "seconds/weights": about(0.3),
        "seconds/step": about(8.2, 0.01),
        "weights/probe_gap_max": about(1e-3),
        "tokens/generated": draw.randint(20_000, 30_000),
        "tokens/per_s": about(2900.0),
    }
    if num_layers > 1:
        mended, broken = about(0.09), about(0.07 - 0.04 * progress)
        second = first + mended - broken
        values |= {
            "layer2/accuracy": second,
            "layer2/reward_mean": about(second),
            "layer2/completion_tokens_mean": about(40),
            "layer2/truncated_fraction": about(0.05),
            "transition/layer2/wrong_to_right": mended,
            "transition/layer2/right_to_wrong": broken,
            "transition/layer2/right_to_right": first - broken,
            "transition/layer2/wrong_to_wrong": 1 - first - mended,
            "transition/layer2/wrong_to_right_count": round(512 * mended),
            "transition/layer2/delta": mended - broken,
            "transition/layer2/copy_fraction": about(0.3),
            "transition/layer2/copy_fraction_of_wrong": about(0.5),
            "transition/layer2/repaired_fraction": mended / (1 - first),
            "transition/layer2/confirmed_fraction": 1 - broken / first,
            "seconds/layer1": about(3.0),
            "seconds/layer2": about(2.9),
        }
    return values


def make_evaluation(step: int, label: str, first: float, num_layers: int) -> dict[str, object]:
    acc = [first, first + 0.03][:num_layers]
    evaluation: dict[str, object] = {
        "step": step,
        "label": label,
        "num_problems": 200,
        "decoding": "greedy",
        "acc": acc,
        "acc_range": [[first, first], [first + 0.01, first + 0.05]][:num_layers],
        "domains": {
            "chain_sum": {"num_problems": 100, "acc": [value + 0.1 for value in acc]},
            "number_sorting": {"num_problems": 100, "acc": [value - 0.1 for value in acc]},
        },
        "seconds": 12.3,
    }
    if num_layers > 1:
        shares = {
            "wrong_to_right": 0.09,
            "right_to_wrong": 0.06,
            "right_to_right": first - 0.06,
            "wrong_to_wrong": 1 - first - 0.09,
            "copy_fraction": 0.31,
        }
        counts = {name: round(200 * share) for name, share in shares.items() if "_to_" in name}
        moves = {"layer": 2, "counts": counts, **shares}
        evaluation |= {"delta": 0.03, "transitions": [moves]}
    return evaluation


def make_rollouts(
    step: int, progress: float, num_layers: int, draw: random.Random
) -> list[Completion]:
    """Four problems with 8 attempts each, and 4 corrections of every attempt."""
    completions = []
    for number in range(4):
        a, b, c = (draw.randint(2, 60) for _ in range(3))
        problem_id = f"chain_sum/train/{16 * step + number}"
        prompt = f"State the final answer to: {a} + {b} - {c} ="
        for index in range(8):
            attempt = make_completion(
                f"{problem_id}#1.{index}", problem_id, prompt, (a, b, c), 0.4 + progress / 3, draw
            )
            completions.append(attempt)
            for child in range(4 if num_layers > 1 and not attempt.is_truncated else 0):
                completions.append(
                    make_completion(
                        f"{problem_id}#2.{index}.{child}",
                        problem_id,
                        "",
                        (a, b, c),
                        0.85 if attempt.is_correct else 0.2,
                        draw,
                        parent=attempt,
                        guidance_id=index % len(GUIDANCE_PHRASES),
                    )
                )
    return completions


def make_completion(
    completion_id: str,
    problem_id: str,
    prompt: str,
    terms: tuple[int, int, int],
    chance: float,
    draw: random.Random,
    *,
    parent: Completion | None = None,
    guidance_id: int | None = None,
) -> Completion:
    a, b, c = terms
    fate = draw.random()
    is_right = fate < chance
    answer = a + b - c + (0 if is_right else draw.choice([-10, -1, 1, 10]))
    reward = Reward(
        value=float(is_right),
        correct=is_right,
        extracted_answer=str(answer),
        parts={"math_answer": float(is_right), "format": 1.0},
    )
    text = f"First {a} + {b} = {a + b}.\nThen {a + b} - {c} = {answer}.\n\\boxed{{{answer}}}"
    finish: FinishReason = "stop"
    if fate > 0.96:
        text, finish = text[:20] + " and again" * 12, "length"
        reward = Reward(value=0.0, status="unparsable", detail="no \\boxed{} in the completion")
    elif fate > 0.94:
        reward = Reward(value=0.0, status="timeout", detail="the check took longer than 10 s")
    selected = reward.is_usable and fate < 0.9
    return Completion(
        id=CompletionId.named(completion_id),
        problem_id=problem_id,
        domain="chain_sum",
        layer=2 if parent else 1,
        parent_id=parent.completion_id if parent else None,
        group_key=parent.completion_id if parent else problem_id,
        prompt=[1, 2, 3],
        token_ids=list(range(len(text) // 3)),
        rollout_logprobs=[-0.5] * (len(text) // 3),
        finish_reason=finish,
        version_spans=((0, 3),),
        text=text,
        prompt_text=prompt,
        guidance_id=guidance_id,
        engine="layer1-0",
        reward=reward,
        advantage=draw.gauss(0.9 if is_right else -0.6, 0.1) if reward.is_usable else None,
        selected=selected,
        not_selected_because="" if selected else "group without a success",
    )


if __name__ == "__main__":
    print(write_report(make_run(Path(sys.argv[1]))))
