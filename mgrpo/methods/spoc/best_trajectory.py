"""RAFT on trajectories of solutions and verifications (https://arxiv.org/abs/2506.06923)."""

from __future__ import annotations

from collections import defaultdict
from typing import ClassVar

import torch

from learner.columns import StepBatch
from learner.plugin import LearnerPlugin, RowFilter
from learner.trajectories import last_answer, trajectories, trajectory_faults
from mgrpo.config import MethodView
from mgrpo.config.base import StrictConfig
from mgrpo.errors import Faults


class BestTrajectory(LearnerPlugin):
    """Trains the right turns of the trajectory of each problem whose last answer is best.

    With `advantage: raw_reward`, 1 for a right turn, and the loss reinforce it is RAFT: of K
    trajectories the best is imitated, its wrong answers and wrong verdicts left out.

    Formula:
        k = argmax_k r(y_k,L), the first of equals;  L = - Σ over turns a of trajectory k with
        r(a) = 1 of log p(a)

    Metrics:
        best_trajectory/right_fraction: share of the chosen trajectories whose last answer is right.
    """

    by_tree = True
    Settings: ClassVar[type[StrictConfig]] = StrictConfig

    @classmethod
    def faults(cls, settings: StrictConfig, layers: frozenset[int], method: MethodView) -> Faults:
        yield from trajectory_faults(layers, method)

    def filter_rows(self, batch: StepBatch) -> RowFilter:
        lasts: dict[str, list[tuple[int, list[int]]]] = defaultdict(list)  # by the problem's tree
        for places in trajectories(batch).values():
            last = last_answer(batch, places)
            if batch.is_usable[last]:
                lasts[batch.completions[places[0]].group_key].append((last, places))
        is_trained = torch.zeros(len(batch.completions), dtype=torch.bool)
        num_right = 0
        for family in lasts.values():
            last, places = max(family, key=lambda one: float(batch.rewards[one[0]]))
            is_trained[places] = batch.is_correct[places]
            num_right += bool(batch.is_correct[last])
        batch.metrics["best_trajectory/right_fraction"] = (float(num_right), float(len(lasts)))
        return RowFilter(
            is_kept=torch.ones_like(is_trained),
            is_trained=is_trained,
            reason="it is no right turn of its problem's best trajectory",
        )
