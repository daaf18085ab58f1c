"""The form of a completion in files, by which readers refuse what no run has written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    Field,
    FiniteFloat,
    NonNegativeInt,
    PositiveInt,
    ValidationError,
    model_validator,
)

from mgrpo.errors import DataError

TokenId = Annotated[int, Field(ge=0, lt=2**31)]
Span = Annotated[Sequence[NonNegativeInt], Field(min_length=2, max_length=2)]


class Stored(BaseModel, extra="forbid", strict=True):
    """Base of what a row must have."""


class StoredId(Stored):
    step: int
    slot: int
    path: Sequence[int]
    label: str = ""


class StoredReward(Stored):
    value: FiniteFloat
    status: Literal["scored", "unparsable", "timeout", "error", "removed"] = "scored"
    correct: bool = False
    parts: Mapping[str, float | None] = {}
    extracted_answer: str | None = None
    detail: str = ""
    feedback: str = ""


class StoredCompletion(Stored, protected_namespaces=()):
    """`mgrpo.types.Completion` as a row has it; lists in place of arrays and tuples."""

    id: StoredId
    problem_id: str
    domain: str
    layer: PositiveInt
    parent_id: str | None
    group_key: str
    prompt: Sequence[Mapping[str, Any]]
    token_ids: Sequence[TokenId]
    rollout_logprobs: Sequence[float | None]
    finish_reason: Literal["stop", "length", "aborted"]
    version_spans: Annotated[Sequence[Span], Field(min_length=1)]
    text: str
    prompt_text: str
    reference_answer: str = ""
    guidance_id: int | None = None
    feedback: str | None = None
    feedback_tokens: NonNegativeInt = 0
    engine: str = ""
    sampled_mask: Sequence[bool] | None = None
    train_mask: Sequence[bool] | None = None
    turn_spans: Sequence[Span] = ()
    spans: Mapping[str, Sequence[Span]] = {}
    accepts: bool | None = None
    augmented_by: str = ""
    weight: FiniteFloat = 1.0
    counts_as: FiniteFloat = 1.0
    metadata: Mapping[str, Any] = {}
    reward: StoredReward | None = None
    advantage: float | None = None
    selected: bool | None = None
    not_selected_because: str = ""

    @model_validator(mode="after")
    def check_columns(self) -> StoredCompletion:
        num_tokens = len(self.token_ids)
        for name in ("rollout_logprobs", "sampled_mask", "train_mask"):
            column = getattr(self, name)
            if column is not None and len(column) != num_tokens:
                raise ValueError(f"{name} has {len(column)} entries for {num_tokens} tokens")
        firsts = [first for first, _ in self.version_spans]
        if firsts[0] != 0 or firsts != sorted(set(firsts)):
            raise ValueError("version_spans do not begin at 0 and ascend")
        for span in (*self.turn_spans, *(one for some in self.spans.values() for one in some)):
            if not span[0] <= span[1] <= num_tokens:
                raise ValueError(f"the span {list(span)} is not within {num_tokens} tokens")
        return self


def refuse_other_form(fields: Mapping[str, object]) -> None:
    """Raise DataError unless these are the fields of a completion in a file."""
    try:
        StoredCompletion.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise DataError(
            f"{'.'.join(map(str, first['loc'])) or 'a completion'}: {first['msg']}"
        ) from error
