"""Phases: the recipe as it is from some step on, each validated before anything starts."""

from __future__ import annotations

from dataclasses import replace
from operator import attrgetter
from typing import TYPE_CHECKING

from pydantic import ValidationError

from mgrpo.config.overrides import BadOverride, merged
from mgrpo.errors import ConfigProblem

if TYPE_CHECKING:
    from mgrpo.config.plugins import PhaseConfig
    from mgrpo.config.run import RunConfig

SECTIONS = ("layers", "objective", "sampling")
FIXED_LAYER_KEYS = (
    "name",
    "num_engines",
    "max_completion_tokens",
    "layout",
    "quote",
    "max_quote_tokens",
    "system_prompt",
    "user_template",
)
"""Engines and context lengths are laid out for these at the start."""
FIXED_OBJECTIVE_KEYS = (
    "update_order",
    "rollout_policy",
    "error_pool",
    "correction_buffer",
    "preferences",
)
"""The loop is built for these at the start."""


def in_phase(config: RunConfig, phase: PhaseConfig) -> RunConfig:
    """The recipe with a phase's changes.

    Raises:
        BadOverride, ValidationError: the changes do not fit the recipe.
    """
    tree = config.model_dump(mode="json", exclude={"phases"})
    return type(config).model_validate(merged(tree, phase.changes))


def phase_problems(config: RunConfig) -> list[ConfigProblem]:
    """Everything wrong with the phases, each problem under its phase's path."""
    problems: list[ConfigProblem] = []
    steps = [phase.from_step for phase in config.phases]
    for index, phase in enumerate(config.phases):
        path = f"phases.{index}"
        if index > 0 and steps[index] <= steps[index - 1]:
            problems.append(
                ConfigProblem(
                    f"{path}.from_step",
                    str(steps[index]),
                    f"must be after the phase before, which begins at step {steps[index - 1]}.",
                )
            )
        if phase.from_step >= config.steps:
            problems.append(
                ConfigProblem(
                    f"{path}.from_step",
                    str(phase.from_step),
                    f"the run has only {config.steps} steps, counted from 0.",
                    f"Nearest valid value: {config.steps - 1}.",
                )
            )
        every = phase.every_steps
        if every is not None and (phase.num_steps is None or phase.num_steps >= every):
            problems.append(
                ConfigProblem(
                    f"{path}.every_steps",
                    str(every),
                    f"the phase lasts {phase.num_steps or 'until the next'} steps, so nothing "
                    "would come between its returns.",
                    "Set num_steps below every_steps.",
                )
            )
        problems += [
            replace(problem, path=f"{path}.changes.{problem.path}")
            for problem in change_problems(config, phase)
        ]
    return problems


def change_problems(config: RunConfig, phase: PhaseConfig) -> list[ConfigProblem]:
    """What a phase changes that it must not, or changes wrongly."""
    from mgrpo.config.explain import explain  # it imports the recipe's classes

    foreign = [section for section in phase.changes if section not in SECTIONS]
    if foreign:
        return [
            ConfigProblem(
                section,
                "(given)",
                "cannot change during a run.",
                f"A phase may change {', '.join(SECTIONS)}.",
            )
            for section in foreign
        ]
    try:
        changed = in_phase(config, phase)
    except BadOverride as error:
        return [error.problem]
    except ValidationError as error:
        return explain(error, type(config))
    if len(changed.layers) != len(config.layers):
        return [ConfigProblem("layers", f"{len(changed.layers)} layers", "must stay as many.")]
    problems = [
        ConfigProblem(
            f"objective.{key}",
            str(getattr(changed.objective, key)),
            "cannot change during a run: its loop is built for it.",
        )
        for key in FIXED_OBJECTIVE_KEYS
        if getattr(config.objective, key) != getattr(changed.objective, key)
    ]
    for depth, (before, after) in enumerate(zip(config.layers, changed.layers, strict=True)):
        keys = [key for key in FIXED_LAYER_KEYS if getattr(before, key) != getattr(after, key)]
        keys += ["guidance.phrases"] * (before.guidance.phrases != after.guidance.phrases)
        problems += [
            ConfigProblem(
                f"layers.{depth}.{key}",
                str(attrgetter(key)(after)),
                "cannot change during a run: engines and contexts are laid out for it.",
            )
            for key in keys
        ]
    return problems
