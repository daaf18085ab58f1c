"""GPG: the plain policy gradient of a group (arXiv 2504.02546)."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import PositiveFloat
from torch import Tensor

from learner.columns import StepBatch
from learner.estimators import centred, rescued_share
from learner.plugin import LearnerPlugin
from learner.plugin_pairs import refills_whole_steps
from mgrpo.config import RunConfig
from mgrpo.config.base import StrictConfig
from mgrpo.errors import ConfigProblem


class GpgSettings(StrictConfig):
    """Keys of gpg."""

    scale: bool = True
    """Multiply by N / (N - M), M of N completions being in groups whose rewards are equal."""
    divisor: PositiveFloat = 1.0
    """What advantages are divided by (F in the paper)."""


class Gpg(LearnerPlugin):
    """Centred rewards, scaled up for the groups that say nothing; with `reinforce`, GPG.

    Groups of equal rewards have no gradient and would only shrink the step; α = N / (N - M) gives
    it back (https://arxiv.org/abs/2504.02546). No ratio, no clip, no KL. The paper also samples
    again where too few groups are left: sampling.dynamic with min_mixed_fraction: 0.6.

    Formula:
        A_i = α (r_i - mean_group r) / divisor,   α = N / (N - M)

    Metrics:
        gpg/alpha: α of this step, 1 where no group is uniform.
    """

    needs_all_tokens = False
    Settings: ClassVar[type[StrictConfig]] = GpgSettings

    @classmethod
    def problems(
        cls, settings: Any, layers: frozenset[int], config: RunConfig
    ) -> list[ConfigProblem]:
        if any(entry.use == "reinforce" for entry in config.plugins):
            return []
        return [
            ConfigProblem(
                "(plug-in)", "gpg", "maximises A log p, without a ratio.", "Add use: reinforce."
            )
        ]

    @classmethod
    def warnings(cls, settings: Any, layers: frozenset[int], config: RunConfig) -> list[str]:
        if not settings.scale or not refills_whole_steps(config):
            return []
        return [
            "settings.scale has nothing to give back: sampling.dynamic leaves no group of layer 1 "
            "whose rewards are equal."
        ]

    def estimate_advantages(self, batch: StepBatch, rewards: Tensor) -> Tensor:
        here = batch.in_layers(self.layers) & batch.is_usable
        alpha = rescued_share(rewards, batch.group_ids, here)
        batch.metrics["gpg/alpha"] = (alpha, 1.0)
        scale = alpha if self.settings.scale else 1.0
        return scale / self.settings.divisor * centred(rewards, batch.group_ids, here)
