"""Marks where a correction analyses the mistake (ScRPO, https://arxiv.org/abs/2511.06065)."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, Literal

from actors.plugin import RolloutPlugin, RolloutTools
from actors.spans import section, token_ranges
from mgrpo.config.base import StrictConfig
from mgrpo.types import Completion


class ReflectionSettings(StrictConfig):
    """Keys of reflection_span."""

    opening: str | None = "Analysis:"
    """What the analysis begins with; null: the completion's own beginning."""
    closing: str = "Corrected solution:"
    """What stands after it; not part of it."""
    span: str = "analysis"
    """Name under which it is marked."""
    missing_marker: Literal["zero_reward", "keep"] = "zero_reward"
    """What becomes of a completion without the markers: its reward is 0 and its answer does not
    count as right, or it is left as it is, without the span."""


class ReflectionSpan(RolloutPlugin):
    """Finds the analysis in a correction, from one marker up to another.

    Reconstructed:
        The markers: what the analysis of a correction begins and ends with.
    """

    Settings: ClassVar[type[StrictConfig]] = ReflectionSettings
    read_by: ClassVar[tuple[str, ...]] = ("span_credit",)

    def annotate(self, tools: RolloutTools, completion: Completion) -> Completion:
        decode, settings = tools.builder.decode, self.settings
        token_ids = completion.token_ids.tolist()
        text = decode(token_ids)
        if settings.opening is None:
            end = text.find(settings.closing)
            found = (0, end) if end >= 0 else None
        else:
            found = section(text, settings.opening, settings.closing)
        if found is not None:
            ranges = token_ranges(decode, token_ids, [found])
            return replace(completion, spans={**completion.spans, settings.span: ranges})
        reward = completion.reward
        if reward is None or not reward.is_usable or settings.missing_marker == "keep":
            return completion
        detail = f"no {settings.span}: {settings.opening!r} or {settings.closing!r} is missing"
        return replace(completion, reward=replace(reward, value=0.0, correct=False, detail=detail))
