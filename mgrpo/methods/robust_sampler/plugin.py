"""The slot data.sampler: problems by their domains."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from mgrpo.config import MethodView
from mgrpo.config.base import StrictConfig
from mgrpo.config.data import has_one_domain
from mgrpo.data.sampler import Sampler
from mgrpo.methods.robust_sampler.domain_sampler import DomainSampler
from mgrpo.methods.robust_sampler.mixture import RobustSamplerSettings
from mgrpo.training.sources.source import SamplerPlugin
from mgrpo.types import Problem


class RobustSampler(SamplerPlugin):
    """Draws more problems from the domains where the policy fails (after GDR-MDP,
    arXiv 2210.12262; drawing data by it is our reconstruction).

    Metrics:
        sampler/DOMAIN: chance of a domain to be drawn.
        sampler_belief/GROUP: belief in a group, with `groups` or an adaptive `belief`.
    """

    Settings: ClassVar[type[StrictConfig]] = RobustSamplerSettings

    @classmethod
    def warnings(cls, settings: Any, layers: frozenset[int], method: MethodView) -> list[str]:
        if has_one_domain(method.data.train):
            return ["has no effect: all problems of data.train are of one domain."]
        return []

    def make(self, problems: Sequence[Problem], seed: int) -> Sampler:
        return DomainSampler([one.domain for one in problems], self.settings, seed)
