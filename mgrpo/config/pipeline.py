"""How far sampling and learning run side by side."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt

from mgrpo.config.base import StrictConfig
from mgrpo.config.cluster import ClusterConfig
from mgrpo.config.learner import ObjectiveConfig
from mgrpo.errors import ConfigFault, Faults, must_be

NewWeights = Literal["between_steps", "between_groups", "in_flight"]


class PipelineConfig(StrictConfig):
    """Sampling and learning side by side."""

    max_staleness_steps: Literal["auto"] | NonNegativeInt | None = "auto"
    """Null: a step is sampled whole, then trained on. 0: the learner trains on problems that are
    done while others are still sampled; weights do not change before all are in, so the update is
    the same. 1 and more: so many following steps are drawn and sampled while one trains, so that no
    token is of a policy that is more updates old; the ratio is against the log-probabilities
    recorded while sampling. auto: 0 where engines and learner have different GPUs and the recipe's
    parts allow it, as `mgrpo plan` says, else null."""

    new_weights: NewWeights = "between_steps"
    """When engines that sample ahead take new weights. between_steps: once all steps drawn ahead
    are sampled, so that a run can be repeated; for a staleness of 1. between_groups: once the
    running requests are done, while others wait; the completions of one prompt are of one policy.
    in_flight: at once, during completions; each token's ratio is against its own policy's
    log-probability."""

    min_done_fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Of a step's problems that are sampled ahead: with so many done it trains, and the others, for
    which waiting would idle the learner and which are too old for the next step, are ended and
    counted as dropped. Below 1 this favours problems with short answers."""

    @property
    def num_ahead(self) -> int:
        """Steps that are drawn and sampled while one trains."""
        return self.max_staleness_steps if isinstance(self.max_staleness_steps, int) else 0

    @property
    def samples_ahead(self) -> bool:
        """Whether steps train on completions of an older policy."""
        return self.num_ahead > 0

    def streams_on(self, device: str, cluster: ClusterConfig) -> bool:
        """Whether trees are to train while others are sampled, if the recipe's parts allow it."""
        if self.max_staleness_steps == "auto":
            return device == "cuda" and not cluster.takes_turns
        return self.max_staleness_steps == 0


def ahead_faults(pipeline: PipelineConfig, objective: ObjectiveConfig) -> Faults:
    """What cannot be sampled while a step before it trains, and settings that would do nothing."""
    path, given = "pipeline.max_staleness_steps", str(pipeline.max_staleness_steps)
    new_weights, order = pipeline.new_weights, objective.update_order.type
    if not pipeline.samples_ahead:
        why = f"nothing is sampled ahead with {path}: {given}."
        hint = f"Leave the key out, or set {path}: 1 or more."
        yield from must_be("pipeline.new_weights", new_weights, "between_steps", why, hint)
        fraction = pipeline.min_done_fraction
        yield from must_be("pipeline.min_done_fraction", fraction, 1, why, hint)
        return
    if order != "joint":
        why = f"with objective.update_order: {order} one layer trains at a time."
        yield ConfigFault(path, given, why, "Use update_order: joint.")
    if pipeline.num_ahead > 1 and new_weights == "between_steps":
        why = "with new_weights: between_steps all steps drawn ahead would end at the same time."
        hint = "Use new_weights: between_groups or in_flight, or a staleness of 1."
        yield ConfigFault(path, given, why, hint)
