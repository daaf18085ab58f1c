"""Small completions, recipes and models that the learner's tests share."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from mgrpo.config import CorrectLayer, LayerConfig, RunConfig, SolveLayer
from mgrpo.plugin import find_plugin
from mgrpo.records.turns import Prompt, Turn, join_turns
from mgrpo.types import Completion, CompletionId, Reward

# The worked example: G = 4 attempts at one problem, H = 3 corrections of each.
ATTEMPT_REWARDS = [1, 0, 0, 1]
CORRECTION_REWARDS = [[1, 1, 0], [1, 0, 0], [0, 0, 0], [1, 1, 1]]


class Planted:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


def completion(name: str, reward: float | None, **changes: Any) -> Completion:
    """One completion of one token; `name` is "q/1" for an attempt, "q/1/2" for a correction."""
    parts = name.split("/")
    layer = len(parts) - 1
    parent = "/".join(parts[:-1])
    values: dict[str, Any] = {
        "id": CompletionId.named(name),
        "problem_id": parts[0],
        "domain": "default",
        "layer": layer,
        "parent_id": parent if layer > 1 else None,
        "group_key": parent,
        "prompt": [1, 2],
        "token_ids": [3],
        "rollout_logprobs": [-1.0],
        "finish_reason": "stop",
        "version_spans": ((0, 0),),
        "text": "",
        "prompt_text": "",
        "reward": None if reward is None else Reward(value=reward, correct=reward >= 1),
    }
    return Completion(**{**values, **changes})


def with_status(one: Completion, status: str) -> Completion:
    return dataclasses.replace(one, reward=Reward(value=0.0, status=status))


def attempts(rewards: list[float] | None = None) -> list[Completion]:
    values = ATTEMPT_REWARDS if rewards is None else rewards
    return [completion(f"q/{number}", reward) for number, reward in enumerate(values, start=1)]


def corrections(rewards: list[list[float]] | None = None) -> list[Completion]:
    return [
        completion(f"q/{parent}/{number}", reward)
        for parent, family in enumerate(rewards or CORRECTION_REWARDS, start=1)
        for number, reward in enumerate(family, start=1)
    ]


def long(name: str, reward: float | None, num_tokens: int, **changes: Any) -> Completion:
    """A completion of several tokens."""
    tokens = {"token_ids": [3] * num_tokens, "rollout_logprobs": [-1.0] * num_tokens}
    return completion(name, reward, **{**tokens, **changes})


def two_turns(
    name: str,
    reward: float,
    *,
    call: list[int],
    result: list[int],
    answer: list[int],
    prompt: Sequence[int] = (1, 2),
    **changes: Any,
) -> Completion:
    """An episode: a call of a tool, the result that was read, and an answer."""
    turns = [
        Turn(
            prompt=Prompt.of(read),
            token_ids=written,
            logprobs=[-4.0] * len(written),
            version_spans=((0, version),),
        )
        for version, (read, written) in enumerate([(prompt, call), (result, answer)])
    ]
    return completion(name, reward, **join_turns(turns), **changes)


def layer(**settings: Any) -> CorrectLayer:
    defaults = {"name": "correct", "group_size": 3, "max_completion_tokens": 8}
    return CorrectLayer(**{**defaults, **settings})


def solve_layer(**settings: Any) -> SolveLayer:
    defaults = {"name": "solve", "group_size": 4, "max_completion_tokens": 8}
    return SolveLayer(**{**defaults, **settings})


def plugin(use: str, *layers: int, **settings: Any) -> Any:
    """One of our plug-ins, on layers 1 and 2 unless others are named."""
    kind = find_plugin(use)
    return kind(kind.Settings.model_validate(settings), frozenset(layers or (1, 2)))


def run_config(
    *,
    layers: list[LayerConfig] | None = None,
    learner: dict[str, Any] | None = None,
    objective: dict[str, Any] | None = None,
    **sections: Any,
) -> RunConfig:
    """A recipe for the tiny model; one thread, a step that moves its weights visibly."""
    settings = {"learning_rate": 1e-2, "num_threads": 1, **(learner or {})}
    return RunConfig(
        name="test",
        steps=10,
        layers=layers or [solve_layer(), layer()],
        learner=settings,
        objective=objective or {},
        **{
            "prompts_per_step": 2,
            "model": {"path": "tiny", "dtype": "float32"},
            "data": {"train": {"source": "jsonl", "path": "none"}, "max_prompt_tokens": 8},
            **sections,
        },
    )


def save_tiny_llama(directory: Path, **changes: Any) -> Path:
    """A random Llama of 64 tokens, hidden size 32 and two layers, with an untied head."""
    torch.manual_seed(0)
    settings = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 64,
        "initializer_range": 0.2,
        "tie_word_embeddings": False,
    }
    LlamaForCausalLM(LlamaConfig(**{**settings, **changes})).save_pretrained(directory)
    (directory / "tokenizer.json").write_text('{"made_for": "the test"}')
    return directory


def random_completions(num_problems: int = 3, *, seed: int = 0) -> list[Completion]:
    """Attempts (4 per problem) and corrections (3 per attempt) of 1 to 7 random tokens.

    As in training, a group shares its prompt, and a correction's prompt begins with the
    problem's prompt and the attempt.
    """
    generator = torch.Generator().manual_seed(seed)

    def draw(count: int) -> list[int]:
        return torch.randint(1, 64, (count,), generator=generator).tolist()

    def sample(name: str, prompt: list[int]) -> Completion:
        length = int(torch.randint(1, 8, (1,), generator=generator))
        reward = float(torch.randint(0, 2, (1,), generator=generator))
        return completion(
            name,
            reward,
            prompt=prompt,
            token_ids=draw(length),
            rollout_logprobs=[-4.0] * length,
        )

    made = []
    for problem in range(num_problems):
        question = draw(3 + problem % 3)
        for number in range(1, 5):
            attempt = sample(f"p{problem}/{number}", question)
            made.append(attempt)
            review = question + attempt.token_ids.tolist() + draw(2)
            made += [sample(f"{attempt.completion_id}/{h}", review) for h in (1, 2, 3)]
    return made


def random_episodes(num_problems: int = 2, *, seed: int = 0) -> list[Completion]:
    """Attempts (4 per problem) of two turns, with a result of a tool between, of random tokens."""
    generator = torch.Generator().manual_seed(seed)

    def draw(most: int) -> list[int]:
        count = int(torch.randint(1, most + 1, (1,), generator=generator))
        return torch.randint(1, 64, (count,), generator=generator).tolist()

    made = []
    for problem in range(num_problems):
        question = draw(5)
        for number in range(1, 5):
            name, reward = f"p{problem}/{number}", float(number <= 2)
            parts = {"call": draw(5), "result": draw(4), "answer": draw(5)}
            made.append(two_turns(name, reward, prompt=question, **parts))
    return made
