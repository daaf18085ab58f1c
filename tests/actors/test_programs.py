"""A program decides what is sampled for a problem; the chain is one, and a user's is another."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from actors.layers import solve_request
from actors.plugin import RolloutPlugin
from actors.programs import Program, ProgramTools, Task, correction_chain
from actors.rollout import program_of
from actors.scripted import ScriptedEngine
from mgrpo.config.base import StrictConfig
from mgrpo.errors import ConfigError
from mgrpo.metrics.log import MetricsLog, read_rollouts
from mgrpo.records.turns import Prompt, join_turns
from mgrpo.types import Completion, CompletionId
from tests.actors.byte_tokenizer import END
from tests.actors.test_rollout import PROBLEMS, TOKENIZER, chain, rollout, run, scripted


async def until_right(task: Task, tools: ProgramTools) -> list[Completion]:
    """Ask one problem for a single answer again and again, at most three times."""
    done: list[Completion] = []
    for number in range(3):
        request = solve_request(
            tools.builder, tools.layers[0], task.problem, tree=task.tree.apart(f"try{number}")
        )
        (answer,) = await tools.sample_all(1, task.problem, [replace(request, num_samples=1)])
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


async def with_a_tool(task: Task, tools: Any) -> list[Completion]:
    """An episode of two turns: the policy asks a tool, reads its result, and answers."""
    request = solve_request(tools.builder, tools.layers[0], task.problem, tree=task.tree)
    calls = await tools.sample_all(1, task.problem, [replace(request, num_samples=2)])
    return [await answered(task, tools, call) for call in calls]


async def answered(task: Task, tools: Any, call: Completion) -> Completion:
    result = Prompt.of(tools.builder.encode(f"tool: {task.problem.answer}"))
    read = Prompt.of([*call.prompt_token_ids, *call.token_ids, *result.token_ids])
    (answer,) = await tools.generate(1, read, num_samples=1, max_tokens=9, seed=0)
    (reward,) = await tools.score(task.problem, [answer.text])
    turns = join_turns([*call.turns, answer.turn(result)])
    return replace(call, **turns, text=answer.text, reward=reward)


def test_a_program_may_sample_episodes_of_several_turns(tmp_path: Path) -> None:
    def script(prompt: list[int], index: int) -> str:
        _, found, result = TOKENIZER.decode(prompt).partition("tool: ")
        return result if found else f"call {index}"

    parts = rollout(ScriptedEngine(script, encode=TOKENIZER.encode, end_id=END), chain(2))
    parts.program = with_a_tool
    completions = run(parts)
    assert len(completions) == 2 * len(PROBLEMS) and all(one.is_correct for one in completions)
    call, answer = completions[1].turns
    assert TOKENIZER.decode(call.token_ids[:-1]) == "call 1"
    assert TOKENIZER.decode(answer.prompt.token_ids) == "tool: 0"
    assert TOKENIZER.decode(answer.token_ids[:-1]) == "0"
    assert completions[1].num_trained_tokens == len(call.token_ids) + len(answer.token_ids)
    with MetricsLog(tmp_path) as log:
        assert read_rollouts(log.write_rollouts(0, completions)) == completions


def test_the_chain_goes_on_from_attempts_of_before() -> None:
    parts = rollout(scripted(), chain(2, 3))
    attempts = asyncio.run(parts.run(4, PROBLEMS, last_layer=1))
    task = Task(
        problem=PROBLEMS[1],
        step=4,
        tree=CompletionId(4, 1),
        first_layer=2,
        last_layer=2,
        attempts=[one for one in attempts if one.problem_id == PROBLEMS[1].problem_id],
    )
    corrections = asyncio.run(correction_chain(task, parts))
    whole = [one for one in run(rollout(scripted(), chain(2, 3))) if one.layer == 2]
    assert corrections == [one for one in whole if one.problem_id == PROBLEMS[1].problem_id]


def test_a_chain_without_attempts_asks_for_nothing() -> None:
    engine = scripted()
    task = Task(problem=PROBLEMS[0], step=0, tree=CompletionId(0, 0), first_layer=2, last_layer=2)
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
