"""Marks the steps of a completion, for plug-ins that reward steps."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from actors.plugin import RolloutPlugin, RolloutTools
from actors.spans import StepSplit, split_steps, token_ranges
from mgrpo.config.base import StrictConfig
from mgrpo.types import Completion


class StepSettings(StrictConfig):
    """Keys of step_spans."""

    split: StepSplit = "newline"
    """Where one step ends and the next begins."""
    span: str = "steps"
    """Name under which the steps are marked."""


class StepSpans(RolloutPlugin):
    """Cuts every completion into steps: lines, sentences or numbered items."""

    Settings: ClassVar[type[StrictConfig]] = StepSettings
    read_by: ClassVar[tuple[str, ...]] = ("prefix_preference", "span_credit")

    def annotate(self, tools: RolloutTools, completion: Completion) -> Completion:
        decode = tools.builder.decode
        token_ids = completion.token_ids.tolist()
        text = decode(token_ids)
        steps = split_steps(text, self.settings.split)
        ranges = token_ranges(decode, token_ids, steps)
        return replace(completion, spans={**completion.spans, self.settings.span: ranges})
