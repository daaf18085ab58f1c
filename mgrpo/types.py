"""The records that travel between rooms.

A prompt is the root of a tree; each completion of layer k is a node whose parent is the
completion of layer k-1 that it was asked to improve. A *group* is what is compared: the
attempts at one problem, or the corrections of one attempt, whose prompts are equal to the token
unless each correction draws a phrase of its own. Records are frozen: a later stage makes a new
one with `dataclasses.replace`, so records are never modified in place. No torch here.

Tokens are columns (`mgrpo.records.token_columns`), turns are offsets into them
(`mgrpo.records.turns`).
"""

from __future__ import annotations

import dataclasses
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import numpy as np

from mgrpo.records.json_object import JsonObject
from mgrpo.records.stored import refuse_other_form
from mgrpo.records.token_columns import ColumnRecord, Logprobs, TokenIds, TokenMask
from mgrpo.records.turns import (
    Prompt,
    TokenSpans,
    Turn,
    VersionSpans,
    WrittenRecord,
    cut_versions,
)

RewardStatus = Literal["scored", "unparsable", "timeout", "error", "removed"]
FinishReason = Literal["stop", "length", "aborted"]
EXPERT = "expert"
"""What `Completion.augmented_by` says of a solution of the data beside sampled completions."""
EARLIER_STEP = "error pool"
"""`augmented_by` of an attempt of an earlier step."""
STORED_PAIR = "preference pair"
"""`augmented_by` of one side of a preference pair of an earlier step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One row of the data: a question whose answer can be checked.

    Example:
        Problem(problem_id="chain_sum/1/17", question="What is 3 + 4?", answer="7",
                domain="chain_sum")
    """

    problem_id: str  # stable across runs: resume and reports refer to it
    question: str
    answer: str  # the reference answer that checks compare with; "" where the data has none
    domain: str = "default"  # metrics are also kept per domain
    solution: str = ""  # a worked solution, where the data has one
    metadata: JsonObject = field(default_factory=dict)
    earlier_turns: list[dict[str, str]] = field(default_factory=list)
    """What stands before the question in every layer's prompt, each with role and content: a
    system turn, which takes the place of the layer's, then worked examples."""
    is_chat: bool = False  # the row has its prompt as a list of turns, not as text
    source: str = ""  # which of several sources it is of
    prompt_opening: str | None = None
    """The beginning of the answer in the prompt, such as "<think>\\n"; the completion continues it.
    Set when completions are scored; None: unknown."""

    @property
    def chat(self) -> list[dict[str, str]]:
        """The prompt as turns with role and content, the question last."""
        return [*self.earlier_turns, {"role": "user", "content": self.question}]

    @property
    def has_system_turn(self) -> bool:
        return bool(self.earlier_turns) and self.earlier_turns[0]["role"] == "system"

    @property
    def num_characters(self) -> int:
        """Of the question and of the turns before it."""
        return len(self.question) + sum(len(turn["content"]) for turn in self.earlier_turns)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reward:
    """The checks' result for one completion.

    `unparsable` is a legitimate 0: the completion has no answer that could be read.
    `timeout` and `error` mean that *the check* failed: such a completion is left out of the
    loss and of its group's statistics. `removed`, with the reason in `detail`, is set inside the
    learner where a plug-in leaves a completion out.
    """

    value: float
    status: RewardStatus = "scored"
    correct: bool = False  # the final answer is right, whatever the shaping added
    parts: dict[str, float] = field(default_factory=dict)  # e.g. {"answer": 1.0, "format": 0.0}
    extracted_answer: str | None = None  # what the check read as the final answer
    detail: str = ""  # for people: why, or the error's text
    feedback: str = ""  # for the policy's correction, with `guidance: {from: check}`

    @property
    def is_usable(self) -> bool:
        """True where the check itself worked, so the value may train the policy."""
        return self.status in ("scored", "unparsable")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Generation(WrittenRecord):
    """One completion as an engine returns it, before it is scored."""

    ARRAYS: ClassVar = {"token_ids": np.int32, "logprobs": np.float32}

    token_ids: TokenIds  # [num_completion_tokens], the end-of-sequence token included
    logprobs: Logprobs  # [num_completion_tokens], nats, at the sampling temperature
    finish_reason: FinishReason
    version_spans: VersionSpans  # which policy version sampled which tokens
    text: str  # decoded without special tokens; for checks and people, never re-tokenised
    engine: str = ""  # name of the engine that sampled it
    num_drafted: int = 0  # tokens that were drafted, by speculation
    num_accepted: int = 0  # those of them that it has: it took as many fewer decode steps

    def turn(self, prompt: Prompt) -> Turn:
        """As a completion's turn, for which the policy read this prompt."""
        return Turn(
            prompt=prompt,
            token_ids=self.token_ids,
            logprobs=self.logprobs,
            version_spans=self.version_spans,
        )


