"""S2R: rewards for each turn of self-verification and self-correction, or for the last answer
(https://arxiv.org/abs/2502.12853)."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from learner.columns import StepBatch
from learner.estimators import centred, leave_one_out
from learner.plugin import AdvantageEstimator
from learner.trajectories import last_answer, trajectories, trajectory_faults, turns_before
from mgrpo.config import LaterLayer, MethodView
from mgrpo.config.base import StrictConfig
from mgrpo.errors import Faults, must_be


class S2rSettings(StrictConfig):
    """Keys of s2r."""

    level: Literal["process", "outcome"] = "process"
    """process: each turn has its own reward, and is compared with the step's turns that came after
    the same rewards. outcome: every turn has the reward of the trajectory's last answer, and the
    problem's other trajectories are the baseline (RLOO)."""


class S2r(AdvantageEstimator):
    """Compares turns that were written in the same situation, or whole trajectories.

    A situation is the rewards of the turns before: all first answers of the step are in one, all
    verdicts on a right answer in another, all second answers behind a wrong one that was recognised
    in a third. Each trajectory counts the same in the loss, however many turns it has. What other
    parts take off a reward, such as kl_in_reward, is taken off the advantage: the baseline is of
    the checks alone.

    Formula:
        R = 2 r - 1;  process: A_a = R_a - mean R over the step's turns with a's rewards before them
        outcome: A_a = R(s_m) - mean over the problem's other trajectories of theirs,
        s_m: the last answer of a's trajectory m
        L = - mean over trajectories of mean over turns (outcome: over tokens) of J

    Metrics:
        s2r/turns_mean: mean number of turns of a trajectory.
    """

    Settings: ClassVar[type[StrictConfig]] = S2rSettings

    @classmethod
    def faults(cls, settings: S2rSettings, layers: frozenset[int], method: MethodView) -> Faults:
        yield from trajectory_faults(layers, method)
        for depth, layer in enumerate(method.layers):
            why, path = "weighs turns as a whole.", f"(layers.{depth}.aggregation)"
            yield from must_be(path, layer.aggregation.type, "seq_mean", why)
            if isinstance(layer, LaterLayer):
                why, path = "counts every turn that was sampled.", f"(layers.{depth}.denominator)"
                yield from must_be(path, layer.denominator, "sampled", why)

    def estimate_advantages(self, batch: StepBatch, rewards: Tensor) -> Tensor:
        usable = batch.in_layers(self.layers) & batch.is_usable
        signed, shaped = 2 * batch.rewards - 1, rewards - batch.rewards
        if self.settings.level == "process":
            return centred(signed, situations(batch), usable) + shaped
        outcomes, is_known = torch.zeros_like(rewards), torch.zeros_like(usable)
        families = trajectories(batch).values()
        for places in families:
            last = last_answer(batch, places)
            outcomes[places[0]], is_known[places[0]] = signed[last], usable[last]
        compared = leave_one_out(outcomes, batch.group_ids, is_known)
        advantages = torch.zeros_like(rewards)
        for places in families:
            advantages[places] = compared[places[0]] + shaped[places].sum()
        return advantages

    def weigh_tokens(self, batch: StepBatch, advantages: Tensor) -> Tensor:
        """A layer's loss is a mean over its own turns; together it shall be one over trajectories,
        of their turns or of their tokens."""
        counts = torch.zeros(len(batch.completions), dtype=torch.float64)  # of the row's layer
        usable = batch.in_layers(self.layers) & batch.is_usable
        for layer in self.layers:
            here = usable & (batch.layers == layer)
            counts = torch.where(here, batch.minibatch_sums(here.double()), counts)
        num_first = batch.minibatch_sums((usable & (batch.layers == 1)).double())
        sizes = torch.ones_like(counts)
        if self.settings.level == "outcome":
            sizes = batch.rows([one.num_trained_tokens for one in batch.completions])
        sizes = torch.where(usable, sizes, 0.0)
        shares = torch.zeros_like(counts)
        families = trajectories(batch)
        for places in families.values():
            shares[places] = sizes[places] / sizes[places].sum().clamp(min=1)
        batch.metrics["s2r/turns_mean"] = (float(usable.sum()), float(len(families)))
        return batch.spread(shares * counts / num_first.clamp(min=1))


def situations(batch: StepBatch) -> Tensor:
    """[N] int64: rows of one number came after the same rewards."""
    before = [
        tuple(turn.is_correct for turn in turns_before(one, batch.parents))
        for one in batch.completions
    ]
    numbers = {rewards: number for number, rewards in enumerate(dict.fromkeys(before))}
    return torch.tensor([numbers[rewards] for rewards in before], dtype=torch.int64)
