"""What the policy reads and writes in turn: prompts of parts, turns, and the versions that wrote.

A completion holds its turns as columns, end to end, with offsets (`join_turns`): neither turns nor
tokens are objects on the way from the engine to the gradient. No torch here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray

from mgrpo.errors import DataError
from mgrpo.records.json_object import JsonObject
from mgrpo.records.token_columns import ColumnRecord, Logprobs, TokenIds, TokenMask, as_list

VersionSpans = tuple[tuple[int, int], ...]
"""(first token, policy version) wherever the version changes; the first is of token 0."""
TokenSpans = tuple[tuple[int, int], ...]
"""[start, end) in tokens."""

Kind = TypeVar("Kind", bound=np.generic)


@dataclass(frozen=True, slots=True, eq=False)
class TokenPart(ColumnRecord):
    """Token ids of a prompt."""

    ARRAYS: ClassVar = {"token_ids": np.int32}

    token_ids: TokenIds


PromptPart = TokenPart
"""The kinds of parts that a prompt may have."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the policy reads before it writes: parts, in order.

    Token ids are the only kind so far, and neighbours of that kind are one part. Another kind (an
    image) is added in this file alone: what it is for the learner (`token_ids`), for engines
    (`engine_input`) and in files (`to_json`).

    Raises:
        DataError: a part is of a kind that cannot be sampled from and trained on.
    """

    parts: tuple[PromptPart, ...]

    def __post_init__(self) -> None:
        for part in self.parts:
            if type(part) is not TokenPart:
                raise unsupported(type(part).__name__)
        if len(self.parts) != 1:
            ids = end_to_end([np.zeros(0, dtype=np.int32), *(one.token_ids for one in self.parts)])
            object.__setattr__(self, "parts", (TokenPart(ids),))

    @classmethod
    def of(cls, token_ids: Sequence[int] | TokenIds) -> Prompt:
        """Of token ids alone."""
        return cls((TokenPart(np.asarray(token_ids, dtype=np.int32)),))

    def __len__(self) -> int:
        return len(self.token_ids)

    @property
    def token_ids(self) -> TokenIds:
        """[num_prompt_tokens] as the learner reads them; the same array at each call."""
        return self.parts[0].token_ids

    def engine_input(self) -> dict[str, object]:
        """The fields of vLLM's `TokensPrompt`."""
        return {"prompt_token_ids": as_list(self.token_ids)}

    def to_json(self) -> list[dict[str, object]]:
        """One object per part; `from_json` reads them back."""
        return [{"token_ids": part.token_ids.tolist()} for part in self.parts]

    @classmethod
    def from_json(cls, parts: Sequence[JsonObject]) -> Prompt:
        """
        Raises:
            DataError: a part is of another kind, or has something else than token ids.
        """
        for part in parts:
            if part.keys() != {"token_ids"}:
                raise unsupported(", ".join(part))
        try:
            held = tuple(TokenPart(part["token_ids"]) for part in parts)
        except (TypeError, ValueError, OverflowError) as error:
            raise DataError(f"A prompt's token ids are not whole numbers: {error}.") from error
        if any(np.ndim(part.token_ids) != 1 for part in held):
            raise DataError("A prompt's token ids are not a list.")
        return cls(held)


def unsupported(kind: str) -> DataError:
    return DataError(
        f"A prompt has a part that is not token ids ({kind}). Only text can be sampled from and "
        "trained on; remove such parts, or the completions that have them."
    )


class WrittenRecord(ColumnRecord):
    """Base of records of what the policy wrote. T: tokens."""

    __slots__ = ()
    token_ids: TokenIds  # [T]
    version_spans: VersionSpans

    @property
    def versions(self) -> NDArray[np.int32]:
        """[T] the policy version that wrote each token (`version_column`)."""
        return version_column(self.version_spans, len(self.token_ids))

    @property
    def oldest_version(self) -> int:
        """The first policy version that wrote any of it."""
        return min(version for _, version in self.version_spans)

    @property
    def newest_version(self) -> int:
        """The last one."""
        return max(version for _, version in self.version_spans)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Turn(WrittenRecord):
    """What the policy read, and then wrote in one go. T: tokens written."""

    ARRAYS: ClassVar = {
        "token_ids": np.int32,
        "logprobs": np.float32,
        "sampled_mask": np.bool_,
        "train_mask": np.bool_,
    }

    prompt: Prompt  # what it read since its turn before: a tool's result, a user's next message
    token_ids: TokenIds  # [T]
    logprobs: Logprobs  # [T], nats, at the sampling temperature
    version_spans: VersionSpans
    sampled_mask: TokenMask | None = None  # false: put in, not the policy's; None: all are its own
    train_mask: TokenMask | None = None  # false: no loss on this token; None: all train