@dataclass(frozen=True, slots=True, order=True)
class CompletionId:
    """Where a completion stands: a problem's slot in a step, and the way to it in its tree.

    Without a path it names the tree, of all completions of the problem in that slot.

    Example: the second correction of the first attempt at the problem in slot 5 of step 3:
        CompletionId(3, 5, (0, 1)), printed as s3p5#0.1
    """

    step: int
    slot: int
    path: tuple[int, ...] = ()  # (2,) the third attempt; below 0: put in beside the sampled ones
    label: str = field(default="", repr=False)
    """Printed in place of step and slot, where these do not name it."""

    def __str__(self) -> str:
        path = ".".join(map(str, self.path))
        return f"{self.tree_name}#{path}" if path else self.tree_name

    @property
    def tree_name(self) -> str:
        """The tree, as it is printed: s3p5."""
        return self.label or f"s{self.step}p{self.slot}"

    @property
    def tree(self) -> CompletionId:
        """Of the problem in this slot: the same for all of its completions."""
        return CompletionId(self.step, self.slot)

    @property
    def drawing_order(self) -> int:
        """Greater for problems that were drawn later."""
        return self.step * SLOTS_OF_A_STEP + self.slot

    @property
    def parent(self) -> CompletionId:
        """Of a correction its attempt, of an attempt the problem."""
        return replace(self, path=self.path[:-1])

    def child(self, number: int) -> CompletionId:
        """An attempt at a problem, or a correction of a completion."""
        return replace(self, path=(*self.path, number))

    def apart(self, name: str) -> CompletionId:
        """The same slot under another name, for further samples of a problem."""
        return replace(self, label=f"{self.tree_name}#{name}")

    @classmethod
    def named(cls, name: str) -> CompletionId:
        """From the printed form, for files that have no other. Any other name is a label."""
        found = PRINTED_ID.fullmatch(name)
        if found is None:
            return cls(-1, zlib.crc32(name.encode()), label=name)
        step, slot, label, path = found.groups()
        numbers = tuple(map(int, path.split(".")))
        if label is None:
            return cls(int(step), int(slot), numbers)
        return cls(-1, zlib.crc32(label.partition("#")[0].encode()), numbers, label)


