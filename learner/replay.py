"""Corrections of earlier steps as training rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from learner.rows import TrainingRow
from mgrpo.types import Replayed


def replayed_rows(replayed: Sequence[Replayed]) -> list[TrainingRow]:
    """Rows whose loss is their `weight` times the mean over completions of the mean over tokens.

    The ratio is taken against the log-probabilities recorded while sampling, which are the old
    policy's, and the advantage is the one of the step that sampled them. They carry no KL term.
    """
    rows = []
    for one in replayed:
        completion = one.completion
        weight = one.weight / len(replayed) / max(1, completion.num_trained_tokens)
        rows.append(
            TrainingRow(
                completion_id=f"{completion.completion_id} (replayed)",
                layer=completion.layer,
                prompt_token_ids=completion.prompt_token_ids,
                token_ids=completion.token_ids,
                rollout_logprobs=completion.rollout_logprobs,
                advantages=np.full(len(completion.token_ids), one.advantage),
                token_weights=completion.is_trained.astype(np.float64) * weight,
                is_sampled=completion.sampled_mask,
                is_replayed=True,
            )
        )
    return rows
