"""Sizes of one step: prompts, completions and tokens of each layer."""

from __future__ import annotations

from dataclasses import dataclass

from mgrpo.config import LaterLayer
from mgrpo.config.lengths import layer_lengths
from mgrpo.plan.recipe import PlanRecipe

CORRECTION_TOKENS = 128
"""Allowance for a correction's own turns and its guidance; `mgrpo check` measures them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerBatch:
    """One layer's part of a step, at most."""

    name: str
    num_prompts: int
    group_size: int
    num_spare: int  # further ones of each prompt that are begun and do not train
    num_engines: int  # at the start of the run
    max_engines: int
    max_completion_tokens: int
    max_sequence_tokens: int  # prompt and completion
    max_draft_tokens: int  # of speculation; 0: none
    trains: bool

    @property
    def num_completions(self) -> int:
        return self.num_prompts * self.group_size

    @property
    def sequences_per_engine(self) -> int:
        num_begun = self.num_prompts * (self.group_size + self.num_spare)
        return -(-num_begun // self.num_engines)

    @property
    def max_tokens(self) -> int:
        """Completion tokens that are sampled."""
        return self.num_completions * self.max_completion_tokens


def layer_batches(recipe: PlanRecipe) -> list[LayerBatch]:
    """Every layer's part of a step, first to last, if no parent is left out."""
    batches = []
    num_prompts = recipe.method.prompts_per_step
    lengths = layer_lengths(recipe.layers, recipe.max_prompt_tokens, CORRECTION_TOKENS)
    for depth, layer in enumerate(recipe.layers):
        if isinstance(layer, LaterLayer) and layer.max_parents is not None:
            num_prompts = recipe.method.prompts_per_step * layer.max_parents
        count = recipe.engines.pool if recipe.engines.shared else layer.num_engines
        batches.append(
            LayerBatch(
                name=layer.name,
                num_prompts=num_prompts,
                group_size=layer.group_size,
                num_spare=layer.over_sample,
                num_engines=count.min,
                max_engines=count.max,
                max_completion_tokens=layer.max_completion_tokens,
                max_sequence_tokens=lengths[depth],
                max_draft_tokens=layer.speculation.max_draft_tokens if layer.speculation else 0,
                trains=layer.loss_weight > 0,
            )
        )
        num_prompts = batches[-1].num_completions
    return batches


def context_tokens(recipe: PlanRecipe) -> int:
    """The engines' context: as set in the recipe, or the most that its longest layer can need."""
    lengths = [batch.max_sequence_tokens for batch in layer_batches(recipe)]
    return recipe.engines.max_model_len or max(lengths)


def learner_tokens(recipe: PlanRecipe) -> int:
    """Maximum tokens of a step for the learner, before prefixes are merged."""
    return sum(
        batch.num_completions * min(batch.max_sequence_tokens, context_tokens(recipe))
        for batch in layer_batches(recipe)
        if batch.trains
    )
