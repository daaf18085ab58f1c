"""The objective, the optimizer and the ranks that compute the update."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from mgrpo.config.base import StrictConfig
from mgrpo.config.losses import Importance, Loss, PpoClip, Truncate
from mgrpo.config.preferences import PreferenceConfig


class KlConfig(StrictConfig):
    """KL penalty to the frozen starting policy."""

    weight: NonNegativeFloat = 0.0
    """Factor on the KL term; 0 loads no reference model."""
    estimator: Literal["k1", "k2", "k3"] = "k3"
    """Of the divergence, per token: k3 is GRPO's; k2's gradient is that of KL(policy, reference);
    k1's expected gradient is 0."""


class ErrorPoolConfig(StrictConfig):
    """Wrong attempts kept for later correction (ScRPO, arXiv 2511.06065)."""

    capacity: PositiveInt = 2048
    """Capacity in attempts; the oldest is removed first."""
    variance_threshold: NonNegativeFloat = 0.1
    """A problem's wrong attempts are added if p(1 - p) of its group reaches this, where p is the
    share of right ones: neither always right nor always wrong."""
    switch: Literal["pool_full", "every_n_steps"] = "pool_full"
    """When corrections are trained: once the pool is full, until fewer than a step's worth are
    left; or every `every_steps` steps, as far as the pool holds any."""
    every_steps: PositiveInt = 4
    max_age: PositiveInt | None = None
    """Attempts of policies more than this many versions old are dropped; null: kept."""


class CorrectionBufferConfig(StrictConfig):
    """Successful corrections of earlier steps, trained on again off policy.

    Their stored log-probabilities are the old policy's, so the ratio is a true one and the
    clip range limits it.
    """

    capacity: PositiveInt = 256
    per_step: PositiveInt = 16
    """Corrections drawn for each step, without replacement."""
    max_age: PositiveInt | None = 8
    """Corrections of policies more than this many versions old are dropped; null: kept."""
    weight: PositiveFloat = 1.0
    """Factor on their mean loss, beside the layers'."""


class ObjectiveConfig(StrictConfig):
    """The policy gradient, and what keeps it in bounds."""

    loss: Loss = PpoClip()
    """What is maximised per token: ppo_clip, or a method's own."""
    kl: KlConfig = KlConfig()
    importance: Importance = Truncate()
    """Correction for the gap between the engines' and the learner's log-probabilities: truncate,
    none, or a method's own."""
    updates_per_rollout: PositiveInt = 1
    """Updates per rollout (mu of the GRPO paper); clipping has an effect above 1."""
    learning_rate_factor: PositiveFloat = 1.0
    """Multiplies learner.learning_rate; for phases that train faster or slower than others."""
    update_order: Literal[
        "joint", "sequential", "alternate_steps", "pooled_errors", "preference_phases"
    ] = "joint"
    """joint: one update from all layers. sequential: one update per layer, first to last.
    alternate_steps: each step trains one layer, in turn. pooled_errors: steps train layer 1 and
    put its errors into `error_pool`; some steps train layer 2 on corrections of these.
    preference_phases: steps train on rollouts jointly and make `preferences` of them; steps of
    phases with `train_on: pairs` train on these, without sampling."""
    rollout_policy: Literal["auto", "snapshot", "refreshed"] = "auto"
    """With sequential: is layer 2 sampled from the policy that layer 1's update left (refreshed,
    what auto means there), or from the one that sampled layer 1 (snapshot)?"""
    error_pool: ErrorPoolConfig = ErrorPoolConfig()
    correction_buffer: CorrectionBufferConfig | None = None
    """Null: corrections train once."""
    preferences: PreferenceConfig = PreferenceConfig()
    """For update_order: preference_phases."""
    train_on: Literal["rollouts", "pairs"] = "rollouts"
    """pairs: the pairs made since the last phase of pairs, held fixed while the phase lasts.
    Needs update_order: preference_phases and a plug-in that trains on pairs, such as dpo."""


class LearnerConfig(StrictConfig):
    """The DeepSpeed learner."""

    num_ranks: PositiveInt = 1
    zero_stage: Literal[0, 1, 2, 3] = 0
    """States that DeepSpeed ZeRO shards over the ranks: 1 optimizer, 2 + gradients, 3 + weights."""
    learning_rate: PositiveFloat = 1e-6
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: NonNegativeFloat = 0.0
    warmup_steps: NonNegativeInt = 0
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """The schedule after the warm-up; linear and cosine reach 0 after the last step."""
    max_grad_norm: PositiveFloat = 1.0
    skip_above_grad_norm: PositiveFloat | None = None
    """Updates whose gradient has a larger norm, before clipping, leave weights and optimizer as
    they are; learner/skipped_updates counts them. None: no update is left out for that."""
    microbatch_tokens: PositiveInt = 8192
    """Most tokens of one forward and backward: those that are computed, so shared ones count
    once and padding counts. Does not change the result."""
    merge_prefixes: bool = True
    """Compute common prefixes of rows once, if the model supports it. Does not change the
    result."""
    logprob_chunk_tokens: PositiveInt = 1024
    """Log-probabilities are computed for this many positions at a time, to save memory."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Compute type. auto: that of the policy (model.dtype) on a GPU, float32 on a CPU."""
    gradient_checkpointing: bool = False
    num_cpus: PositiveFloat = 1.0
    """CPUs that Ray reserves for each rank."""
    num_threads: PositiveInt | None = None
    """Compute threads of each CPU rank. None: the machine's cores divided by the ranks."""
    deepspeed: dict[str, Any] = Field(default_factory=dict)
    """Merged into the generated DeepSpeed configuration, for offload and similar settings."""
