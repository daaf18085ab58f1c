"""WS-GRPO: rewards for single steps from a trained preference model (arXiv 2602.17025)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import NonNegativeFloat, model_validator
from torch import Tensor

from learner.advantages import process_advantages
from learner.columns import StepBatch
from learner.plugin import LearnerPlugin, Movable
from mgrpo.config import MethodView
from mgrpo.config.base import OnlyWith, StrictConfig, refuse
from mgrpo.errors import ConfigFault, Faults
from mgrpo.methods.ws_grpo.prefix_scorer import PrefixScorer
from mgrpo.methods.ws_grpo.step_rewards import trajectory_reward

SCORES = "step_scores"


class PreferenceSettings(StrictConfig):
    """Keys of prefix_preference."""

    scorer: str
    """Folder of a scorer that `mgrpo scorer train` wrote; it stays as it is during training."""
    base_dir: str | None = None
    """Folder of the model that the scorer reads with; null: where it was trained."""
    lambda_step: float = 1.0
    """Factor on the steps' scores."""
    lambda_outcome: float = 5.0
    """Reward of a right final answer."""
    step_range: tuple[int, int] = (3, 6)
    """Fewest and most steps that cost nothing."""
    range_penalty: NonNegativeFloat = 1.0
    """Subtracted outside step_range. The paper's amount is unknown; this one is ours."""
    aggregate: Annotated[Literal["mean", "sum"], OnlyWith(credit="trajectory")] = "mean"
    """Of a completion's step scores. A sum pays for every further step, a mean does not."""
    credit: Literal["trajectory", "process"] = "trajectory"
    """trajectory: one reward per completion. process: each token gets the normalised rewards of
    its own and all later steps (GRPO with process supervision)."""
    pair_order: Literal["shorter_longer", "longer_shorter"] = "shorter_longer"
    """Which prefix of two neighbours a score prefers; the paper's statements disagree."""
    span: str = "steps"
    """Name of the spans that step_spans marks."""
    ddof: Annotated[Literal[0, 1], OnlyWith(credit="process")] = 1
    """1: the standard deviation divides by n - 1; 0: by n."""
    epsilon: Annotated[NonNegativeFloat, OnlyWith(credit="process")] = 1e-6
    """Added to the standard deviation."""

    @model_validator(mode="after")
    def check_range(self) -> PreferenceSettings:
        low, high = self.step_range
        if not 1 <= low <= high:
            refuse("step_range", [low, high], "must be [fewest, most], 1 or more.")
        return self


