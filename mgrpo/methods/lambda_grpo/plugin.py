"""λ-GRPO: shared beginnings count once (https://arxiv.org/abs/2509.21154)."""

from __future__ import annotations

import torch
from torch import Tensor

from learner.columns import StepBatch
from learner.plugin import LearnerPlugin
from learner.plugin_pairs import is_of_whole_completions
from mgrpo.config import MethodView
from mgrpo.config.base import StrictConfig
from mgrpo.errors import ConfigFault, Faults
from mgrpo.methods.lambda_grpo.process_sets import prefix_set_sizes


class LambdaGrpo(LearnerPlugin):
    """Divides each token's whole loss by how many completions of its group begin like this.

    A beginning that n completions share is trained n times over by GRPO, by which common starts
    outweigh the rest. The factor is on the policy term and the KL term; the denominators stay plain
    token counts. Equal completions share all their tokens. Where no two completions begin with the
    same token, this is GRPO. (Another method called λ-GRPO, arXiv 2510.06870, learns preferences
    between tokens and is not this one.)

    Formula:
        loss_it ← loss_it / n_it,   n_it = |{k in the group: y_k[0..t] = y_i[0..t]}|
    """

    by_tree = True

    @classmethod
    def faults(cls, settings: StrictConfig, layers: frozenset[int], method: MethodView) -> Faults:
        if is_of_whole_completions(method):
            loss = method.objective.loss.type
            why = "has one value for a whole completion: a factor on single tokens means nothing."
            yield ConfigFault("(objective.loss)", loss, why, f"Use lambda_grpo or {loss}.")

    def weigh_tokens(self, batch: StepBatch, advantages: Tensor) -> Tensor:
        groups: dict[tuple[int, bytes], list[int]] = {}
        usable = batch.in_layers(self.layers) & batch.is_usable
        for place in usable.nonzero()[:, 0].tolist():
            # Groups may hold several prompts (group_by: query); beginnings of different prompts
            # are different states.
            prompt = batch.completions[place].prompt_token_ids.tobytes()
            groups.setdefault((int(batch.group_ids[place]), prompt), []).append(place)
        parts = dict(zip(batch.held, batch.split(torch.ones_like(advantages)), strict=True))
        for places in groups.values():
            if not parts.keys() & set(places):
                continue  # all of it trains on other ranks
            sizes = prefix_set_sizes(
                [batch.completions[place].token_ids.tolist() for place in places]
            )
            for place, own in zip(places, sizes, strict=True):
                if place in parts:
                    parts[place] = 1 / batch.rows([float(size) for size in own])
        return torch.cat([*parts.values(), advantages[:0]])
