"""GRPO-CARE: a bonus for right answers that follow from their reasoning (arXiv 2506.16141)."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, NonNegativeFloat, PositiveInt
from torch import Tensor

from learner.columns import StepBatch
from learner.plugin import EmaSchedule, LearnerPlugin, Measurement
from learner.plugin_pairs import unknown_check_faults
from learner.row_groups import usable_groups
from mgrpo.config import MethodView
from mgrpo.config.base import StrictConfig
from mgrpo.errors import ConfigFault, Faults


class GrpoCareSettings(StrictConfig):
    """Keys of grpo_care."""

    bonus: NonNegativeFloat = 0.5
    """Share of the accuracy reward that a consistent answer earns on top; 0 turns it off."""
    accuracy_part: str | None = None
    """Which check says how right an answer is (a name of `rewards.terms`), for graded accuracies.
    Null: 1 for a right answer and 0 for a wrong one."""
    accuracy_floor: NonNegativeFloat = 0.1
    """A completion is a candidate from this accuracy on, or from its group's mean where that is
    higher."""
    exceed_floor: bool = False
    """The accuracy must also be above the floor, not only reach it, as in the authors' code."""
    answer_probability: Literal["arithmetic", "geometric"] = "arithmetic"
    """Over the answer's tokens: the mean of their probabilities (the paper), or exp of the mean of
    their log-probabilities (the authors' code)."""
    probability_ceiling: float = Field(default=0.95, gt=0, le=1)
    """Answers likelier than this count as this likely."""
    margin: NonNegativeFloat = 0.01
    """So much less likely than the candidates' mean an answer may be."""
    ema_decay: float = Field(default=0.995, ge=0, lt=1)
    """The reference is average <- decay * average + (1 - decay) * policy, ..."""
    ema_every_updates: PositiveInt = 10
    """... after every so many updates."""
    span: str = "answer"
    """Name under which the final answer's tokens are marked, by answer_span or a part of yours."""


class GrpoCare(LearnerPlugin):
    """Adds to the reward of right answers whose own reasoning makes them likely.

    How likely an answer is, given the question and the completion's reasoning, is measured with a
    slowly changing reference: a running average of the policy. Of a group's completions that are
    accurate enough, those whose answer is at least about as likely as these are on average earn the
    bonus. It keeps the policy from right answers that its reasoning does not lead to, and stands in
    place of a KL term.

    Formula:
        r_i ← r_i + bonus · accuracy_i · [i accurate enough and p_i ≥ mean over those of p - margin]
        p_i: probability of the answer's tokens under φ;  φ ← ema_decay φ + (1 - ema_decay) θ

    Metrics:
        grpo_care/consistent_fraction: share of the accurate completions that earn the bonus.
        grpo_care/answer_probability: mean of p over completions that have an answer.
    """

    by_tree = True
    Settings: ClassVar[type[StrictConfig]] = GrpoCareSettings
    requires: ClassVar[frozenset[Measurement]] = frozenset({"ema_logprobs"})
    needs: ClassVar[tuple[str, ...]] = ("answer_span",)

    @classmethod
    def faults(
        cls, settings: GrpoCareSettings, layers: frozenset[int], method: MethodView
    ) -> Faults:
        yield from unknown_check_faults(method.rewards, "accuracy_part", settings.accuracy_part)
        entries = [one.settings for one in method.plugins if one.use == "grpo_care"]
        every = [GrpoCareSettings.model_validate(one) for one in entries]
        if len({(one.ema_decay, one.ema_every_updates) for one in every}) > 1:
            why = "a run keeps one average of the policy, and entries of grpo_care want several."
            hint = "Give all the same ema_decay and ema_every_updates."
            yield ConfigFault("ema_decay", str(settings.ema_decay), why, hint)

    def wanted_measurements(self) -> frozenset[Measurement]:
        return self.requires if self.settings.bonus > 0 else frozenset()

    def ema(self) -> EmaSchedule | None:
        if self.settings.bonus == 0:
            return None
        return EmaSchedule(
            decay=self.settings.ema_decay, every_updates=self.settings.ema_every_updates
        )

    def shape_rewards(self, batch: StepBatch, rewards: Tensor) -> Tensor:
        settings = self.settings
        if settings.bonus == 0:
            return rewards
        has_answer = batch.row_sums(batch.in_span(settings.span).double()) > 0
        accuracies, probabilities = self.accuracies(batch), self.answer_probabilities(batch)
        shaped = rewards.clone()
        num_consistent = num_candidates = 0
        for places in usable_groups(batch, self.layers):
            is_candidate = has_answer[places] & accurate_enough(
                accuracies[places], floor=settings.accuracy_floor, exceed=settings.exceed_floor
            )
            is_consistent = likely_enough(
                probabilities[places],
                is_candidate,
                ceiling=settings.probability_ceiling,
                margin=settings.margin,
            )
            shaped[places] += settings.bonus * accuracies[places] * is_consistent
            num_candidates += int(is_candidate.sum())
            num_consistent += int(is_consistent.sum())
        batch.metrics["grpo_care/consistent_fraction"] = (num_consistent, num_candidates)
        here = has_answer & batch.in_layers(self.layers) & batch.is_usable
        batch.metrics["grpo_care/answer_probability"] = (
            float(probabilities[here].sum()),
            float(here.sum()),
        )
        return shaped

    def accuracies(self, batch: StepBatch) -> Tensor:
        """[N] how right each completion is."""
        part = self.settings.accuracy_part
        if part is None:
            return batch.is_correct.double()
        return batch.rows(
            [
                0.0 if one.reward is None else one.reward.parts.get(part, 0.0)
                for one in batch.completions
            ]
        )

    def answer_probabilities(self, batch: StepBatch) -> Tensor:
        """[N] how likely the answer is after the reasoning; 0 or 1 without an answer."""
        logprobs, span = batch.measurements["ema_logprobs"], batch.in_span(self.settings.span)
        if self.settings.answer_probability == "geometric":
            return batch.row_means(logprobs, span).exp()
        return batch.row_means(logprobs.exp(), span)


def accurate_enough(accuracies: Tensor, *, floor: float, exceed: bool) -> Tensor:
    """[G] bool: at least the group's mean accuracy and the floor; above the floor if `exceed`."""
    enough = accuracies >= max(float(accuracies.mean()), floor)
    return enough & (accuracies > floor) if exceed else enough


def likely_enough(
    probabilities: Tensor, is_candidate: Tensor, *, ceiling: float, margin: float
) -> Tensor:
    """[G] bool: a candidate whose answer is about as likely as the candidates' are on average.

    Args:
        probabilities: [G] of the answers; those above `ceiling` count as that.
        is_candidate: [G] bool.
        margin: how far below the mean is still enough.
    """
    if not is_candidate.any():
        return is_candidate
    capped = probabilities.clamp(max=ceiling)
    return is_candidate & (capped >= capped[is_candidate].mean() - margin)
