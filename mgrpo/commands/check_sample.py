"""`mgrpo check --sample`: prompts as the model reads them, and a few graded completions.

The same engines, prompts and checks as in training, before a run.
"""

from __future__ import annotations

import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from mgrpo.config import LayerConfig, RunConfig
from mgrpo.config.layers import LaterLayer, NoEarlyStop, verify_layers
from mgrpo.metrics.learning import why_nothing_was_learnt
from mgrpo.metrics.transitions import rollout_metrics

if TYPE_CHECKING:
    from rich.console import Console

    from mgrpo.types import Completion, Problem

NUM_PROBLEMS = 3
GROUP_SIZE = 4  # completions of each prompt, at most
NUM_SHOWN_CORRECTIONS = 2  # of an attempt
MAX_CHARACTERS = 600  # of one completion


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampled:
    """Completions of a few problems, before a run."""

    layers: Sequence[LayerConfig]
    problems: Sequence[Problem]
    completions: Sequence[Completion]
    prompts: dict[int, str]  # layer -> one of its prompts, every special token shown


def sample_recipe(config: RunConfig) -> Sampled:
    """Start engines, sample some problems through all layers with the recipe's temperature, stop.

    Raises:
        MgrpoError: the engines or the checks cannot start.
    """
    from mgrpo.plan.layout import laid_out_here
    from mgrpo.training.stop_signals import signals_as_errors
    from mgrpo.training.system import start_system

    small = config.model_copy(update={"layers": [smaller(layer) for layer in config.layers]})
    small, _ = laid_out_here(small, with_learner=False)
    with tempfile.TemporaryDirectory(prefix="mgrpo-sample-") as folder, signals_as_errors():
        logs = Path(folder) / "logs"
        with start_system(small, logs_to=logs, with_learner=False, note=note) as system:
            problems = system.problems[:NUM_PROBLEMS]
            completions = system.fleet.run(system.rollout.run(0, problems))
            tokenizer: Any = system.rollout.builder.tokenizer
            prompts = {
                one.layer: tokenizer.decode(
                    one.prompt_token_ids.tolist(), skip_special_tokens=False
                )
                for one in reversed(completions)
            }
    return Sampled(
        layers=config.layers, problems=problems, completions=completions, prompts=prompts
    )


def smaller(layer: LayerConfig) -> LayerConfig:
    """The layer with few completions of each prompt, all of them sampled."""
    size = min(GROUP_SIZE, layer.group_size)
    changes: dict[str, object] = {"group_size": size, "over_sample": 0}
    if isinstance(layer, LaterLayer):
        changes |= {"group_size": min(NUM_SHOWN_CORRECTIONS, size), "early_stop": NoEarlyStop()}
    return layer.model_copy(update=changes)


def note(text: str) -> None:
    print(text, file=sys.stderr)


def show_sampled(console: Console, sampled: Sampled) -> None:
    """Print prompts, completions with their rewards, and what training could learn from them."""
    from rich.text import Text

    def write(text: str, style: str = "") -> None:
        console.print(Text(text, style=style), soft_wrap=not console.is_terminal)

    for number, layer in enumerate(sampled.layers, start=1):
        if number in sampled.prompts:
            write(f"\nA prompt of layer {number} ({layer.name}), as the model reads it:", "bold")
            write(sampled.prompts[number])
    for problem in sampled.problems:
        write(f"\n{clipped(problem.question)}", "bold")
        write(f"reference: {clipped(problem.answer)}", "dim")
        for one in shown_of(sampled.completions, problem):
            indent = "  " * one.layer
            write(f"{indent}layer {one.layer} · {summary(one)}", "dim")
            write("\n".join(indent + line for line in clipped(one.text).splitlines()))
    write("")
    for line in conclusions(sampled):
        write(line, "bold")


def shown_of(completions: Sequence[Completion], problem: Problem) -> list[Completion]:
    """The problem's attempts, each followed by its corrections, and those by theirs."""
    return sorted(
        (one for one in completions if one.problem_id == problem.problem_id),
        key=lambda one: one.id.path,
    )


def summary(completion: Completion) -> str:
    """ "right, reward 1 · 23 tokens · stop · ..."."""
    reward = completion.reward
    parts = [f"{len(completion.token_ids)} tokens", completion.finish_reason]
    if reward is None:
        return " · ".join(["not scored", *parts])
    word = reward.status if reward.status != "scored" else "right" if reward.correct else "wrong"
    detail = [clipped(reward.detail)] if reward.detail else []
    return " · ".join([f"{word}, reward {reward.value:.3g}", *parts, *detail])


def clipped(text: str) -> str:
    return text if len(text) <= MAX_CHARACTERS else f"{text[:MAX_CHARACTERS]} [...]"


def conclusions(sampled: Sampled) -> list[str]:
    """For each layer, what it got right and in how many groups rewards differ; then advice if they
    differ in none."""
    lines, can_teach = [], False
    for number, layer in enumerate(sampled.layers, start=1):
        own = [one for one in sampled.completions if one.layer == number]
        if not own:
            lines.append(f"layer {number} ({layer.name}): nothing was sampled")
            continue
        groups = rewards_by_group(own)
        differing = sum(len(set(values)) > 1 for values in groups)
        can_teach |= differing > 0
        lines.append(
            f"layer {number} ({layer.name}): {fmean(one.is_correct for one in own):.0%} of "
            f"{len(own)} right, {fmean(one.is_truncated for one in own):.0%} truncated; rewards "
            f"differ in {differing} of {len(groups)} groups, which can teach"
        )
    if not can_teach:
        why = why_nothing_was_learnt(values(sampled))
        size = sampled.layers[0].group_size
        lines.append(f"Nothing could be learnt here; training has groups of {size}. {why}")
    return lines


def rewards_by_group(completions: Sequence[Completion]) -> list[list[float]]:
    """The usable rewards of each group."""
    groups: defaultdict[str, list[float]] = defaultdict(list)
    for one in completions:
        if one.reward is not None and one.reward.is_usable:
            groups[one.group_key].append(one.reward.value)
    return list(groups.values())


def values(sampled: Sampled) -> dict[str, float]:
    """The metrics that a step of these completions would have, where all rewards are equal."""
    sums = rollout_metrics(sampled.completions, len(sampled.layers), verify_layers(sampled.layers))
    means = {name: total / count for name, (total, count) in sums.items() if count}
    return means | {"layer1/zero_variance_fraction": 1.0}


def sampled_json(sampled: Sampled) -> dict[str, object]:
    """The same in plain values."""
    return {
        "prompts": {
            layer.name: sampled.prompts[number]
            for number, layer in enumerate(sampled.layers, start=1)
            if number in sampled.prompts
        },
        "completions": [
            {
                "problem": problem.question,
                "reference": problem.answer,
                "layer": one.layer,
                "id": one.completion_id,
                "text": one.text,
                "reward": one.reward.value if one.reward else None,
                "correct": one.is_correct,
                "detail": one.reward.detail if one.reward else "",
                "finish_reason": one.finish_reason,
            }
            for problem in sampled.problems
            for one in shown_of(sampled.completions, problem)
        ],
        "conclusions": conclusions(sampled),
    }
