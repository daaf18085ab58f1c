"""How reward functions of each kind are called, and how what they return is read. Pure.

    check     f(completion, problem, **settings)                       -> number | bool | Reward
    verl      f(data_source=, solution_str=, ground_truth=, extra_info=, **settings)
                                                                       -> number | {"score": ...}
    batch     f(completions, problem, **settings)                      -> list
    trl       f(prompts=, completions=, completion_ids=, log_extra=, log_metric=, **columns,
                **settings)                                            -> list
    openrlhf  f(queries=, prompts=, labels=, **settings)               -> list | tensor |
                                                                          {"rewards": ...}

The first two are called for one completion, the others for all completions of a prompt. Those of
other systems (TRL 1.16, verl 0.9, OpenRLHF 0.9) get what they take by name. Their prompts are the
problem's, in every layer and without the chat template.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any

from mgrpo.config.rewards import BatchTerm, FunctionTerm, OpenRlhfTerm, TrlTerm, VerlTerm
from mgrpo.types import Problem, Reward
from rewards.score import Outcome, as_reward, checked, described, failed, plain_scalar

FEEDBACK = "feedback"
"""The text for the policy's correction, among what a function returns or logs."""
NOT_COLUMNS = ("prompt", "completion", "completion_ids")
SHOWN_CHARS = 200  # of a text that a function returns beside its number


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardFunction:
    """A term with its function, imported."""

    term: FunctionTerm
    call: Callable[..., Any]
    signature: inspect.Signature | None  # None: written in C
    is_async: bool  # what it returns is awaited, for all completions of a prompt at the same time


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Completions of one prompt."""

    problem: Problem
    texts: Sequence[str]
    token_ids: Sequence[Any] | None = None  # per completion an array or a list; None: not known

    def part(self, indices: Sequence[int]) -> Group:
        """Some of its completions, without the token ids, which functions of groups alone read."""
        return Group(problem=self.problem, texts=[self.texts[index] for index in indices])


@dataclass(frozen=True, slots=True, kw_only=True)
class Invocation:
    """One call of a function, not made yet."""

    function: RewardFunction
    count: int  # completions that it scores
    args: tuple[Any, ...] = ()
    by_name: Mapping[str, Any] | None = None  # what there is; the function gets what it takes
    read: Callable[[Any], list[Outcome]]  # from what it returns: [count]

    def make(self) -> Any:
        """What the function returns.

        Raises:
            Exception: any of the function's own; TypeError: it needs what there is not.
        """
        named = {} if self.by_name is None else taken(self.function, self.by_name)
        return self.function.call(*self.args, **named, **self.function.term.settings)


def invocations(function: RewardFunction, group: Group) -> list[Invocation]:
    """The calls that score a group, in the order of its texts."""
    term = function.term
    if isinstance(term, BatchTerm):
        return [of_batch(function, group)]
    if isinstance(term, TrlTerm):
        return [of_trl(function, term, group)]
    if isinstance(term, OpenRlhfTerm):
        return [of_openrlhf(function, group)]
    one = of_verl if isinstance(term, VerlTerm) else of_check
    return [one(function, group.problem, text) for text in group.texts]


def of_check(function: RewardFunction, problem: Problem, text: str) -> Invocation:
    def read(returned: object) -> list[Outcome]:
        return [as_reward(returned, function.term.correct_at)]

    return Invocation(function=function, count=1, args=(text, problem), read=read)


def of_batch(function: RewardFunction, group: Group) -> Invocation:
    count = len(group.texts)

    def read(returned: object) -> list[Outcome]:
        return each(returned, count, function.term.correct_at, may_leave_out=True)

    args = (list(group.texts), group.problem)
    return Invocation(function=function, count=count, args=args, read=read)


def of_verl(function: RewardFunction, problem: Problem, text: str) -> Invocation:
    columns = problem.metadata
    of_model = columns.get("reward_model")
    given = {
        "data_source": columns.get("data_source", problem.domain),
        "solution_str": text,
        "ground_truth": (
            of_model["ground_truth"]
            if isinstance(of_model, dict) and "ground_truth" in of_model
            else problem.answer
        ),
        "extra_info": columns.get("extra_info", columns),
    }

    def read(returned: object) -> list[Outcome]:
        if not isinstance(returned, dict):
            return [as_reward(returned, function.term.correct_at)]
        if "score" not in returned:
            return [failed("error", f"the dict that it returned has no score: {returned!r:.200}")]
        reward = as_reward(returned["score"], function.term.correct_at)
        return [with_others(reward, without(returned, "score"))]

    return Invocation(function=function, count=1, by_name=given, read=read)


def of_openrlhf(function: RewardFunction, group: Group) -> Invocation:
    problem, count = group.problem, len(group.texts)
    given = {
        "queries": [problem.question + text for text in group.texts],
        "prompts": [problem.question] * count,
        "labels": [problem.metadata.get("label", problem.answer)] * count,
    }

    def read(returned: object) -> list[Outcome]:
        if not isinstance(returned, dict):
            return each(returned, count, function.term.correct_at)
        if "rewards" not in returned:
            what = f"the dict that it returned has no rewards: {returned!r:.200}"
            return [failed("error", what)] * count
        rewards = each(returned["rewards"], count, function.term.correct_at)
        others = {**without(returned, "rewards", "extra_logs"), **returned.get("extra_logs", {})}
        return with_columns(rewards, others)

    return Invocation(function=function, count=count, by_name=given, read=read)


def of_trl(function: RewardFunction, term: TrlTerm, group: Group) -> Invocation:
    problem, count = group.problem, len(group.texts)
    as_chat = problem.is_chat if term.messages is None else term.messages
    logged: dict[str, Any] = {}
    columns = {"answer": problem.answer, "problem_id": problem.problem_id, **problem.metadata}
    if problem.solution:
        columns.setdefault("solution", problem.solution)
    given: dict[str, Any] = {
        **{name: [value] * count for name, value in without(columns, *NOT_COLUMNS).items()},
        "prompts": [problem.chat if as_chat else problem.question for _ in group.texts],
        "completions": [
            [{"role": "assistant", "content": text}] if as_chat else text for text in group.texts
        ],
        "log_extra": logged.__setitem__,
        "log_metric": logged.__setitem__,
    }
    if group.token_ids is not None:
        given["completion_ids"] = [plain_list(ids) for ids in group.token_ids]

    def read(returned: object) -> list[Outcome]:
        rewards = each(returned, count, term.correct_at, may_leave_out=True)
        return with_columns(rewards, logged)

    return Invocation(function=function, count=count, by_name=given, read=read)


def taken(function: RewardFunction, given: Mapping[str, object]) -> Mapping[str, object]:
    """What a function takes by name of what there is: everything, if it has `**kwargs`.

    Raises:
        TypeError: it needs more.
    """
    if function.signature is None:
        return given
    parameters = function.signature.parameters
    known = {*given, *function.term.settings}
    missing = [name for name in needed(function.signature) if name not in known]
    if missing:
        raise TypeError(
            f"it needs {', '.join(missing)}, and the row has {', '.join(sorted(given))}. Keep the "
            "column (metadata_fields of the data), or give it in the term's settings"
        )
    takes_any = any(one.kind is one.VAR_KEYWORD for one in parameters.values())
    return {name: value for name, value in given.items() if takes_any or name in parameters}


def needed(signature: inspect.Signature) -> list[str]:
    """Parameters without a default."""
    return [
        name
        for name, one in signature.parameters.items()
        if one.default is one.empty and one.kind not in (one.VAR_KEYWORD, one.VAR_POSITIONAL)
    ]


def each(
    returned: object, count: int, correct_at: float | None, *, may_leave_out: bool = False
) -> list[Outcome]:
    """A reward for each entry of a list, a tuple or an array: [count]."""
    values = plain_list(returned)
    if not isinstance(values, list | tuple):
        what = f"expected a list of {count}, one for each completion"
        return [failed("error", f"the check returned {described(returned)}, {what}")] * count
    if len(values) != count:
        what = f"the check returned {len(values)} rewards for {count} completions"
        return [failed("error", what)] * count
    return [
        None if value is None and may_leave_out else as_reward(value, correct_at)
        for value in values
    ]


def plain_list(value: Any) -> Any:
    """An array or tensor of one dimension as a list; everything else as it is."""
    return value.tolist() if getattr(value, "ndim", None) == 1 else value


def with_columns(rewards: list[Outcome], columns: Mapping[str, object]) -> list[Outcome]:
    """With what a function returned beside its numbers: a list for each name, or one value."""
    count = len(rewards)
    rows = {
        name: values
        if isinstance(values, list | tuple) and len(values) == count
        else [values] * count
        for name, values in ((name, plain_list(value)) for name, value in columns.items())
    }
    return [
        None if reward is None else with_others(reward, {name: rows[name][i] for name in rows})
        for i, reward in enumerate(rewards)
    ]


def with_others(reward: Reward, others: Mapping[str, Any]) -> Reward:
    """With numbers as parts of the reward, `feedback` as that, and all else in its detail."""
    if not reward.is_usable:
        return reward
    feedback = others.get(FEEDBACK)
    values = {str(name): plain_scalar(value) for name, value in without(others, FEEDBACK).items()}
    numbers = {
        name: float(one)
        for name, one in values.items()
        if isinstance(one, Real) and math.isfinite(one)
    }
    texts = [
        f"{name}: {one!s:.{SHOWN_CHARS}}" for name, one in values.items() if name not in numbers
    ]
    return checked(
        replace(
            reward,
            parts={**reward.parts, **numbers},
            detail="; ".join(texts),
            feedback=reward.feedback if feedback is None else feedback,
        )
    )


def without(columns: Mapping[str, object], *names: str) -> dict[str, object]:
    return {name: value for name, value in columns.items() if name not in names}
