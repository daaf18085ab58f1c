"""The hooks of a plug-in that changes what is sampled.

    program         samples a problem in another way than the chain of layers (actors/programs.py)
    annotate        names parts of a completion (steps, an analysis, ...), once it is scored
    after_sampling  may change one prompt's completions: continue, replace, add

The last two work on the plug-in's own layers, in the order of the recipe; `after_sampling` of all
plug-ins comes before `annotate` of any. They are called while training, not in evaluations.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from actors.programs import Program
from actors.templates import PromptBuilder
from mgrpo.plugin import Plugin
from mgrpo.records.token_columns import TokenIds
from mgrpo.records.turns import Prompt
from mgrpo.types import Completion, Generation, Problem, Reward


class RolloutTools(Protocol):
    """The rollout's tools for plug-ins."""

    builder: PromptBuilder
    seed: int

    async def generate(
        self,
        layer: int,
        prompt: Prompt,
        *,
        num_samples: int,
        max_tokens: int,
        seed: int,
        temperature: float | None = None,
    ) -> list[Generation]:
        """Sample from the least busy engine of a layer; temperature None is the rollout's."""
        ...

    async def score(
        self, problem: Problem, texts: list[str], token_ids: list[TokenIds] | None = None
    ) -> list[Reward]:
        """Check texts as completions are checked; some reward functions also read token ids."""
        ...


class RolloutPlugin(Plugin):
    """Base class; override what you need."""

    def extra_tokens(self) -> int:
        """How much longer than a layer's max_completion_tokens it may make a completion."""
        return 0

    def program(self) -> Program | None:
        """What is sampled for one problem; None is the chain. One plug-in of a recipe may have one.

        It works in all layers. Evaluations always go through the chain.
        """
        return None

    async def after_sampling(
        self, tools: RolloutTools, layer: int, problem: Problem, completions: Sequence[Completion]
    ) -> list[Completion]:
        """The scored completions of one prompt, changed or as they are. With a layer's `early_stop`
        these may be a part of its group."""
        return list(completions)

    def annotate(self, tools: RolloutTools, completion: Completion) -> Completion:
        """The completion with `spans` (or anything else) filled in."""
        return completion
