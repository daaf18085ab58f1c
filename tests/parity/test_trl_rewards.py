"""TRL's reward functions give the same rewards and advantages here as in TRL, on the same
completions.

    make test-parity

TRL's own `GRPOTrainer._calculate_rewards` and its advantages run as they are (trl_reference.py); on
our side the terms of a recipe, as a reward process runs them, and a layer's advantages.
"""

from __future__ import annotations

import asyncio
import dataclasses
import random

import pytest
import torch
from torch.testing import assert_close

pytest.importorskip("trl", reason="TRL is not in this environment; run: make test-parity")

from trl.rewards import get_repetition_penalty_reward, think_format_reward

from learner.batch import build_batch
from mgrpo.config import ObjectiveConfig, RewardsConfig
from mgrpo.types import Problem
from rewards.conventions import Group, invocations
from rewards.registry import load_function
from rewards.score import TermReward, combine
from rewards.worker import all_awaited, scored
from tests.learner.builders import long, solve_layer
from tests.learner.exact import floats
from tests.parity.trl_reference import trl_rewards
from tests.rewards import functions_from_elsewhere as functions

HERE = "tests.rewards.functions_from_elsewhere"
OWN = "tests.parity.test_trl_rewards"
GROUPS, SIZE = 4, 4
GROUP_Z = {"type": "group_z", "epsilon": 1e-4}  # TRL's

repetition_penalty = get_repetition_penalty_reward(ngram_size=2)
repetition_penalty.__name__ = "repetition_penalty"
CALLED = vars(functions) | {one.__name__: one for one in (repetition_penalty, think_format_reward)}


class Samples:
    """Random completions of random sums, some right, some with thoughts, some without an answer."""

    def __init__(self, seed, *, as_chat):
        draw = random.Random(seed)
        self.as_chat = as_chat
        self.problems, self.texts, self.ids = [], [], []
        for number in range(GROUPS):
            one, other = draw.randrange(20), draw.randrange(20)
            answer = str(one + other)
            task = "algebra" if number % 2 else "history"
            columns = {"answer": answer, "ground_truth": answer, "task": task}
            self.problems.append(
                Problem(
                    problem_id=str(number),
                    question=f"What is {one} + {other}?",
                    answer=answer,
                    metadata=columns,
                )
            )
            self.texts.append([self.text(draw, answer) for _ in range(SIZE)])
            self.ids.append([[draw.randrange(4) for _ in range(6)] for _ in range(SIZE)])

    def text(self, draw, answer):
        thoughts = draw.choice(["<think>adding</think>", ""])
        return thoughts + draw.choice([f"\\boxed{{{answer}}}", "\\boxed{0}", "no idea", "well"])

    @property
    def trl_rows(self):
        """A data set's row for each completion, as TRL repeats them."""
        return [
            {
                "prompt": [{"role": "user", "content": problem.question}]
                if self.as_chat
                else problem.question,
                **problem.metadata,
            }
            for problem in self.problems
            for _ in range(SIZE)
        ]

    @property
    def trl_texts(self):
        texts = [text for group in self.texts for text in group]
        if not self.as_chat:
            return texts
        return [[{"role": "assistant", "content": text}] for text in texts]


async def ours(samples, names, weights):
    """([N, functions] with NaN for None, the rewards of all completions)."""
    terms = [
        {"trl": name if ":" in name else f"{HERE}:{name}", "weight": weight, "correct_at": 1.0}
        | ({"messages": True} if samples.as_chat else {})
        for name, weight in zip(names, weights, strict=True)
    ]
    config = RewardsConfig.model_validate({"terms": terms})
    loaded = [load_function(term) for term in config.terms]
    found, rewards = [], []
    for problem, texts, ids in zip(samples.problems, samples.texts, samples.ids, strict=True):
        group = Group(problem=problem, texts=texts, token_ids=ids)
        columns = []
        for function in loaded:
            (call,) = invocations(function, group)
            columns += await all_awaited([call], 10.0) if function.is_async else [scored(call)]
        for row in zip(*columns, strict=True):
            found.append([float("nan") if one is None else one.value for one in row])
            kept = zip(config.terms, row, strict=True)
            rewards.append(
                combine(
                    [TermReward(name=t.function, weight=t.weight, reward=one) for t, one in kept]
                )
            )
    return torch.tensor(found), rewards


def advantages_of(samples, rewards):
    ids = [one for group in samples.ids for one in group]
    completions = [
        dataclasses.replace(long(f"{at // SIZE}/{at % SIZE}", 0.0, len(ids[at])), reward=reward)
        for at, reward in enumerate(rewards)
    ]
    layer = solve_layer(max_completion_tokens=8, advantage=GROUP_Z)
    rows = build_batch(completions, [layer], ObjectiveConfig(importance="none")).all_rows
    return floats(*(row.advantages[0] for row in rows))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("names", "weights", "as_chat"),
    [
        (["accuracy", "length_penalty"], [1.0, 0.5], False),
        (["accuracy", "think_format", "best_of_group"], [1.0, 0.2, -0.3], False),
        (["slow_accuracy", "only_algebra", f"{OWN}:repetition_penalty"], [1.0, 2.0, 1.0], False),
        (["only_algebra", "think_format"], [1.0, 0.5], False),
        (["only_algebra"], [1.0], False),
        (["chat_accuracy", f"{OWN}:think_format_reward"], [1.0, 0.25], True),
    ],
    ids=["lengths", "groups", "async", "left_out", "unscored", "chats"],
)
def test_rewards_and_advantages_are_trl_s(seed, names, weights, as_chat):
    samples = Samples(seed, as_chat=as_chat)
    called = [CALLED[name.rpartition(":")[2]] for name in names]
    ids = [one for group in samples.ids for one in group]
    theirs, their_advantages = trl_rewards(
        called, weights, samples.trl_rows, samples.trl_texts, ids, SIZE
    )
    found, rewards = asyncio.run(ours(samples, names, weights))
    assert_close(found.to(theirs), theirs, rtol=1e-6, atol=1e-6, equal_nan=True)
    unscored = theirs.isnan().all(dim=1)
    assert [reward.status for reward in rewards] == [
        "error" if one else "scored" for one in unscored.tolist()
    ]
    assert_close(
        advantages_of(samples, rewards).to(their_advantages), their_advantages, rtol=1e-5, atol=1e-5
    )
