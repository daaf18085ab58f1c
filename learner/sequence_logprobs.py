"""How likely whole completions are, as objectives of pairs compare them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from learner.policy_reader import PolicyReader
from learner.rows import text
from mgrpo.types import Completion


def sequence_logprobs(
    completions: Sequence[Completion], policy: PolicyReader, *, measurement: str = "policy_logprobs"
) -> Tensor:
    """[n] float64: the sum over each completion's tokens that may train, in nats. A collective.

    Args:
        completions: of this rank; none without tokens.
        measurement: under what name the time is counted.
    """
    rows = [text(one.prompt_token_ids, one.token_ids) for one in completions]
    values = policy.logprobs(rows, measurement=measurement)  # [m]
    lengths = torch.tensor([len(one.token_ids) for one in completions], dtype=torch.int64)
    masks = [one.is_trained for one in completions]
    is_trained = torch.from_numpy(np.concatenate([*masks, np.zeros(0, dtype=np.bool_)]))
    row_of_token = torch.arange(len(completions)).repeat_interleave(lengths)
    sums = torch.zeros(len(completions), dtype=torch.float64)
    return sums.index_add(0, row_of_token, torch.where(is_trained, values, 0.0))
