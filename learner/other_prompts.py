"""Completions that train as answers to another prompt than the one that they were sampled for.

The row is a path of its own from the root of the prefix tree: the other prompt, then the same
tokens. No engine has sampled these tokens under that prompt, so there are no log-probabilities of
sampling: `sampled_mask` is false throughout, and the ratio is against the learner's own
log-probabilities at the step's start (1 in the first optimizer step of a rollout). Truncated
importance weights are 1 there, for the same reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from mgrpo.types import Completion

OTHER_PROMPT = -1
"""The last step of the path of such a completion: s0p0#0.1.-1."""


def root_of(one: Completion, parents: Mapping[str, Completion]) -> Completion:
    """The first attempt that a completion goes back to, as far as parents are known."""
    while one.parent_id is not None and one.parent_id in parents:
        one = parents[one.parent_id]
    return one


def as_answer_to(
    first: Completion, one: Completion, *, weight: float = 1.0, augmented_by: str
) -> Completion:
    """A later layer's completion as a further answer to a first attempt's prompt.

    It stays in its layer, whose weights and aggregation are its own, and has no parent; its group
    is the problem's. It counts as none of the layer's sampled completions, so that the layer's
    denominator is what it was.

    Args:
        first: any first attempt at the problem.
        one: the completion; its reward is kept.
        weight: factor on its loss.
        augmented_by: what a plug-in calls it.
    """
    num_tokens = len(one.token_ids)
    return replace(
        one,
        id=one.id.child(OTHER_PROMPT),
        parent_id=None,
        group_key=first.group_key,
        prompt=first.prompt,
        rollout_logprobs=np.zeros(num_tokens, dtype=np.float32),
        sampled_mask=np.zeros(num_tokens, dtype=np.bool_),
        train_mask=one.is_trained,
        weight=one.weight * weight,
        counts_as=0.0,
        augmented_by=augmented_by,
    )
