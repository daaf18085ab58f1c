"""SDPO: self-distillation from what the policy knows once it has seen a right solution
(https://arxiv.org/abs/2601.20802)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, ClassVar

import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from learner.columns import StepBatch
from learner.other_prompts import root_of
from learner.plugin import EmaSchedule, LearnerPlugin, Measurement
from learner.rows import text
from mgrpo.config import MethodView
from mgrpo.config.base import StrictConfig
from mgrpo.errors import Faults, must_be
from mgrpo.methods.sdpo.teacher_prompts import AROUND, NUM_TOKENS
from mgrpo.types import Completion

if TYPE_CHECKING:
    from learner.policy_reader import PolicyReader, Weights

TEACHER = "sdpo/teacher_logprobs"


class SdpoSettings(StrictConfig):
    """Keys of sdpo."""

    advantage_share: float = Field(default=0.5, ge=0, le=1)
    """Share of the layer's own advantage (λ); 0: the teacher alone."""
    max_gap: float = Field(default=5.0, gt=0)
    """Largest |log p_teacher - log p| of a token, in nats."""
    max_solution_tokens: PositiveInt = 512
    """The teacher is shown the first so many tokens of a solution."""
    ema_decay: float | None = Field(default=None, ge=0, lt=1)
    """Null: the teacher has the policy's weights as they are before the update. Else it has their
    running average with this decay per update."""


class Sdpo(LearnerPlugin):
    """Draws each attempt towards what the policy would have said, had it seen a right solution.

    The teacher is the policy itself with another prompt: the problem and a right solution, which is
    a right correction of the attempt, else a right correction or attempt of the problem. A token
    that the teacher finds likelier than the student gets a positive advantage, one that it finds
    less likely a negative one, so there is credit within an attempt. What nobody has solved has no
    teacher. It takes two forward passes, over the attempts and over them behind the teacher's
    prompts.

    Formula:
        A_t ← λ A + (1 - λ) clip(g_t, ± max_gap)
        g_t = log p_teacher(y_t | q, s, y_<t) - log p_old(y_t | q, y_<t);  0 without a solution s

    Metrics:
        sdpo/taught_fraction: share of the attempts with a teacher.
        sdpo/gap_mean: mean of log p_teacher - log p_old over their tokens, nats.

    Reconstructed:
        The sampled token in place of the teacher's distribution, and the share of the advantage.
    """

    by_tree = True
    token_measurements: ClassVar[frozenset[str]] = frozenset({TEACHER})
    Settings: ClassVar[type[StrictConfig]] = SdpoSettings
    needs: ClassVar[tuple[str, ...]] = ("teacher_prompts",)
    requires: ClassVar[frozenset[Measurement]] = frozenset({"policy_logprobs"})

    @classmethod
    def faults(cls, settings: SdpoSettings, layers: frozenset[int], method: MethodView) -> Faults:
        why = "teaches first attempts: what a later layer reads is another prompt."
        yield from must_be("(layers)", sorted(layers), [1], why, "Use layers: [solve].")

    def ema(self) -> EmaSchedule | None:
        decay = self.settings.ema_decay
        return None if decay is None else EmaSchedule(decay=decay)

    def read_policy(self, batch: StepBatch, policy: PolicyReader) -> dict[str, object]:
        """[M] log-probabilities under the teacher; 0 where there is none."""
        found = torch.zeros(batch.num_tokens, dtype=torch.float64)
        taught = self.solutions(batch)
        if taught:
            own = [place for place in batch.held if place in taught]
            rows = [
                text(self.prompt(one, taught[place]), one.token_ids)
                for place in own
                for one in [batch.completions[place]]
            ]
            weights: Weights = "policy" if self.settings.ema_decay is None else "ema"
            logprobs = policy.logprobs(rows, weights=weights, measurement="sdpo_teacher")
            found[torch.isin(batch.row_of_token, torch.tensor(own))] = logprobs
        return {TEACHER: found}

    def prompt(self, attempt: Completion, solution: Completion) -> list[int]:
        before, behind = attempt.metadata[AROUND]
        count = min(solution.metadata[NUM_TOKENS], self.settings.max_solution_tokens)
        return [*before, *solution.token_ids[:count].tolist(), *behind]

    def solutions(self, batch: StepBatch) -> dict[int, Completion]:
        """Place of a taught attempt -> the right solution that its teacher is shown, by rising
        place."""
        right: dict[str, list[Completion]] = {}  # by the problem's tree
        for place, one in enumerate(batch.completions):
            is_right = batch.is_usable[place] and one.is_correct and one.accepts is None
            if is_right and one.metadata.get(NUM_TOKENS):
                right.setdefault(root_of(one, batch.parents).group_key, []).append(one)
        found = {}
        for place, one in enumerate(batch.completions):
            if one.layer != 1 or not batch.is_usable[place] or not len(one.token_ids):
                continue
            others = [s for s in right.get(one.group_key, []) if s.id != one.id]
            if others and AROUND in one.metadata:
                found[place] = min(others, key=partial(rank_of, one.completion_id))
        return found

    def transform_advantages(self, batch: StepBatch, advantages: Tensor) -> Tensor:
        own = batch.in_layers(self.layers) & batch.is_usable
        taught = sorted(self.solutions(batch))
        batch.metrics["sdpo/taught_fraction"] = (float(len(taught)), float(own.sum()))
        here = torch.isin(batch.row_of_token, torch.tensor(taught))
        gap = torch.zeros_like(advantages)
        if taught:
            found = batch.reading(TEACHER) - batch.measurements["policy_logprobs"]
            gap = torch.where(here, found, 0.0)
        batch.metrics["sdpo/gap_mean"] = (batch.total(gap), batch.total(here))
        share, most = self.settings.advantage_share, self.settings.max_gap
        return share * advantages + (1 - share) * gap.clamp(-most, most)


def rank_of(attempt_id: str, solution: Completion) -> tuple[bool, bool]:
    """Lowest first: an attempt's own corrections, those of others, other attempts."""
    return solution.parent_id != attempt_id, solution.layer == 1