def join_turns(turns: Sequence[Turn]) -> dict[str, Any]:
    """The fields of a `Completion` that consists of these turns.

    Its columns hold the turns end to end, and before every turn but the first what was read for it.
    The policy did not write that: it carries no loss, and 0 in place of log-probabilities. The
    columns of a single turn are not copied.

    Example: a call of a tool, the tool's result of two tokens, an answer:
        join_turns([Turn(prompt=Prompt.of([1, 2]), token_ids=[7, 8, 9], ...),
                    Turn(prompt=Prompt.of([4, 5]), token_ids=[6], ...)])
        has token_ids [7, 8, 9, 4, 5, 6] and turn_spans ((0, 3), (5, 6)).
    """
    first, *later = turns
    pieces = [first, *chain.from_iterable((as_read(one.prompt), one) for one in later)]
    lengths = [len(one.token_ids) for one in pieces]
    stops = np.cumsum(lengths).tolist()
    starts = [0, *stops[:-1]]
    return {
        "prompt": first.prompt,
        "token_ids": end_to_end([one.token_ids for one in pieces]),
        "rollout_logprobs": end_to_end([one.logprobs for one in pieces]),
        "sampled_mask": joined_masks([one.sampled_mask for one in pieces], lengths),
        "train_mask": joined_masks([one.train_mask for one in pieces], lengths),
        "version_spans": join_versions(
            [(one.version_spans, length) for one, length in zip(pieces, lengths, strict=True)]
        ),
        "turn_spans": tuple(zip(starts, stops, strict=True))[::2] if later else (),
    }


def as_read(prompt: Prompt) -> Turn:
    """A prompt's tokens as columns of a completion: none was written by the policy."""
    nothing = np.zeros(len(prompt), dtype=np.bool_)
    return Turn(
        prompt=prompt,
        token_ids=prompt.token_ids,
        logprobs=np.zeros(len(prompt), dtype=np.float32),
        version_spans=(),
        sampled_mask=nothing,
        train_mask=nothing,
    )


def end_to_end(columns: Sequence[NDArray[Kind]]) -> NDArray[Kind]:
    """The columns joined; a single one as it is."""
    return columns[0] if len(columns) == 1 else np.concatenate(columns)


def joined_masks(masks: Sequence[TokenMask | None], lengths: Sequence[int]) -> TokenMask | None:
    """The masks of pieces of these lengths, joined; None where all are None, which is true."""
    if all(mask is None for mask in masks):
        return None
    return end_to_end(
        [
            np.ones(length, dtype=np.bool_) if mask is None else mask
            for mask, length in zip(masks, lengths, strict=True)
        ]
    )


# --- versions ---


def join_versions(pieces: Sequence[tuple[VersionSpans, int]]) -> VersionSpans:
    """The spans of pieces put end to end, each given with its number of tokens.

    A piece without spans, which no policy wrote, belongs to the span before it. If no piece has a
    token, the whole has the first one's version.
    """
    joined: list[tuple[int, int]] = []
    first = 0
    for spans, num_tokens in pieces:
        for start, version in spans:
            if start < num_tokens and (not joined or version != joined[-1][1]):
                joined.append((first + start if joined else 0, version))
        first += num_tokens
    return tuple(joined) or pieces[0][0][:1]


def cut_versions(spans: VersionSpans, start: int, stop: int) -> VersionSpans:
    """The spans of the tokens [start, stop) alone, counted from `start`; at least one."""
    at_start = [version for first, version in spans if first <= start][-1]
    later = [(first - start, version) for first, version in spans if start < first < stop]
    return ((0, at_start), *later)


def version_column(spans: VersionSpans, num_tokens: int) -> NDArray[np.int32]:
    """[num_tokens] the policy version that wrote each token; of a token that the policy did not
    write, that of the span in which it stands."""
    starts, versions = zip(*spans, strict=True)
    stops = np.minimum([*starts, num_tokens], num_tokens)
    return np.repeat(np.array(versions, dtype=np.int32), np.diff(stops))
