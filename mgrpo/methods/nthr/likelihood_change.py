"""How an update changed the likelihood of right answers (https://arxiv.org/abs/2505.18830)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import PositiveInt

from learner.columns import StepBatch
from learner.plugin import LearnerPlugin, Measurement
from learner.row_groups import in_mixed_group
from learner.rows import text
from mgrpo.config.base import StrictConfig

if TYPE_CHECKING:
    from learner.policy_reader import PolicyReader


class LikelihoodChangeSettings(StrictConfig):
    """Keys of likelihood_change."""

    max_answers: PositiveInt = 64
    """Right answers of a step that are read again, the first ones of it; each rank reads all."""


@dataclass(frozen=True, slots=True)
class RightAnswer:
    """A right answer of an earlier step."""

    group: int  # of one step
    logprob: float  # nats, of the whole answer, under the weights that began the step
    prompt_token_ids: list[int]
    token_ids: list[int]


class LikelihoodChange(LearnerPlugin):
    """Measures whether the last step made its own right answers likelier.

    It changes nothing. Of groups with right and wrong answers the right ones are kept and read
    again as the next step begins, with the weights that their own step left. Where they have become
    less likely, the push against wrong answers has reached them too (lazy likelihood displacement).
    It takes a forward pass over what was kept, and has no value in a run's first step.

    Formula:
        Δ(q) = mean over q's right answers y of log p_after(y | q) - log p_before(y | q)

    Metrics:
        likelihood_change/mean: mean of Δ over the last step's problems, nats.
        likelihood_change/fallen_fraction: share of these problems whose Δ is below 0.
    """

    Settings: ClassVar[type[StrictConfig]] = LikelihoodChangeSettings
    requires: ClassVar[frozenset[Measurement]] = frozenset({"policy_logprobs"})

    def __init__(self, settings: StrictConfig, layers: frozenset[int]) -> None:
        super().__init__(settings, layers)
        self.earlier: list[RightAnswer] = []  # of the step before this one
        self.newest: list[RightAnswer] = []

    def state_dict(self) -> dict[str, object]:
        return {"newest": [list(astuple(one)) for one in self.newest]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.newest = [RightAnswer(*one) for one in state["newest"]]

    def measure(self, batch: StepBatch) -> dict[str, object]:
        logprobs = batch.row_sums(batch.measurements["policy_logprobs"])
        is_right = in_mixed_group(batch) & batch.is_usable & batch.is_correct
        here = is_right & batch.in_layers(self.layers) & (batch.lengths > 0)
        places = here.nonzero()[:, 0].tolist()[: self.settings.max_answers]
        self.earlier, self.newest = (
            self.newest,
            [
                RightAnswer(
                    group=int(batch.group_ids[place]),
                    logprob=float(logprobs[place]),
                    prompt_token_ids=one.prompt_token_ids.tolist(),
                    token_ids=one.token_ids.tolist(),
                )
                for place in places
                for one in [batch.completions[place]]
            ],
        )
        return {}

    def read_policy(self, batch: StepBatch, policy: PolicyReader) -> dict[str, object]:
        if self.earlier:
            rows = [text(one.prompt_token_ids, one.token_ids) for one in self.earlier]
            found = policy.logprobs(rows, measurement="likelihood_change")
            parts = found.split([len(one.token_ids) for one in self.earlier])
            changes = changes_by_group(self.earlier, [float(part.sum()) for part in parts])
            count = float(len(changes))
            batch.metrics["likelihood_change/mean"] = (sum(changes), count)
            fallen = float(sum(change < 0 for change in changes))
            batch.metrics["likelihood_change/fallen_fraction"] = (fallen, count)
        return {}


def changes_by_group(answers: Sequence[RightAnswer], logprobs: Sequence[float]) -> list[float]:
    """Δ of each group, in nats.

    Args:
        logprobs: [answers] now.
    """
    changes: dict[int, list[float]] = defaultdict(list)
    for one, now in zip(answers, logprobs, strict=True):
        changes[one.group].append(now - one.logprob)
    return [sum(values) / len(values) for values in changes.values()]
