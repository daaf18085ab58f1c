"""In which order the hooks of several plug-ins are called, and on what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from actors.plugin import RolloutPlugin, RolloutTools
from mgrpo.config.base import StrictConfig
from mgrpo.types import Completion, Problem
from tests.actors.plugins.scripted_rollout import rollout, sampled


class Note(RolloutPlugin):
    """Adds its name to the text, in capitals where it changes what was sampled."""

    def __init__(self, name: str, *layers: int) -> None:
        super().__init__(StrictConfig(), frozenset(layers))
        self.name = name

    async def after_sampling(
        self, tools: RolloutTools, layer: int, problem: Problem, completions: Sequence[Completion]
    ) -> list[Completion]:
        return [replace(one, text=one.text + self.name.upper()) for one in completions]

    def annotate(self, tools: RolloutTools, completion: Completion) -> Completion:
        return replace(completion, text=completion.text + self.name)


def test_all_changes_come_before_all_notes_in_the_recipes_order() -> None:
    parts = rollout(lambda prompt, index: "", [Note("b", 1), Note("a", 1)], group_sizes=(2,))
    assert {one.text for one in sampled(parts)} == {"BAba"}


def test_each_works_on_its_own_layers() -> None:
    plugins = [Note("a", 1, 2), Note("b", 2)]
    parts = rollout(lambda prompt, index: "", plugins, group_sizes=(2, 2))
    texts = {one.layer: one.text for one in sampled(parts)}
    assert texts == {1: "Aa", 2: "ABab"}


def test_a_plugin_without_hooks_of_its_own_changes_nothing() -> None:
    plain = rollout(lambda prompt, index: "7", [])
    idle = rollout(lambda prompt, index: "7", [RolloutPlugin(StrictConfig(), frozenset({1}))])
    assert sampled(plain) == sampled(idle)
    assert RolloutPlugin(StrictConfig(), frozenset({1})).extra_tokens() == 0
