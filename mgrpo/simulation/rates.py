"""Speeds of engines and learner, failures, and what is known of completions.

All times are in seconds. A YAML file of these keys is what `mgrpo simulate --rates` reads.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from mgrpo.config.base import StrictConfig
from mgrpo.simulation.workload import Lengths

Share = Annotated[float, Field(ge=0, le=1)]


class EngineRates(StrictConfig):
    """One engine. A decode step gives every running sequence a token; with n of them it takes
    `max(step_s, n * arithmetic_s) + n * sequence_s + context_tokens * context_s`."""

    step_s: PositiveFloat
    """Of a decode step, whatever runs: reading the weights, starting kernels."""
    arithmetic_s: NonNegativeFloat = 0.0
    """Arithmetic for each running sequence, beside reading the weights."""
    sequence_s: NonNegativeFloat = 0.0
    """More for each running sequence."""
    context_s: NonNegativeFloat = 0.0
    """More for each token of the running sequences' prompts and completions."""
    prefill_s: NonNegativeFloat = 0.0
    """Per token of a prompt that is not cached; decoding waits meanwhile."""
    cached_share: Share = 0.0
    """Share of a prompt that is in the prefix cache; a group's others find all of it."""
    max_running: PositiveInt
    """Sequences at a time, by engines.max_num_seqs and the cache; others wait."""


class LearnerRates(StrictConfig):
    """The learner's ranks. Work is shared out evenly."""

    token_s: NonNegativeFloat
    """One rank's time for a token's forward and backward, the reference included."""
    microbatch_s: NonNegativeFloat = 0.0
    """More for each micro-batch: communication that is not hidden."""
    update_s: NonNegativeFloat = 0.0
    """More for each update: the optimizer."""


class FailureRates(StrictConfig):
    """Failures, as mean times between two; 0: none."""

    engine_mtbf_h: NonNegativeFloat = 0.0
    """Of one engine, in hours. Its requests start again on another one."""
    engine_recovery_s: NonNegativeFloat = 120.0
    """Until a lost engine samples again: model, graphs, weights."""
    spot_mtbf_h: NonNegativeFloat = 0.0
    """Of one node of engines, which is taken back, in hours."""
    spot_return_s: NonNegativeFloat = 600.0
    """Until the node is replaced and its engines sample."""
    engines_per_node: PositiveInt = 8
    learner_mtbf_h: NonNegativeFloat = 0.0
    """Of one rank, in hours. The run starts again from its last checkpoint."""
    learner_restart_s: NonNegativeFloat = 600.0


class LayerData(StrictConfig):
    """What is known of a layer's completions; None: as `mgrpo.plan.simulated` assumes."""

    lengths: Lengths | None = None
    added_prompt_tokens: NonNegativeInt | None = None
    """Tokens of a correction's prompt beside the problem's prompt and the attempt."""
    parent_share: Share | None = None
    """Share of the attempts that are corrected, of those that may be."""
    trained_share: NonNegativeFloat | None = None
    """Tokens that the learner computes, as a share of those sampled and their prompts."""


class Rates(StrictConfig):
    """Everything that takes time, and how much of it there is."""

    engine: EngineRates
    learner: LearnerRates
    weights_s: NonNegativeFloat = 0.0
    """Of a broadcast with its verification."""
    switch_s: NonNegativeFloat = 0.0
    """Between sampling and update where engines and learner have their GPUs in turn; each way."""
    score_s: NonNegativeFloat = 0.0
    """From a group's last token to its rewards."""
    checkpoint_s: NonNegativeFloat = 0.0
    """Of a checkpoint; everything waits."""
    evaluation_s: NonNegativeFloat = 0.0
    """Of an evaluation; training waits."""
    failures: FailureRates = FailureRates()
    prompt_tokens: PositiveInt | None = None
    """Mean of a problem's prompt. None: half of data.max_prompt_tokens."""
    layers: dict[str, LayerData] = Field(default_factory=dict)
    """By the layer's name."""
