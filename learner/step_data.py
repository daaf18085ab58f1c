"""A step on its way to the learner's ranks: flat arrays, in memory that all ranks of a node read.

The driver packs a step once, whatever the number of ranks. A rank unpacks records whose token
columns are views of the shared arrays: nothing of them is copied until the rank lays out its own
rows, and no token becomes a Python object. No torch here: the driver packs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from mgrpo.records.turns import Prompt
from mgrpo.types import Completion, Replayed

Offsets = NDArray[np.int64]
ANY_TEXT = "surrogatepass"
"""A plug-in may leave half a character in a text; it arrives as it was."""
PACKED_FIELDS = ("text", "prompt", *Completion.ARRAYS)
PLAIN_FIELDS = tuple(
    one.name for one in dataclasses.fields(Completion) if one.name not in PACKED_FIELDS
)

Kind = TypeVar("Kind", bound=np.generic)


@dataclass(frozen=True, slots=True)
class Ragged(Generic[Kind]):
    """Arrays of different lengths, end to end. n of them, M values in all."""

    values: NDArray[Kind]  # [M]
    offsets: Offsets  # [n + 1] where each begins, and M

    @classmethod
    def of(cls, arrays: Sequence[NDArray[Kind]], kind: type[Kind]) -> Ragged[Kind]:
        offsets = np.zeros(len(arrays) + 1, dtype=np.int64)
        np.cumsum([len(one) for one in arrays], out=offsets[1:])
        return cls(np.concatenate([np.zeros(0, dtype=kind), *arrays]), offsets)

    def views(self) -> list[NDArray[Kind]]:
        """The n arrays, without copying."""
        offsets = self.offsets.tolist()
        return [self.values[start:end] for start, end in pairwise(offsets)]


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedCompletions:
    """Completions as columns. N: completions, n: distinct prompts."""

    fields: dict[str, list[object]]  # by name, N values of every field that is not packed
    prompts: Ragged[np.int32]  # n int32
    prompt_of: NDArray[np.int32]  # [N] which prompt each completion answers
    columns: dict[str, Ragged[np.generic]]  # by field, of the completions that have it
    has: dict[str, NDArray[np.bool_]]  # by field that may be missing, [N]
    texts: Ragged[np.uint8]  # N, UTF-8

    @classmethod
    def of(cls, completions: Sequence[Completion]) -> PackedCompletions:
        # Completions of a group hold one prompt, the same object.
        prompts = list({id(one.prompt): one.prompt for one in completions}.values())
        numbers = {id(prompt): number for number, prompt in enumerate(prompts)}
        columns, has = {}, {}
        for name in Completion.ARRAYS:
            found = [getattr(one, name) for one in completions]
            has[name] = np.array([column is not None for column in found], dtype=np.bool_)
            known = [column for column in found if column is not None]
            columns[name] = Ragged.of(known, Completion.ARRAYS[name])
        texts = [
            np.frombuffer(one.text.encode(errors=ANY_TEXT), dtype=np.uint8) for one in completions
        ]
        return cls(
            fields={name: [getattr(one, name) for one in completions] for name in PLAIN_FIELDS},
            prompts=Ragged.of([prompt.token_ids for prompt in prompts], np.int32),
            prompt_of=np.array([numbers[id(one.prompt)] for one in completions], dtype=np.int32),
            columns=columns,
            has=has,
            texts=Ragged.of(texts, np.uint8),
        )

    def unpacked(self, *, with_texts: bool) -> list[Completion]:
        """The completions; their arrays are views of these.

        Args:
            with_texts: False leaves every `text` empty.
        """
        prompts = [Prompt.of(token_ids) for token_ids in self.prompts.views()]
        columns: dict[str, list[Any]] = {
            "prompt": [prompts[number] for number in self.prompt_of.tolist()],
            **{name: spread(self.columns[name].views(), has) for name, has in self.has.items()},
            **self.fields,
        }
        if with_texts:
            columns["text"] = [
                view.tobytes().decode(errors=ANY_TEXT) for view in self.texts.views()
            ]
        else:
            columns["text"] = [""] * len(self.prompt_of)
        return [
            Completion(**dict(zip(columns, values, strict=True)))
            for values in zip(*columns.values(), strict=True)
        ]


def spread(
    known: Sequence[NDArray[np.generic]], has: NDArray[np.bool_]
) -> list[NDArray[np.generic] | None]:
    """[N] the arrays of those that have one, None for the others."""
    following = iter(known)
    return [next(following) if is_known else None for is_known in has.tolist()]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepData:
    """All that one update is given."""

    step: int
    completions: PackedCompletions
    parents: PackedCompletions  # compared with; they do not train
    replayed: PackedCompletions  # of earlier steps; they train again
    replayed_advantages: list[float]
    replayed_weights: list[float]

    @classmethod
    def of(
        cls,
        step: int,
        completions: Sequence[Completion],
        parents: Sequence[Completion] = (),
        replayed: Sequence[Replayed] = (),
    ) -> StepData:
        return cls(
            step=step,
            completions=PackedCompletions.of(completions),
            parents=PackedCompletions.of(parents),
            replayed=PackedCompletions.of([one.completion for one in replayed]),
            replayed_advantages=[one.advantage for one in replayed],
            replayed_weights=[one.weight for one in replayed],
        )

    def unpacked(
        self, *, with_texts: bool
    ) -> tuple[list[Completion], list[Completion], list[Replayed]]:
        """Completions, parents and replayed, as they were given."""
        again = self.replayed.unpacked(with_texts=with_texts)
        return (
            self.completions.unpacked(with_texts=with_texts),
            self.parents.unpacked(with_texts=with_texts),
            [
                Replayed(completion=one, advantage=advantage, weight=weight)
                for one, advantage, weight in zip(
                    again, self.replayed_advantages, self.replayed_weights, strict=True
                )
            ],
        )
