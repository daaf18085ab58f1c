"""GPG: the plain policy gradient of a group (arXiv 2504.02546)."""

from __future__ import annotations

from typing import ClassVar

from pydantic import PositiveFloat
from torch import Tensor

from learner.columns import StepBatch
from learner.estimators import centred, rescued_share
from learner.plugin import AdvantageEstimator
from mgrpo.config.base import StrictConfig


class GpgSettings(StrictConfig):
    """Keys of gpg."""

    scale: bool = True
    """Multiply by N / (N - M), M of N completions being in groups whose rewards are equal."""
    divisor: PositiveFloat = 1.0
    """What advantages are divided by (F in the paper)."""


class Gpg(AdvantageEstimator):
    """Centred rewards, scaled up for the groups that say nothing; with the loss `reinforce`, GPG.

    Groups of equal rewards have no gradient and would only shrink the step; α = N / (N - M) gives
    it back (https://arxiv.org/abs/2504.02546). No ratio, no clip, no KL. The paper also samples
    again where too few groups are left: source dynamic with min_mixed_fraction: 0.6.

    Formula:
        A_i = α (r_i - mean_group r) / divisor,   α = N / (N - M)

    Metrics:
        gpg/alpha: α of this step, 1 where no group is uniform.
    """

    Settings: ClassVar[type[StrictConfig]] = GpgSettings

    def estimate_advantages(self, batch: StepBatch, rewards: Tensor) -> Tensor:
        here = batch.in_layers(self.layers) & batch.is_usable
        alpha = rescued_share(rewards, batch.group_ids, here)
        batch.metrics["gpg/alpha"] = (alpha, 1.0)
        scale = alpha if self.settings.scale else 1.0
        return scale / self.settings.divisor * centred(rewards, batch.group_ids, here)
