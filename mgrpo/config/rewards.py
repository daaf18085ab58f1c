"""Rewards: what scores completions, and its processes.

terms:
  - {check: math_answer}                          # built in, or your own module:function
  - {check: "./my.py:close", weight: 0.5}
  - {batch: "./my.py:differ"}                     # your own, called once for a group
  - {trl: "./my.py:reward", correct_at: 1.0}      # written for TRL, verl or OpenRLHF
  - {verl: ./my.py, correct_at: 1.0}
  - {openrlhf: ./my.py, correct_at: 1.0}
  - {http: "http://127.0.0.1:8000/score"}         # answered by a service: see services.py
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import (
    AfterValidator,
    Discriminator,
    Field,
    PositiveFloat,
    PositiveInt,
    Tag,
    model_validator,
)

from mgrpo.config.base import RelationError, StrictConfig, refuse
from mgrpo.config.services import HttpTerm, JudgeTerm, ModelTerm
from mgrpo.config.term_base import TermBase
from mgrpo.errors import ConfigFault
from mgrpo.records.json_object import JsonObject

TermKind = Literal["check", "batch", "trl", "verl", "openrlhf"]
FUNCTION_KINDS: tuple[TermKind, ...] = ("check", "batch", "trl", "verl", "openrlhf")
"""Keys that name a function."""
KINDS = (*FUNCTION_KINDS, "http", "judge", "model")


def with_function(default: str = "") -> AfterValidator:
    """Refuses a target without a function, unless its convention has a name for it."""

    def check(target: str) -> str:
        module, _, function = target.partition(":")
        if not module or not (function or default):
            refuse("", target, "must be `module:function` or `./file.py:function`.")
        return f"{module}:{function or default}"

    return AfterValidator(check)


class FunctionTermBase(TermBase):
    """Keys of every term that names a function."""

    KEY: ClassVar[TermKind]

    settings: JsonObject = Field(default_factory=dict)
    """Keyword arguments that the function is called with, beside those of its kind."""


class CheckTerm(FunctionTermBase):
    """A check: `check(completion, problem, **settings)` returns a bool, a number or a Reward."""

    KEY: ClassVar[TermKind] = "check"

    check: str
    """A built-in name (math_answer, format, reasoning_gym, code_answer), or your own
    `module:function` or `./file.py:function`. Modules and files lie in the folder that the command
    is run in, beside the recipe, or (modules) are installed."""
    correct_at: float | None = 1.0
    """The number that it returns for a right completion, or more. Null: it does not say what is
    right. The first term that says it for a completion decides. A bool, or the `correct` of a
    Reward, says it itself."""


class BatchTerm(FunctionTermBase):
    """A check of a whole group: `check(completions, problem, **settings)` returns a list with a
    bool, a number, a Reward or None for each; None leaves the term out for that completion."""

    KEY: ClassVar[TermKind] = "batch"
    FOR_GROUP: ClassVar[bool] = True

    batch: Annotated[str, with_function()]
    """`module:function` or `./file.py:function`."""


class TrlTerm(FunctionTermBase):
    """A reward function of TRL: `f(prompts, completions, completion_ids, **columns)` with a list
    for each returns a list of numbers; None leaves the term out for that completion."""

    KEY: ClassVar[TermKind] = "trl"
    FOR_GROUP: ClassVar[bool] = True

    trl: Annotated[str, with_function()]
    """`module:function` or `./file.py:function`."""
    messages: bool | None = None
    """Whether prompts and completions are lists of messages; null: where the row's prompt is."""


class VerlTerm(FunctionTermBase):
    """A reward function of verl: `compute_score(data_source, solution_str, ground_truth,
    extra_info)` returns a number, or a dict with one as `score`, whose other numbers are kept."""

    KEY: ClassVar[TermKind] = "verl"

    verl: Annotated[str, with_function("compute_score")]
    """`module:function` or `./file.py:function`; without a function: compute_score."""


class OpenRlhfTerm(FunctionTermBase):
    """A reward function of OpenRLHF: `reward_func(queries, prompts, labels)` returns a tensor or a
    list of numbers, or a dict with one as `rewards`, whose other numbers are kept."""

    KEY: ClassVar[TermKind] = "openrlhf"
    FOR_GROUP: ClassVar[bool] = True

    openrlhf: Annotated[str, with_function("reward_func")]
    """`module:function` or `./file.py:function`; without a function: reward_func."""


def kind_of(value: object) -> str | None:
    """The kind of a term, by the one key that names what scores."""
    if isinstance(value, TermBase):
        return value.KEY
    given = [kind for kind in KINDS if isinstance(value, dict) and kind in value]
    return given[0] if len(given) == 1 else None


FunctionTerm = CheckTerm | BatchTerm | TrlTerm | VerlTerm | OpenRlhfTerm
RewardTerm = Annotated[
    Annotated[CheckTerm, Tag("check")]
    | Annotated[BatchTerm, Tag("batch")]
    | Annotated[TrlTerm, Tag("trl")]
    | Annotated[VerlTerm, Tag("verl")]
    | Annotated[OpenRlhfTerm, Tag("openrlhf")]
    | Annotated[HttpTerm, Tag("http")]
    | Annotated[JudgeTerm, Tag("judge")]
    | Annotated[ModelTerm, Tag("model")],
    Discriminator(
        kind_of,
        custom_error_type="reward_term",
        custom_error_message=f"must be a map with exactly one of the keys {', '.join(KINDS)}",
    ),
]


class RewardsConfig(StrictConfig):
    """The reward's terms and their processes."""

    terms: list[RewardTerm] = Field(default=[CheckTerm(check="math_answer")], min_length=1)
    """Added up by weight. The first that says it for a completion (`correct_at`) decides whether
    that is correct."""
    num_processes: PositiveInt = 2
    deadline_s: PositiveFloat = 10.0
    """Longest time for the checks of one completion, in seconds; for a function that gets a whole
    group, for the group. What takes longer is ended and counted as a timeout. Importing does not
    count."""
    start_deadline_s: PositiveFloat = 60.0
    """Longest wait for the reward processes to import the checks, and for a sign of life of a
    service's process, in seconds."""
    timeout_is: Literal["error", "zero"] = "error"
    """A check of one's own, or a built-in one, that is ended at the deadline. error: the completion
    is left out, as with a check that crashed. zero: it is worth 0, like a text without an answer,
    and counts as unparsable. For checks whose time a policy's text decides: a policy may not escape
    a 0 by what takes long, but a slow machine then gives zeros, too."""
    memory_gib: PositiveFloat | None = 8.0
    """Most memory that a reward process, and each process that a check starts, may write to, in
    GiB; beyond it the check fails. null: as much as there is."""
    max_failed_fraction: float = Field(default=0.2, ge=0, le=1)
    """The run stops when more than this share of a step's checks time out or crash."""

    @model_validator(mode="after")
    def check_correct_at(self) -> RewardsConfig:
        if all(term.correct_at is None for term in self.terms):
            hint = (
                "Give it to the term that does, e.g. correct_at: 1.0, or add a term of weight 0 "
                "that does."
            )
            reason = "is needed: no term says which completions are right."
            raise RelationError([ConfigFault("terms.0.correct_at", "null", reason, hint)])
        return self
