"""What the sources of a recipe say of its steps, before there is a run.

How they work is in `mgrpo/training/sources/source.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, ClassVar

from mgrpo.config import MethodView
from mgrpo.config.relations import max_completions_per_step, rank_faults
from mgrpo.config.sources import SourcePart, stacked
from mgrpo.errors import ConfigFault, Faults, must_be
from mgrpo.plugin import Plugin, find_plugin
from mgrpo.registry import Kind


class SourceKind(Plugin):
    """What a source's class says of the steps that it gives work for."""

    kind: ClassVar[Kind] = "SOURCES"
    draws: ClassVar[bool] = False
    """It draws its problems itself, and never asks the source below for work."""
    needs_joint: ClassVar[bool] = False
    """Its work has completions that are sampled already, or names the layers to sample."""
    samples: ClassVar[bool] = False
    """It samples itself, before there is a step that could be overlapped."""
    one_layer: ClassVar[bool] = False
    """Each of its steps samples and trains one layer of the chain."""
    replays: ClassVar[bool] = False
    """Completions of earlier steps train again."""

    @classmethod
    def faults(cls, settings: Any, layers: frozenset[int], method: MethodView) -> Faults:
        own = next(part for part in stacked(method.source) if kind_of(part) is cls)
        order = method.objective.update_order.type
        if cls.draws and isinstance(own.above, SourcePart):
            why = f"{own.type} draws problems itself, so it works above fresh problems only."
            hint = f"Leave the key out, or write above: {own.type} in one that may stand above."
            yield ConfigFault("above", own.above.type, why, hint)
        if cls.needs_joint:
            why = f"source {own.type} says itself which layers are sampled in a step."
            yield from must_be("(objective.update_order)", order, "joint", why)
        if cls.samples:
            why = f"source {own.type} samples before there is a step that could be overlapped."
            path, hint = "(pipeline.max_staleness_steps)", "Use auto, or another source."
            yield from must_be(path, method.num_ahead, 0, why, hint)
        if cls.one_layer:
            found = rank_faults(method.num_ranks, most_completions_per_minibatch(method))
            yield from (replace(one, path=f"({one.path})") for one in found)


def kind_of(part: SourcePart) -> type[SourceKind] | None:
    """The class of a source; None where it cannot be loaded, which is reported where it is made."""
    try:
        found = find_plugin(part.type, "SOURCES")
    except ValueError:
        return None
    return found if issubclass(found, SourceKind) else None


def kinds_of(method: MethodView) -> Iterator[type[SourceKind]]:
    """The classes of a recipe's sources above the fresh problems, lowest first."""
    for part in stacked(method.source):
        kind = kind_of(part)
        if kind is not None:
            yield kind


def is_on_policy(method: MethodView) -> bool:
    """True where every ratio to the policy that sampled is exactly 1, in every phase."""
    steps = {values.objective.optimizer_steps for values in method.ever}
    replays = any(kind.replays for kind in kinds_of(method))
    return steps == {1} and not method.num_ahead and not replays


def is_joint(method: MethodView) -> bool:
    """True where one update trains all layers of a step."""
    is_joint_order = method.objective.update_order.type == "joint"
    return is_joint_order and not any(kind.one_layer for kind in kinds_of(method))


def most_completions(method: MethodView) -> int:
    """Completions of one step when no parent is left out."""
    return most_completions_of(method, method.prompts_per_step)


def most_completions_per_minibatch(method: MethodView) -> int:
    """Completions of one optimizer step when no parent is left out."""
    return most_completions_of(method, method.problems_per_minibatch)


def most_completions_of(method: MethodView, num_problems: int) -> int:
    """Completions of so many of a step's problems when no parent is left out."""
    return max_completions_per_step(
        method.layers,
        num_problems=num_problems,
        one_layer=any(kind.one_layer for kind in kinds_of(method)),
    )
