"""Clip-Cov: a few tokens that would lower entropy most get no gradient (arXiv 2505.22617)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from pydantic import Field, model_validator
from torch import Tensor

from learner.columns import StepBatch
from learner.covariance import drawn_between, token_covariances
from learner.plugin import LearnerPlugin, Measurement
from learner.plugin_pairs import small_share_warnings
from mgrpo.config import MethodView
from mgrpo.config.base import StrictConfig, refuse
from mgrpo.sources import most_completions


class ClipCovSettings(StrictConfig):
    """Keys of clip_cov."""

    share: float = Field(default=2e-4, gt=0, le=1)
    """Of all trained tokens of a step, how many lose their gradient; at least one. The default
    is the authors', for hundreds of thousands of tokens; smaller steps need more."""
    lowest: float = 1.0
    """Tokens of a lower covariance are no candidates."""
    highest: float = 5.0
    """Candidates are tokens whose covariance lies between."""
    seed: int = 0
    """The draw differs between steps and is the same on all ranks."""

    @model_validator(mode="after")
    def check_range(self) -> ClipCovSettings:
        if self.lowest >= self.highest:
            refuse("lowest", self.lowest, f"is not below {self.highest:g}.")
        return self


class ClipCov(LearnerPlugin):
    """Takes the policy gradient from a random few of the tokens whose advantage and log-probability
    vary together.

    These are what makes entropy collapse (https://arxiv.org/abs/2505.22617).

    Formula:
        cov_t = (A_t - mean A)(log p_t - mean log p), means over the step's trained tokens
        A_t ← 0 for a random `share` of all tokens, drawn from those with lowest < cov_t < highest

    Metrics:
        clip_cov/clipped_fraction: share of the trained tokens that lost their gradient.

    Reconstructed:
        Covariances are taken and tokens drawn once per step, under the weights that begin it. The
        authors repeat both in each mini-batch, among the tokens that PPO's clipping has left: in
        further optimizer steps on one rollout the numbers differ.
    """

    Settings: ClassVar[type[StrictConfig]] = ClipCovSettings
    requires: ClassVar[frozenset[Measurement]] = frozenset({"policy_logprobs"})
    overlaps: ClassVar[Mapping[str, str]] = {
        "kl_cov": "holds back tokens of high covariance too, partly the same ones"
    }

    @classmethod
    def warnings(
        cls, settings: ClipCovSettings, layers: frozenset[int], method: MethodView
    ) -> list[str]:
        return small_share_warnings(settings.share, layers, method, most_completions(method))

    def transform_advantages(self, batch: StepBatch, advantages: Tensor) -> Tensor:
        settings = self.settings
        own = batch.spread(batch.in_layers(self.layers) & batch.is_usable) & batch.is_trained
        # The draw is one of the whole step's tokens, in their order.
        advantages_of_all, logprobs, here = map(
            batch.gather_tokens, (advantages, batch.measurements["policy_logprobs"], own)
        )
        drawn = drawn_between(
            token_covariances(advantages_of_all, logprobs, here),
            here,
            lowest=settings.lowest,
            highest=settings.highest,
            share=settings.share,
            seed=settings.seed + batch.step,
        )
        batch.metrics["clip_cov/clipped_fraction"] = (float(drawn.sum()), float(here.sum()))
        return torch.where(batch.own_tokens(drawn), 0.0, advantages)
