"""Phases: the recipe as it is from some step on, each validated before anything starts."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any

from mgrpo.config.layers import LaterLayer
from mgrpo.config.method_view import StepConfig
from mgrpo.config.parts import Part
from mgrpo.config.plugins import PhaseConfig
from mgrpo.config.sources import Fresh, SourcePart, stacked
from mgrpo.errors import ConfigFault, Faults, must_be

SECTIONS = ("layers", "objective", "sampling", "source")
FIXED_LAYER_KEYS = (
    "name",
    "kind",
    "verdict",
    "num_engines",
    "max_completion_tokens",
    "speculation",
    "system_prompt",
    "user_template",
)
FIXED_CORRECT_KEYS = (
    "layout",
    "guidance.type",
    "guidance.phrases",
    "guidance.max_tokens",
    "guidance.template",
)
"""Engines and context lengths are fixed by these at the start."""


def order_of_phases(phases: Sequence[PhaseConfig], *, num_steps: int) -> list[ConfigFault]:
    """Phases that begin too late or too early, or never end."""
    faults: list[ConfigFault] = []
    steps = [phase.from_step for phase in phases]
    for index, phase in enumerate(phases):
        path = f"phases.{index}"
        if index > 0 and steps[index] <= steps[index - 1]:
            reason = f"must be after the phase before, which begins at step {steps[index - 1]}."
            faults.append(ConfigFault(f"{path}.from_step", str(steps[index]), reason))
        if phase.from_step >= num_steps:
            reason = f"the run has only {num_steps} steps, counted from 0."
            hint = f"Nearest valid value: {num_steps - 1}."
            faults.append(ConfigFault(f"{path}.from_step", str(phase.from_step), reason, hint))
        every = phase.every_steps
        if every is not None and (phase.num_steps is None or phase.num_steps >= every):
            lasts = phase.num_steps or "until the next"
            reason = f"the phase lasts {lasts} steps, so it would never pause."
            hint = "Set num_steps below every_steps."
            faults.append(ConfigFault(f"{path}.every_steps", str(every), reason, hint))
    return faults


def foreign_sections(phase: PhaseConfig) -> list[ConfigFault]:
    """Sections that no phase may change."""
    hint = f"A phase may change {', '.join(SECTIONS)}."
    return [
        ConfigFault(section, "(given)", "cannot change during a run.", hint)
        for section in phase.changes
        if section not in SECTIONS
    ]


def fixed_key_faults(given: StepConfig, changed: StepConfig) -> Faults:
    """Keys of a phase that are fixed at the start of the run."""
    if len(changed.layers) != len(given.layers):
        yield ConfigFault("layers", f"{len(changed.layers)} layers", "must not change.")
        return
    reason = "cannot change during a run: the loop is fixed at the start."
    if changed.objective.update_order != given.objective.update_order:
        now = changed.objective.update_order.type
        yield ConfigFault("objective.update_order", now, reason)
    sources = stack_words(changed.source), stack_words(given.source)
    yield from must_be("source", *sources, reason)
    for key in ("loss", "importance"):
        parts = getattr(given.objective, key), getattr(changed.objective, key)
        yield from part_faults(f"objective.{key}", *parts)
    for depth, (before, after) in enumerate(zip(given.layers, changed.layers, strict=True)):
        yield from part_faults(f"layers.{depth}.advantage", before.advantage, after.advantage)
        corrects = isinstance(before, LaterLayer)
        for key in (*FIXED_LAYER_KEYS, *(FIXED_CORRECT_KEYS if corrects else ())):
            value = at_path(after, key)
            if at_path(before, key) != value:
                reason = "cannot change during a run: engines and contexts are fixed at the start."
                yield ConfigFault(f"layers.{depth}.{key}", str(value), reason)


def at_path(section: object, path: str) -> Any:
    """A key's value; None where the section's kind does not have it."""
    return reduce(lambda found, name: getattr(found, name, None), path.split("."), section)


def stack_words(source: Fresh | SourcePart) -> str:
    """The kinds of a recipe's sources, the uppermost first."""
    return " above ".join([*(part.type for part in reversed(stacked(source))), "fresh"])


def part_faults(path: str, given: Any, changed: Any) -> Faults:
    """A method's own part is made once, so a phase cannot bring it, drop it or change its keys."""
    if given != changed and (isinstance(given, Part) or isinstance(changed, Part)):
        why = f"cannot change during a run: {given.type} is made at its start."
        yield ConfigFault(path, changed.type, why, "Leave it as it is in the recipe.")
