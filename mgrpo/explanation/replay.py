"""Replays a recipe's learner on recorded completions, without training on them.

The same functions as in training are called, so the results are the same: the
learner's plug-ins, selection, advantages and denominators. Layers that train in updates of
their own (`objective.update_order`) get updates of their own here too.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NoReturn

import numpy as np
import torch
from torch import Tensor

from actors.plugin import RolloutPlugin
from actors.templates import PromptBuilder
from learner.batch import TrainingBatch, build_batch, with_added
from learner.plugin import LearnerPlugin
from learner.policy_loading import load_policy
from learner.policy_proofs import prove_policy
from learner.policy_reader import PolicyReader
from learner.rows import TrainingRow
from learner.selection import group_of
from mgrpo.config import LayerConfig, LearnerConfig, MethodView, StepConfig
from mgrpo.errors import DataError, ModelError
from mgrpo.plugin import load_plugins
from mgrpo.sources import is_joint
from mgrpo.types import Completion


@dataclass(frozen=True, slots=True)
class TokenRange:
    """Neighbouring tokens with equal treatment: [start, end)."""

    start: int
    end: int
    advantage: float
    weight: float  # factor on each token's loss, denominators included
    entropy_weight: float  # factor on each token's entropy, added to the loss


@dataclass(frozen=True, slots=True, kw_only=True)
class Explained:
    """One completion and its treatment by the learner."""

    completion: Completion
    group: str  # completions of the same layer with the same one are compared
    shaped_reward: float
    advantage: float  # the mean over its tokens
    selected: bool
    reason: str  # why it is not selected
    has_gradient: bool  # false: its loss and gradient are exactly 0
    loss: float  # its share of the optimizer step's policy loss if every ratio is 1
    tokens: list[TokenRange]


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    completions: list[Explained]
    metrics: dict[str, float]
    notes: list[str]


def explain_completions(
    completions: Sequence[Completion],
    method: MethodView,
    settings: LearnerConfig,
    *,
    layers: Sequence[int] | None = None,
    step: int = 0,
    measurements: Mapping[str, Mapping[str, Sequence[float]]] | None = None,
    model_dir: str | None = None,
) -> Explanation:
    """The treatment of these completions in one step.

    Args:
        completions: scored; whole groups, and the parents that the recipe compares with.
        method: the recipe's.
        settings: how a model reads the completions.
        layers: numbers of the layers that train, 1 for the first; None: all. Completions of
            other layers are parents to compare with.
        step: of the run, for phases.
        measurements: that plug-ins require, if known: by completion_id and name, [T] each.
        model_dir: a policy to measure the other measurements with.

    Raises:
        ConfigError: a plug-in does not suit the recipe.
        DataError: a measurement is missing and there is no model to measure it with.
        LearnerError: training would refuse these completions too.
    """
    values = method.at_step(step)
    plugins = load_plugins(method.always_with(values), LearnerPlugin)
    for plugin in plugins:
        plugin.start(torch.device("cpu"))
    explained: list[Explained] = []
    metrics: dict[str, float] = {}
    notes: list[str] = []
    read_with: Callable[[], PolicyReader] | None = None
    if model_dir is not None:  # loaded at the first use
        read_with = functools.cache(
            lambda: reader_of(model_dir, settings, values.sampling.temperature, completions)
        )
    reads = any(plugin.overrides("read_policy", LearnerPlugin) for plugin in plugins)
    is_one = is_joint(method.always_with(values))
    for sampled, context in updates_of(completions, layers, is_one=is_one):
        trained = with_added(sampled, context, plugins)
        batch = build_batch(
            trained,
            values.layers,
            values.objective,
            context=context,
            plugins=plugins,
            measurements=known_measurements(
                trained, context, values, plugins, measurements or {}, read_with
            ),
            step=step,
            policy=read_with() if reads and read_with is not None else None,
        )
        explained += explain_batch(trained, batch, values.layers)
        notes += batch.notes
        metrics |= {name: value / count for name, (value, count) in batch.metrics.items() if count}
    return Explanation(completions=explained, metrics=metrics, notes=notes)


def updates_of(
    completions: Sequence[Completion], layers: Sequence[int] | None = None, *, is_one: bool
) -> list[tuple[list[Completion], list[Completion]]]:
    """(trained completions, other completions for comparison) of every update.

    Args:
        is_one: one update trains all layers.
    """
    numbers = sorted(
        {
            completion.layer
            for completion in completions
            if layers is None or completion.layer in layers
        }
    )
    return [
        (
            [completion for completion in completions if completion.layer in update],
            [completion for completion in completions if completion.layer not in update],
        )
        for update in ([numbers] if is_one else [[number] for number in numbers])
    ]


def explain_batch(
    completions: Sequence[Completion], batch: TrainingBatch, chain: Sequence[LayerConfig]
) -> list[Explained]:
    return [
        Explained(
            completion=one,
            group=str(group_of(one, chain[one.layer - 1])),
            shaped_reward=shaped_reward,
            advantage=selection.advantage,
            selected=selection.selected,
            reason=selection.reason,
            has_gradient=row.has_gradient,
            loss=-float(row.advantages @ row.token_weights),
            tokens=token_ranges(row),
        )
        for one, row, selection, shaped_reward in zip(
            completions, batch.all_rows, batch.selections, batch.shaped_rewards, strict=True
        )
    ]


def token_ranges(row: TrainingRow) -> list[TokenRange]:
    """The row's tokens, equally treated neighbours merged."""
    of_entropy = (
        np.zeros(len(row.token_ids)) if row.entropy_weights is None else row.entropy_weights
    )
    ranges: list[TokenRange] = []
    columns = np.stack([row.advantages, row.token_weights, of_entropy], axis=1).tolist()
    for place, (advantage, weight, entropy_weight) in enumerate(columns):
        one = TokenRange(place, place + 1, advantage, weight, entropy_weight)
        if ranges and replace(ranges[-1], start=place, end=place + 1) == one:
            ranges[-1] = replace(ranges[-1], end=place + 1)
        else:
            ranges.append(one)
    return ranges


