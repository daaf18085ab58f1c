"""The slot `layers.N.aggregation`: what the token losses of a layer are divided by."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from mgrpo.config.base import StrictConfig
from mgrpo.config.slots import by_name


class SeqMean(StrictConfig):
    """The mean over completions of the mean over their tokens (GRPO, arXiv 2402.03300)."""

    type: Literal["seq_mean"] = "seq_mean"


class TokenMean(StrictConfig):
    """The mean over all tokens (DAPO, arXiv 2503.14476)."""

    type: Literal["token_mean"] = "token_mean"


class FixedLength(StrictConfig):
    """The mean over completions of the sum over their tokens, divided by one length for all
    (Dr. GRPO, arXiv 2503.20783)."""

    type: Literal["fixed_length"] = "fixed_length"
    num_tokens: PositiveInt | None = None
    """The length, in tokens. Null: max_completion_tokens."""


Aggregation = Annotated[
    SeqMean | TokenMean | FixedLength, Field(discriminator="type"), by_name("seq_mean")
]
