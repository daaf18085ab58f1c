"""The objective, the optimizer and the ranks that compute the update."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from mgrpo.config.base import StrictConfig
from mgrpo.config.losses import Importance, Loss, PpoClip, Truncate
from mgrpo.config.slots import by_name
from mgrpo.records.json_object import JsonObject


class KlConfig(StrictConfig):
    """KL penalty to the frozen starting policy."""

    weight: NonNegativeFloat = 0.0
    """Factor on the KL term; 0 loads no reference model."""
    estimator: Literal["k1", "k2", "k3"] = "k3"
    """Of the divergence, per token: k3 is GRPO's; k2's gradient is that of KL(policy, reference);
    k1's expected gradient is 0."""


class Joint(StrictConfig):
    """One update from all layers, sampled from one policy."""

    type: Literal["joint"] = "joint"


class Sequential(StrictConfig):
    """One update per layer, first to last."""

    type: Literal["sequential"] = "sequential"
    rollout_policy: Literal["refreshed", "snapshot"] = "refreshed"
    """The policy that samples a later layer: the one that the update of the layer before left
    (refreshed), or the one that sampled the first layer (snapshot)."""


class AlternateSteps(StrictConfig):
    """Each step trains one layer, in turn."""

    type: Literal["alternate_steps"] = "alternate_steps"


UpdateOrder = Annotated[
    Joint | Sequential | AlternateSteps, Field(discriminator="type"), by_name("joint")
]


class ObjectiveConfig(StrictConfig):
    """The policy gradient, and what keeps it in bounds."""

    loss: Loss = PpoClip()
    """What is maximised per token: ppo_clip, or a method's own."""
    kl: KlConfig = KlConfig()
    importance: Importance = Truncate()
    """Correction for the gap between the engines' and the learner's log-probabilities: truncate,
    none, or a method's own."""
    updates_per_rollout: PositiveInt = 1
    """Times that a rollout is gone over (mu of the GRPO paper)."""
    minibatches: PositiveInt = 1
    """Optimizer steps of one pass over a rollout: its problems are cut into as many parts, in their
    order, each with all completions of its problems and with denominators of its own. At most
    prompts_per_step; a step of fewer problems has fewer parts. Clipping has an effect where a
    rollout has several optimizer steps."""
    learning_rate_factor: PositiveFloat = 1.0
    """Multiplies learner.learning_rate; for phases that train faster or slower than others."""
    update_order: UpdateOrder = Joint()
    """joint: one update from all layers; sequential: one update per layer, first to last;
    alternate_steps: each step trains one layer, in turn."""

    @property
    def optimizer_steps(self) -> int:
        """On one rollout, at most."""
        return self.updates_per_rollout * self.minibatches

    def problems_per_minibatch(self, prompts_per_step: int) -> int:
        """Of one optimizer step, at most."""
        return math.ceil(prompts_per_step / self.minibatches)


class LearnerConfig(StrictConfig):
    """The DeepSpeed learner."""

    num_ranks: PositiveInt = 1
    zero_stage: Literal[0, 1, 2, 3] = 0
    """States that DeepSpeed ZeRO shards over the ranks: 1 optimizer, 2 + gradients, 3 + weights."""
    learning_rate: NonNegativeFloat = 1e-6
    """Of AdamW, at its peak. 0 trains nothing (`mgrpo check --canary`)."""
    betas: tuple[float, float] = (0.9, 0.95)
    """Of AdamW: decay of the running mean of gradients, and of their squares."""
    weight_decay: NonNegativeFloat = 0.0
    """Of AdamW: each update takes learning rate times this share of every weight."""
    warmup_steps: NonNegativeInt = 0
    """Steps in which the learning rate rises to its peak."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """The schedule after the warm-up; linear and cosine reach 0 after the last step."""
    max_grad_norm: PositiveFloat = 1.0
    """A gradient of a larger norm is scaled down to it."""
    skip_above_grad_norm: PositiveFloat | None = None
    """Updates whose gradient has a larger norm, before clipping, leave weights and optimizer as
    they are; learner/skipped_updates counts them. None: no update is left out for that."""
    max_nonfinite_updates: NonNegativeInt = 0
    """Updates in a row whose loss or gradient is not finite (NaN or infinite) that are left out,
    each with a warning that names its origin; learner/nonfinite_updates counts them. The next one
    ends the run, with the state of the last whole step. 0: the first one does."""
    max_logprob_shift: PositiveFloat | None = 0.5
    """Largest mean difference, in nats a token, of a completion's recorded log-probabilities from
    the learner's own of the same policy version. Above it the completion is named with its engine,
    layer and shift; `mismatch/shifted_completions` counts them. Rounding makes 1e-6 in float32,
    below 0.1 in bfloat16. Tokens of an older policy are not compared. Null: none is."""
    on_shifted_logprobs: Literal["warn", "stop"] = "warn"
    """warn: train on such completions, with a warning. stop: end the run before the update."""
    microbatch_tokens: PositiveInt = 8192
    """Most tokens of one forward and backward: those that are computed, so shared ones count
    once and padding counts. Does not change the result."""
    merge_prefixes: bool = True
    """Compute common prefixes of rows once, if the model supports it. Does not change the
    result."""
    logprob_chunk_tokens: PositiveInt = 1024
    """Log-probabilities are computed for this many positions at a time, to save memory. On a CPU
    fewer where the vocabulary is large: as many as have 16 MiB of logits, but at least 128."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Compute type. auto: that of the policy (model.dtype) on a GPU, float32 on a CPU."""
    gradient_checkpointing: bool = False
    num_cpus: PositiveFloat = 1.0
    """CPUs that Ray reserves for each rank."""
    num_threads: PositiveInt | None = None
    """Compute threads of each CPU rank. None: the machine's cores divided by the ranks."""
    max_restarts: NonNegativeInt = 3
    """Times in a run that lost ranks are replaced and the step repeated, before a loss ends the
    run."""
    deepspeed: JsonObject = Field(default_factory=dict)
    """Merged into the generated DeepSpeed configuration, for offload and similar settings."""