# --- measurements ---


def known_measurements(
    completions: Sequence[Completion],
    context: Sequence[Completion],
    values: StepConfig,
    plugins: Sequence[LearnerPlugin],
    recorded: Mapping[str, Mapping[str, Sequence[float]]],
    read_with: Callable[[], PolicyReader] | None,
) -> dict[str, Tensor]:
    """The measurements that plug-ins require, [M] each: as recorded, else measured with the
    model."""
    wanted: dict[str, str] = {}  # measurement -> the first plug-in that wants it
    for plugin in plugins:
        for measurement in sorted(plugin.wanted_measurements()):
            wanted.setdefault(measurement, type(plugin).__name__)
    found: dict[str, Tensor] = {}
    for name in wanted:
        given = [recorded.get(completion.completion_id, {}).get(name) for completion in completions]
        if any(value is None for value in given):
            continue
        for one, value in zip(completions, given, strict=True):
            if value is not None and len(value) != len(one.token_ids):
                raise DataError(
                    f"Completion {one.completion_id} has {len(one.token_ids)} tokens and "
                    f"{len(value)} {name}; there must be one per token."
                )
        flat = [number for value in given if value is not None for number in value]
        found[name] = torch.tensor(flat, dtype=torch.float64)
    missing = [name for name in wanted if name not in found]
    if not missing or not completions:
        return found
    for name, whose in (
        ("ref_logprobs", "the policy that the run began with"),
        ("ema_logprobs", "the running average of the policy at that step"),
    ):
        if name in missing:
            raise DataError(
                f"{wanted[name]} needs {name} of every token, which the file does not contain: "
                f"log-probabilities under {whose}. Add them to the file's measurements, or remove "
                "the plug-in from the recipe."
            )
    if read_with is None:
        raise DataError(
            f"{wanted[missing[0]]} needs {' and '.join(missing)}, which the file does not contain. "
            "Pass the policy that sampled these completions, to compute them on the CPU: --model "
            "runs/NAME/policy (or what the run's model.path was, for early steps)."
        )
    rows = build_batch(completions, values.layers, values.objective, context=context).all_rows
    return found | read_with().measure(rows, missing)


def reader_of(
    model_dir: str,
    settings: LearnerConfig,
    temperature: float,
    completions: Sequence[Completion],
) -> PolicyReader:
    """Reads with the model on the CPU.

    Raises:
        ModelError: the model cannot be loaded, or does not know these completions' tokens.
    """
    policy = load_policy(model_dir, dtype=torch.float32)
    prove_policy(policy, policy, merge_prefixes=False, device="cpu")
    vocab_size = policy.causal_lm.get_input_embeddings().num_embeddings
    for completion in completions:
        largest = int(np.concatenate([completion.prompt_token_ids, completion.token_ids]).max())
        if largest >= vocab_size:
            raise ModelError(
                f"The model in {model_dir} has {vocab_size} tokens, and completion "
                f"{completion.completion_id} holds token {largest}: another model sampled it."
            )
    return PolicyReader(
        {"policy": policy},
        settings=settings,
        temperature=temperature,
        merges_prefixes=False,
        hidden_size=policy.hidden_size,
    )


# --- spans ---


@dataclass
class AnnotationTools:
    """A rollout context for `annotate`, without engines and checks."""

    builder: PromptBuilder
    seed: int

    async def generate(self, *_: object, **__: object) -> NoReturn:
        raise DataError("Recorded completions are explained without engines.")

    async def score(self, *_: object) -> NoReturn:
        raise DataError("Recorded completions are explained without checks.")


def annotated(
    completions: Sequence[Completion], method: MethodView, builder: PromptBuilder
) -> list[Completion]:
    """The completions as the recipe's rollout plug-ins annotate them."""
    tools = AnnotationTools(builder, method.seed)
    result = list(completions)
    for plugin in load_plugins(method, RolloutPlugin):
        result = [
            plugin.annotate(tools, one) if one.layer in plugin.layers else one for one in result
        ]
    return result
