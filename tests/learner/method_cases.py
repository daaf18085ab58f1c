"""The shipped methods' recipes with made-up steps, for what must hold of all of them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch

from learner.batch import TrainingBatch, build_batch, with_added
from learner.plugin import LearnerPlugin
from mgrpo.config import LaterLayer, RunConfig, VerifyLayer
from mgrpo.config.layers import RejectedParents
from mgrpo.config.load import load_recipe
from mgrpo.methods.catalog import method_files
from mgrpo.methods.ws_grpo.prefix_scorer import PrefixScorer
from mgrpo.plugin import load_plugins
from mgrpo.types import Completion, Reward
from tests.learner.builders import completion, save_tiny_llama

RECIPES = sorted(method_files())
MOST_SAMPLES, MOST_PARENTS = 6, 2  # of a group, and of a problem that are corrected
CONTEXTS = {
    "opening": [60],
    "separator": [61],
    "bridge": [],
    "closing": [62],
    "max_answer_tokens": 9,
    "answers": {},
    "integrated": [[59]],
}
"""What shows a completion to others of its prompt, for a method that reads them so."""
INJECTED = 63
"""Token that stands for what was put into a completion; nothing samples it."""


def save_scorer(folder: Path) -> Path:
    """A preference model over the tiny policy's tokens."""
    base = save_tiny_llama(folder / "tiny")
    PrefixScorer.create(str(base), hidden_units=8).save(str(folder / "scorer"))
    return folder / "scorer"


def method_configs(name: str, scorer: Path) -> list[RunConfig]:
    """A method's recipe in each of its phases."""
    overrides = [f"plugins.1.settings.scorer={scorer}"] if name == "ws_grpo" else []
    config = load_recipe(f"methods/{name}", overrides)
    return [config, *map(config.in_phase, config.phases)]


def started_plugins(config: RunConfig) -> list[LearnerPlugin]:
    plugins = load_plugins(config.method_view, LearnerPlugin)
    for plugin in plugins:
        plugin.start(torch.device("cpu"))
    return plugins


def made_up_step(config: RunConfig, *, seed: int = 0) -> list[Completion]:
    """Two problems through the recipe's chain, with random tokens, rewards and log-probabilities.

    Every completion has steps and an analysis marked; part of the wrong ones is repaired where
    the recipe repairs.
    """
    generator = torch.Generator().manual_seed(seed)

    def draw(count: int) -> list[int]:
        return torch.randint(1, INJECTED, (count,), generator=generator).tolist()

    def sample(name: str, prompt: list[int]) -> Completion:
        length = 3 + int(torch.randint(0, 5, (1,), generator=generator))
        right = float(torch.randint(0, 2, (1,), generator=generator))
        return completion(
            name,
            right,
            prompt=prompt,
            token_ids=draw(length),
            rollout_logprobs=(-3 * torch.rand(length, generator=generator)).tolist(),
            spans={"steps": [(0, 1), (1, length)], "analysis": [(0, 2)], "answer": [(1, 3)]},
            metadata={
                "greedy_logprob_mean": -1.0,
                "entities": ["a", "b"],
                "answer_contexts": CONTEXTS,
            },
            text="a" if length % 2 else "a and b",
        )

    repairs = any(entry.use == "guided_error_correction" for entry in config.plugins)
    made = []
    for problem in range(2):
        prompts = {f"p{problem}": draw(3 + problem)}
        for layer in config.layers:
            samples = [
                sample(f"{parent}/{number}", prompt)
                for parent, prompt in prompts.items()
                for number in range(1, min(layer.group_size, MOST_SAMPLES) + 1)
            ]
            if isinstance(layer, VerifyLayer):
                samples = [dataclasses.replace(one, accepts=one.is_correct) for one in samples]
            if isinstance(layer, LaterLayer) and isinstance(layer.parents, RejectedParents):
                samples = [behind_verdict(one) for one in samples]
            made += [with_injection(one) if repairs else one for one in samples]
            prompts = {
                one.completion_id: [*one.prompt_token_ids, *one.token_ids, *draw(2)]
                for one in samples[:MOST_PARENTS]
            }
    return made


def behind_verdict(one: Completion) -> Completion:
    """A correction that reads a verdict: its parent is the attempt, its group the verdict's."""
    return dataclasses.replace(one, parent_id=one.group_key.rpartition("/")[0])


def with_injection(one: Completion) -> Completion:
    """A wrong completion as a repair leaves it: right now, two tokens of it put in."""
    if one.is_correct or one.completion_id.endswith(("/1", "/2")):
        return one
    mask = [*[True] * (len(one.token_ids) - 2), False, False]
    return dataclasses.replace(
        one,
        token_ids=[*one.token_ids[:-2], INJECTED, INJECTED],
        rollout_logprobs=[*one.rollout_logprobs[:-2], 0.0, 0.0],
        sampled_mask=mask,
        train_mask=mask,
        reward=Reward(value=1.0, correct=True),
        augmented_by="answer_injected",
    )


def made_up_measurements(completions: list[Completion]) -> dict[str, Any]:
    """What would be measured of the policy, the same for the same token."""
    tokens = [token for one in completions for token in one.token_ids]
    values = torch.tensor(tokens, dtype=torch.float64) / 64
    prompts = [[*one.prompt_token_ids[:1], *one.prompt_token_ids[-1:]] for one in completions]
    return {
        "hidden_prompt": torch.tensor(prompts, dtype=torch.float32) / 64,
        "entropies": 0.5 + values,
        "policy_logprobs": -0.5 - 2 * values,
        "ema_logprobs": -0.4 - 2 * values,
        "ref_logprobs": -0.45 - 2 * values,
        "nthr_influences": values - 0.3,
        "gcpo/weights": torch.tensor(
            [one.token_ids[0] / 64 for one in completions], dtype=torch.float64
        ),
        "gcpo/targets": -values - 1,
    }


class RewardsAlone(LearnerPlugin):
    """What a plug-in says of rewards and of who is compared; advantages are the layers' own."""

    def __init__(self, plugin: LearnerPlugin) -> None:
        super().__init__(plugin.settings, plugin.layers)
        self.measure = plugin.measure  # type: ignore[method-assign]
        self.filter_rows = plugin.filter_rows  # type: ignore[method-assign]
        self.shape_rewards = plugin.shape_rewards  # type: ignore[method-assign]


def batch_of(
    config: RunConfig,
    completions: list[Completion],
    plugins: list[LearnerPlugin] | None = None,
    **ranks: Any,
) -> TrainingBatch:
    plugins = started_plugins(config) if plugins is None else plugins
    completions = with_added(completions, (), plugins)
    return build_batch(
        completions,
        config.layers,
        config.objective,
        plugins=plugins,
        measurements=made_up_measurements(completions),
        **ranks,
    )
