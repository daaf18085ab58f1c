"""What `mgrpo check --sample` says of completions."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from mgrpo.commands.check_sample import Sampled, conclusions, sampled_json, show_sampled, smaller
from mgrpo.config.layers import CorrectLayer, SolveLayer
from mgrpo.types import Completion, CompletionId, Problem, Reward

LAYERS = [SolveLayer(name="solve", group_size=8), CorrectLayer(name="correct", group_size=4)]
PROBLEM = Problem(problem_id="p", question="What is [3] + 4?", answer="7")


def completion(*path: int, value: float = 0.0, finish: str = "stop") -> Completion:
    place = CompletionId(0, 0, path)
    return Completion(
        id=place,
        problem_id="p",
        domain="default",
        layer=len(path),
        parent_id=str(place.parent) if len(path) > 1 else None,
        group_key=str(place.parent),
        prompt=[1],
        token_ids=[1, 2],
        rollout_logprobs=[-0.5, -0.5],
        finish_reason=finish,
        version_spans=((0, 0),),
        text=f"It is {path}.",
        prompt_text="",
        reward=Reward(value=value, correct=value == 1, detail="because"),
    )


def sampled(*completions: Completion) -> Sampled:
    prompts = {1: "<|im_start|>user What is [3] + 4?", 2: "<|im_start|>review"}
    return Sampled(layers=LAYERS, problems=[PROBLEM], completions=completions, prompts=prompts)


def test_prompts_and_completions_are_shown_with_their_rewards() -> None:
    console = Console(file=io.StringIO(), width=100)
    show_sampled(console, sampled(completion(0, value=1.0), completion(1), completion(0, 0)))
    lines = console.file.getvalue().splitlines()
    assert "<|im_start|>user What is [3] + 4?" in lines
    assert "reference: 7" in lines
    summaries = [line.strip() for line in lines if "reward" in line and "tokens" in line]
    assert summaries == [  # a correction stands below its attempt
        "layer 1 · right, reward 1 · 2 tokens · stop · because",
        "layer 2 · wrong, reward 0 · 2 tokens · stop · because",
        "layer 1 · wrong, reward 0 · 2 tokens · stop · because",
    ]


def test_groups_whose_rewards_differ_can_teach() -> None:
    first, second = conclusions(sampled(completion(0, value=1.0), completion(1)))
    assert first == (
        "layer 1 (solve): 50% of 2 right, 0% truncated; rewards differ in 1 of 1 groups, "
        "which can teach"
    )
    assert second == "layer 2 (correct): nothing was sampled"


@pytest.mark.parametrize(("finish", "expected"), [("stop", "easier"), ("length", "ran out of")])
def test_equal_rewards_get_advice(finish: str, expected: str) -> None:
    found = [completion(0, finish=finish), completion(1, finish=finish)]
    last = conclusions(sampled(*found))[-1]
    assert last.startswith("Nothing could be learnt here; training has groups of 8.")
    assert expected in last


def test_json_has_the_same() -> None:
    shown = sampled_json(sampled(replace(completion(0), reward=None)))
    assert shown["prompts"]["solve"].startswith("<|im_start|>")
    one = shown["completions"][0]
    assert (one["problem"], one["reference"], one["reward"]) == ("What is [3] + 4?", "7", None)


def test_few_completions_of_a_prompt_are_sampled() -> None:
    layers = [
        smaller(SolveLayer(name="solve", group_size=64, over_sample=8)),
        smaller(CorrectLayer(name="correct", group_size=3, early_stop="agreement")),
    ]
    assert [(layer.group_size, layer.over_sample) for layer in layers] == [(4, 0), (2, 0)]
    assert layers[1].early_stop.type == "never"