class PrefixPreference(LearnerPlugin):
    """Adds, to the outcome, what a preference model thinks of every step.

    The model was trained on right and wrong completions of the same problem and says how likely
    each step made the text better. Trained policies write fewer steps, at some cost in accuracy.

    Formula:
        R = lambda_step mean_k s_k + lambda_outcome [right] - range_penalty [steps outside range]
        s_k: chance, for the model, that the text up to step k beats that up to the step before

    Metrics:
        steps/per_completion: mean number of steps.
        steps/score_mean: mean of s over steps, between 0 and 1.

    Reconstructed:
        The size of range_penalty, and which of two prefixes a score prefers (pair_order): the
        paper's statements disagree.
    """

    by_tree = True
    Settings: ClassVar[type[StrictConfig]] = PreferenceSettings
    needs: ClassVar[tuple[str, ...]] = ("step_spans",)

    @classmethod
    def faults(
        cls, settings: PreferenceSettings, layers: frozenset[int], method: MethodView
    ) -> Faults:
        if not (Path(settings.scorer) / "config.json").is_file():
            hint = "Train one: mgrpo scorer train --rollouts runs/NAME --model MODEL --output "
            why = "there is no scorer in this folder."
            yield ConfigFault("scorer", settings.scorer, why, hint + settings.scorer)

    def start(self, device: torch.device) -> None:
        self.scorer = PrefixScorer.load(
            self.settings.scorer, base_dir=self.settings.base_dir, device=device
        )

    def models(self) -> list[Movable]:
        return [self.scorer]

    def measure(self, batch: StepBatch) -> dict[str, object]:
        """Scores of every step, a list of [steps]; empty for completions of other layers."""
        here = batch.in_layers(self.layers) & batch.is_usable
        places = [
            place
            for place, is_here in enumerate(here.tolist())
            if is_here and len(batch.completions[place].token_ids)
        ]
        rows = [
            (
                tuple(batch.completions[place].prompt_token_ids.tolist()),
                tuple(batch.completions[place].token_ids.tolist()),
                tuple(step_ends(batch, place, self.settings.span)),
            )
            for place in places
        ]
        # Equal completions get equal scores to the bit, so that no group is compared by rounding.
        asked = list(dict.fromkeys(rows))
        found = self.scorer.step_scores_of(asked, pair_order=self.settings.pair_order)
        by_row = dict(zip(asked, found, strict=True))
        scores = [torch.empty(0, dtype=torch.float64) for _ in batch.completions]
        for place, row in zip(places, rows, strict=True):
            scores[place] = by_row[row].double()
        counts = [len(scores[place]) for place in places]
        batch.metrics["steps/per_completion"] = (float(sum(counts)), float(len(counts)))
        batch.metrics["steps/score_mean"] = (
            sum(float(scores[place].sum()) for place in places),
            float(sum(counts)),
        )
        return {SCORES: scores}

    def shape_rewards(self, batch: StepBatch, rewards: Tensor) -> Tensor:
        settings = self.settings
        shaped = rewards.clone()
        for place, scores in enumerate(batch.measurements[SCORES]):
            if len(scores) > 0:
                own = trajectory_reward(
                    scores,
                    bool(batch.is_correct[place]),
                    lambda_step=settings.lambda_step,
                    lambda_outcome=settings.lambda_outcome,
                    aggregate=settings.aggregate,
                    step_range=settings.step_range,
                    range_penalty=settings.range_penalty,
                )
                # What other plug-ins added to the checks' rewards stays added.
                shaped[place] = own + (rewards[place] - batch.rewards[place])
        return shaped

    def transform_advantages(self, batch: StepBatch, advantages: Tensor) -> Tensor:
        if self.settings.credit == "trajectory":
            return advantages
        parts = dict(zip(batch.held, batch.split(advantages), strict=True))
        groups: dict[int, list[int]] = {}
        for place, group in enumerate(batch.group_ids.tolist()):
            if len(batch.measurements[SCORES][place]) > 0:
                groups.setdefault(group, []).append(place)
        for members in groups.values():
            rewards = [self.step_rewards(batch, place) for place in members]
            if sum(len(one) for one in rewards) < 2:
                continue
            found = process_advantages(
                rewards,
                [torch.tensor(step_ends(batch, place, self.settings.span)) for place in members],
                [len(batch.completions[place].token_ids) for place in members],
                ddof=self.settings.ddof,
                epsilon=self.settings.epsilon,
            )
            for place, values in zip(members, found, strict=True):
                if place in parts:
                    parts[place] = values
        return torch.cat([*parts.values(), advantages[:0]])

    def step_rewards(self, batch: StepBatch, place: int) -> Tensor:
        """[steps] of one completion: its scores, with outcome and penalty on the last step."""
        settings = self.settings
        rewards = settings.lambda_step * batch.measurements[SCORES][place].clone()
        low, high = settings.step_range
        rewards[-1] += settings.lambda_outcome * float(batch.is_correct[place])
        if not low <= len(rewards) <= high:
            rewards[-1] -= settings.range_penalty
        return rewards


def step_ends(batch: StepBatch, place: int, span: str) -> list[int]:
    """Where a completion's steps end, in tokens; without spans the whole is one step."""
    one = batch.completions[place]
    return [end for _, end in one.spans.get(span, [])] or [len(one.token_ids)]
