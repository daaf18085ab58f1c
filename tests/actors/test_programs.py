"""A program decides what is sampled for a problem; the chain is one, and a user's is another."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from actors.layers import solve_request
from actors.plugin import RolloutPlugin
from actors.programs import Program, Sampler, Task, correction_chain
from actors.rollout import program_of
from mgrpo.config.base import StrictConfig
from mgrpo.errors import ConfigError
from mgrpo.types import Completion, CompletionId
from tests.actors.test_rollout import PROBLEMS, chain, rollout, run, scripted


async def until_right(task: Task, sampler: Sampler) -> list[Completion]:
    """Ask one problem for a single answer again and again, at most three times."""
    done: list[Completion] = []
    for number in range(3):
        request = solve_request(
            sampler.builder, sampler.layers[0], task.problem, place=task.place.apart(f"try{number}")
        )
        (answer,) = await sampler.sample_all(1, task.problem, [replace(request, num_samples=1)])
        done.append(answer)
        if answer.is_correct:
            break
    return done


def test_a_program_of_ones_own_is_run_for_every_problem() -> None:
    engine = scripted()
    parts = rollout(engine, chain(4))
    parts.program = until_right
    completions = run(parts)
    answers = [[c for c in completions if c.problem_id == one.problem_id] for one in PROBLEMS]
    # The scripted engine always answers 0, which is right for the first problem alone.
    assert [len(own) for own in answers] == [1, 3, 3]
    assert answers[1][2].completion_id == "s4p1#try2#0"
    assert len(set(engine.seeds)) == len(engine.seeds) == 7


def test_the_chain_goes_on_from_attempts_of_before() -> None:
    parts = rollout(scripted(), chain(2, 3))
    attempts = asyncio.run(parts.run(4, PROBLEMS, last_layer=1))
    task = Task(
        problem=PROBLEMS[1],
        step=4,
        place=CompletionId(4, 1),
        first_layer=2,
        last_layer=2,
        attempts=[one for one in attempts if one.problem_id == PROBLEMS[1].problem_id],
    )
    corrections = asyncio.run(correction_chain(task, parts))
    whole = [one for one in run(rollout(scripted(), chain(2, 3))) if one.layer == 2]
    assert corrections == [one for one in whole if one.problem_id == PROBLEMS[1].problem_id]


def test_a_chain_without_attempts_asks_for_nothing() -> None:
    engine = scripted()
    task = Task(problem=PROBLEMS[0], step=0, place=CompletionId(0, 0), first_layer=2, last_layer=2)
    assert asyncio.run(correction_chain(task, rollout(engine, chain(2, 3)))) == []
    assert engine.seeds == []


class Retries(RolloutPlugin):
    """Asks again until the answer is right."""

    def program(self) -> Program:
        return until_right


class Others(Retries):
    """Another with a program."""


def test_a_recipe_s_plug_in_may_have_the_program() -> None:
    nothing = StrictConfig()
    plain, retries = RolloutPlugin(nothing, frozenset({1})), Retries(nothing, frozenset({1}))
    assert program_of([]) is program_of([plain]) is correction_chain
    assert program_of([plain, retries]) is until_right
    with pytest.raises(ConfigError, match=r"Retries, Others: each have a program"):
        program_of([retries, Others(nothing, frozenset({1}))])
