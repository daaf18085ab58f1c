"""What is sampled for one problem: a program, ordinary code over a few tools.

A program asks for groups of completions, looks at them, and may ask for more. Problems run at the
same time, each in a program of its own, so none waits for another. To sample in another way (a
tool between two turns, say), write another program and give it to `Rollout`.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from actors.layers import (
    PromptRequest,
    choose_parents,
    correction_requests,
    draw_guidance,
    falls_back_to_problem,
    solve_request,
    split_requests,
    stable_seed,
)
from actors.templates import PromptBuilder
from mgrpo.config.layers import LaterLayer, LayerConfig, StopOnAgreement
from mgrpo.errors import task_group
from mgrpo.types import Completion, CompletionId, Problem


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One problem of a step, and which layers are to be sampled for it.

    Example: the whole chain of two layers for the fourth problem of step 12:
        Task(problem=problem, step=12, tree=CompletionId(12, 3), first_layer=1, last_layer=2)
    """

    problem: Problem
    step: int
    tree: CompletionId  # the problem's in the step; its completions' ids begin with it
    first_layer: int
    last_layer: int
    attempts: Sequence[Completion] = ()  # of layer first_layer - 1, sampled before


class ProgramTools(Protocol):
    """What a program may use. `actors.rollout.Rollout` is one."""

    builder: PromptBuilder
    layers: Sequence[LayerConfig]
    seed: int

    async def sample_all(
        self, number: int, problem: Problem, requests: Sequence[PromptRequest]
    ) -> list[Completion]:
        """Sample and score groups of layer `number`, all at the same time."""
        ...


Program = Callable[[Task, ProgramTools], Coroutine[object, None, list[Completion]]]


async def correction_chain(task: Task, tools: ProgramTools) -> list[Completion]:
    """Attempts, corrections of some of them, corrections of these, and so on.

    A chain of one layer is a single answer to the problem.
    """
    done: list[Completion] = []
    parents = list(task.attempts)
    for number in range(task.first_layer, task.last_layer + 1):
        layer = tools.layers[number - 1]
        if isinstance(layer, LaterLayer):
            requests = corrections(task, tools, number, layer, parents)
        else:
            requests = [solve_request(tools.builder, layer, task.problem, tree=task.tree)]
        requests = [replace(one, num_spare=layer.over_sample) for one in requests]
        if isinstance(layer, LaterLayer) and isinstance(layer.early_stop, StopOnAgreement):
            parents = await run_together(
                in_parts(task, tools, number, layer.early_stop, list(family))
                for _, family in itertools.groupby(requests, key=lambda one: one.group_key)
            )
        else:
            parents = await tools.sample_all(number, task.problem, requests)
        done += parents
    return done


async def in_parts(
    task: Task, tools: ProgramTools, number: int, stop: StopOnAgreement, family: list[PromptRequest]
) -> list[Completion]:
    """A group, or no more of it than its first part where the rewards of that agree.

    Chance decides by the group's name alone, so that a resumed run decides alike.
    """
    first, others = split_requests(family, stop.first)
    done = await tools.sample_all(number, task.problem, first)
    if not agree(done):
        return done + await tools.sample_all(number, task.problem, others)
    rng = random.Random(stable_seed(tools.seed, family[0].group_key, "go on"))
    if rng.random() < stop.go_on_chance:
        done += await tools.sample_all(number, task.problem, others)
        return [replace(one, weight=1 / stop.go_on_chance) for one in done]
    counts_as = sum(one.num_samples for one in family) / len(done)
    weight = 0.0 if stop.go_on_chance else counts_as
    return [replace(one, weight=weight, counts_as=counts_as) for one in done]


def agree(completions: Sequence[Completion]) -> bool:
    """Is the reward of all known and the same?"""
    rewards = [one.reward for one in completions if one.reward and one.reward.is_usable]
    return len(rewards) == len(completions) and len({one.value for one in rewards}) == 1


async def run_together(
    parts: Iterable[Coroutine[object, None, list[Completion]]],
) -> list[Completion]:
    """Run all parts at the same time; their completions in the order of the parts.

    The first failure cancels the rest and is raised as it is, not inside a group.
    """
    async with task_group() as group:
        tasks = [group.create_task(part) for part in parts]
    return [completion for task in tasks for completion in task.result()]


def corrections(
    task: Task,
    tools: ProgramTools,
    number: int,
    layer: LaterLayer,
    attempts: Sequence[Completion],
) -> list[PromptRequest]:
    """The requests of layer `number` that one problem's attempts call for."""
    if not attempts:
        return []
    if falls_back_to_problem(layer, attempts):
        tree = task.tree.apart(f"layer{number}")
        first = solve_request(tools.builder, tools.layers[0], task.problem, tree=tree)
        return [replace(first, num_samples=layer.group_size)]
    rng = random.Random(stable_seed(tools.seed, task.tree, number))
    requests: list[PromptRequest] = []
    for parent in choose_parents(layer, attempts, rng):
        guidance_ids = draw_guidance(layer, rng, step=task.step)
        requests += correction_requests(tools.builder, layer, task.problem, parent, guidance_ids)
    return requests
