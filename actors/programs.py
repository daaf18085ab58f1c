"""What is sampled for one problem: a program, ordinary code over a sampler.

A program asks for groups of completions, looks at them, and may ask for more. Problems run at the
same time, each in a program of its own, so none waits for another. To sample in another way (a
tool between two turns, say), write another program and give it to `Rollout`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from actors.layers import (
    PromptRequest,
    choose_parents,
    correction_requests,
    draw_guidance,
    falls_back_to_problem,
    solve_request,
    stable_seed,
)
from actors.templates import PromptBuilder
from mgrpo.config.layers import CorrectLayer, LayerConfig
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


class Sampler(Protocol):
    """What a program may use. `actors.rollout.Rollout` is one."""

    builder: PromptBuilder
    layers: Sequence[LayerConfig]
    seed: int

    async def sample_all(
        self, number: int, problem: Problem, requests: Sequence[PromptRequest]
    ) -> list[Completion]:
        """Sample and score groups of layer `number`, all at the same time."""
        ...


Program = Callable[[Task, Sampler], Coroutine[object, None, list[Completion]]]


async def correction_chain(task: Task, sampler: Sampler) -> list[Completion]:
    """Attempts, corrections of some of them, corrections of these, and so on.

    A chain of one layer is a single answer to the problem.
    """
    done: list[Completion] = []
    parents = list(task.attempts)
    for number in range(task.first_layer, task.last_layer + 1):
        layer = sampler.layers[number - 1]
        if isinstance(layer, CorrectLayer):
            requests = corrections(task, sampler, number, layer, parents)
        else:
            requests = [solve_request(sampler.builder, layer, task.problem, tree=task.tree)]
        parents = await sampler.sample_all(number, task.problem, requests)
        done += parents
    return done


def corrections(
    task: Task,
    sampler: Sampler,
    number: int,
    layer: CorrectLayer,
    attempts: Sequence[Completion],
) -> list[PromptRequest]:
    """The requests of layer `number` that one problem's attempts call for."""
    if not attempts:
        return []
    if falls_back_to_problem(layer, attempts):
        tree = task.tree.apart(f"layer{number}")
        first = solve_request(sampler.builder, sampler.layers[0], task.problem, tree=tree)
        return [replace(first, num_samples=layer.group_size)]
    rng = random.Random(stable_seed(sampler.seed, task.tree, number))
    requests: list[PromptRequest] = []
    for parent in choose_parents(layer, attempts, rng):
        guidance_ids = draw_guidance(layer, rng, step=task.step)
        requests += correction_requests(sampler.builder, layer, task.problem, parent, guidance_ids)
    return requests