SLOTS_OF_A_STEP = 1 << 32  # more than any step has
PRINTED_ID = re.compile(r"(?:s(\d+)p(\d+)|(.+))#(-?\d+(?:\.-?\d+)*)")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Completion(WrittenRecord):
    """One sampled answer to one prompt, with its data: one turn of the policy, or several.

    Of several turns, `join_turns` makes the columns: what was read between two turns stands between
    them, sampled by nobody and without loss.

    Example: the second correction of the first attempt at the problem in slot 0 of step 0:
        Completion(id=CompletionId(step=0, slot=0, path=(0, 1)), problem_id="chain_sum/1/17",
                   layer=2, parent_id="s0p0#0", group_key="s0p0#0", ...)
    """

    ARRAYS: ClassVar = {
        "token_ids": np.int32,
        "rollout_logprobs": np.float32,
        "sampled_mask": np.bool_,
        "train_mask": np.bool_,
    }

    id: CompletionId
    problem_id: str
    domain: str
    layer: int  # 1 for first attempts, 2 for corrections, ...
    parent_id: str | None  # of the attempt that it corrects or verifies; None in layer 1
    group_key: str  # what its prompt is of: the parent's id, or the tree, "s0p0"
    prompt: Prompt  # of the first turn; one object for all completions of a prompt
    token_ids: TokenIds  # [num_completion_tokens]
    rollout_logprobs: Logprobs  # [num_completion_tokens], nats, at the sampling temperature
    finish_reason: FinishReason  # of the last turn
    version_spans: VersionSpans  # which policy version wrote which tokens
    text: str
    prompt_text: str  # layer 1: the question, without template or system prompt; later layers: ""
    reference_answer: str = ""  # layer 1: the problem's; later layers: ""
    guidance_id: int | None = None  # which guidance phrase opened this correction
    feedback: str | None = None  # of the parent's check, as its prompt has it; None: not asked for
    feedback_tokens: int = 0  # tokens of it
    engine: str = ""  # name of the engine that sampled it
    sampled_mask: TokenMask | None = None  # false: put in, not sampled; None: all were sampled
    train_mask: TokenMask | None = None  # false: no loss on this token; None: all train
    turn_spans: TokenSpans = ()  # [start, end) of each turn; (): one turn, all of the tokens
    spans: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    """Named parts of the completion, as [start, end) token places: steps, analysis, ..."""
    accepts: bool | None = None
    """Of a verdict: does it say that its attempt is right? None: it is no verdict. A correction
    behind a verdict has the attempt as its parent, and the verdict as its `group_key`."""
    augmented_by: str = ""  # what a plug-in did to it after it was sampled
    weight: float = 1.0
    """Factor on its loss; 1 over the chance with which it was sampled, where that was drawn."""
    counts_as: float = 1.0
    """Completions of its layer's denominator that it stands for, where others were not sampled."""
    metadata: JsonObject = field(default_factory=dict)
    """Data from a rollout plug-in for a learner plug-in; plain values for JSON."""
    reward: Reward | None = None
    advantage: float | None = None  # filled by the learner
    selected: bool | None = None  # does it train?
    not_selected_because: str = ""

    def __post_init__(self) -> None:
        ColumnRecord.__post_init__(self)
        given: Any = self.prompt
        if not isinstance(given, Prompt):  # token ids, like the columns
            object.__setattr__(self, "prompt", Prompt.of(given))

    @property
    def completion_id(self) -> str:
        """The id as it is printed, and as other records name it."""
        return str(self.id)

    @property
    def prompt_token_ids(self) -> TokenIds:
        """[num_prompt_tokens] what was read before the first token."""
        return self.prompt.token_ids

    @property
    def turns(self) -> list[Turn]:
        """Its turns, as views of its columns; `join_turns` undoes it."""
        turns: list[Turn] = []
        read_from = 0
        for start, stop in self.turn_spans or ((0, len(self.token_ids)),):
            here = slice(start, stop)
            turns.append(
                Turn(
                    prompt=Prompt.of(self.token_ids[read_from:start]) if turns else self.prompt,
                    token_ids=self.token_ids[here],
                    logprobs=self.rollout_logprobs[here],
                    version_spans=cut_versions(self.version_spans, start, stop),
                    sampled_mask=None if self.sampled_mask is None else self.sampled_mask[here],
                    train_mask=None if self.train_mask is None else self.train_mask[here],
                )
            )
            read_from = stop
        return turns

    @property
    def is_truncated(self) -> bool:
        return self.finish_reason == "length"

    @property
    def num_trained_tokens(self) -> int:
        return len(self.token_ids) if self.train_mask is None else int(self.train_mask.sum())

    @property
    def is_sampled(self) -> TokenMask:
        """[num_completion_tokens] the policy sampled this token."""
        return self._mask(self.sampled_mask)

    @property
    def is_trained(self) -> TokenMask:
        """[num_completion_tokens] this token may carry loss."""
        return self._mask(self.train_mask)

    def _mask(self, mask: TokenMask | None) -> TokenMask:
        return np.ones(len(self.token_ids), dtype=np.bool_) if mask is None else mask

    @property
    def is_correct(self) -> bool:
        return self.reward is not None and self.reward.correct

    def to_json(self) -> dict[str, object]:
        """The form of `rollouts/*.jsonl`; `from_json` reads it back."""
        row = {"completion_id": self.completion_id, **dataclasses.asdict(self)}
        row["prompt"] = self.prompt.to_json()
        return row | {name: row[name].tolist() for name in self.ARRAYS if row[name] is not None}

    @classmethod
    def from_json(cls, row: JsonObject) -> Completion:
        """From a row of today's form, or of a form before (`in_todays_form`).

        Raises:
            DataError: it is something else, or its prompt has a part that is not supported.
        """
        fields = in_todays_form(row)
        refuse_other_form(fields)
        fields["id"] = CompletionId(**{**fields["id"], "path": tuple(fields["id"]["path"])})
        for name in ("version_spans", "turn_spans"):
            if name in fields:
                fields[name] = tuple(map(tuple, fields[name]))
        fields["prompt"] = Prompt.from_json(fields["prompt"])
        reward = fields.get("reward")
        return cls(**{**fields, "reward": None if reward is None else Reward(**reward)})


def in_todays_form(row: JsonObject) -> JsonObject:
    """A completion's row, as files have it, with the fields of today.

    Before, a prompt was its token ids and a completion had one version, that of its oldest token;
    before that, an id was its printed form.
    """
    fields = {key: value for key, value in row.items() if key != "completion_id"}
    if "id" not in fields and "completion_id" in row:
        fields["id"] = dataclasses.asdict(CompletionId.named(str(row["completion_id"])))
    if "prompt_token_ids" in fields:
        fields["prompt"] = [{"token_ids": fields.pop("prompt_token_ids")}]
    if "policy_version" in fields:
        fields["version_spans"] = [(0, fields.pop("policy_version"))]
    return fields


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Whether one completion trains, and with what advantage: the learner's decision."""

    completion_id: str
    advantage: float  # the mean over its tokens, where they differ
    selected: bool
    reason: str = ""  # why not, when it was not selected


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """A completion of an earlier step that trains again, with the advantage that it had then."""

    completion: Completion
    advantage: float
    weight: float = 1.0  # factor on the mean loss of all that train again, beside the layers'


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateResult:
    """The result of one update, reported by rank 0.

    `metrics` maps a name to (sum, count); the mean is computed once, for display, so it does not
    depend on ranks or micro-batches.
    """

    policy_version: int
    metrics: dict[str, tuple[float, float]]
    selections: list[Selection]
    warnings: Sequence[str] = ()  # for the user
