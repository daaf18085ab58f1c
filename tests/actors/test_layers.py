from __future__ import annotations

import random
from collections import Counter

from actors.layers import choose_parents, correction_requests, draw_guidance, stable_seed
from actors.templates import PromptBuilder
from mgrpo.config import LayerConfig
from mgrpo.types import Completion, FinishReason, Problem, Reward
from tests.actors.byte_tokenizer import ByteTokenizer

PROBLEM = Problem(problem_id="p", question="1+1?", answer="2")


def layer(**keys: object) -> LayerConfig:
    return LayerConfig.model_validate({"name": "correct", "group_size": 4, **keys})


def attempt(index: int, reward: Reward | None, finish: FinishReason = "stop") -> Completion:
    return Completion(
        completion_id=f"s0p0#{index}",
        problem_id="p",
        domain="d",
        layer=1,
        parent_id=None,
        group_key="s0p0",
        prompt_token_ids=[1],
        token_ids=[65 + index, 256],
        rollout_logprobs=[-1.0, -1.0],
        finish_reason=finish,
        policy_version=0,
        text="",
        prompt_text="",
        reward=reward,
    )


RIGHT = Reward(value=1.0, correct=True)
WRONG = Reward(value=0.0)
UNPARSABLE = Reward(value=0.0, status="unparsable")
TIMEOUT = Reward(value=0.0, status="timeout")


def ids(parents: list[Completion]) -> list[int]:
    return sorted(int(parent.completion_id.split("#")[1]) for parent in parents)


def test_every_usable_attempt_is_a_parent_by_default() -> None:
    attempts = [attempt(i, r) for i, r in enumerate([RIGHT, WRONG, UNPARSABLE, TIMEOUT, None])]
    assert ids(choose_parents(layer(), attempts, random.Random(0))) == [0, 1, 2]


def test_wrong_only_leaves_right_attempts_out() -> None:
    attempts = [attempt(i, r) for i, r in enumerate([RIGHT, WRONG, UNPARSABLE])]
    assert ids(choose_parents(layer(parents="wrong_only"), attempts, random.Random(0))) == [1, 2]


def test_wrong_first_prefers_wrong_attempts() -> None:
    attempts = [attempt(i, r) for i, r in enumerate([RIGHT, RIGHT, WRONG])]
    config = layer(parents="wrong_first", parents_k=2)
    chosen = [ids(choose_parents(config, attempts, random.Random(seed))) for seed in range(20)]
    assert all(2 in parents and len(parents) == 2 for parents in chosen)


def test_best_takes_the_highest_reward() -> None:
    attempts = [attempt(i, r) for i, r in enumerate([WRONG, RIGHT, WRONG])]
    assert ids(choose_parents(layer(parents="best"), attempts, random.Random(3))) == [1]


def test_uniform_k_reaches_every_attempt() -> None:
    attempts = [attempt(i, WRONG) for i in range(3)]
    config = layer(parents="uniform_k", parents_k=1)
    chosen = {ids(choose_parents(config, attempts, random.Random(seed)))[0] for seed in range(40)}
    assert chosen == {0, 1, 2}


def test_truncated_attempts_are_skipped_unless_asked_for() -> None:
    attempts = [attempt(0, WRONG, "length"), attempt(1, WRONG)]
    assert ids(choose_parents(layer(), attempts, random.Random(0))) == [1]
    config = layer(skip_truncated_parents=False)
    assert ids(choose_parents(config, attempts, random.Random(0))) == [0, 1]


def test_one_phrase_per_parent_by_default() -> None:
    drawn = [draw_guidance(layer(), random.Random(seed), step=0) for seed in range(200)]
    assert all(len(set(phrases)) == 1 and len(phrases) == 4 for phrases in drawn)
    counts = Counter(phrases[0] for phrases in drawn)
    assert set(counts) == set(range(7)) and min(counts.values()) > 10  # uniform: 28 each


def test_per_correction_draws_each_phrase_anew() -> None:
    config = layer(guidance={"draw": "per_correction"})
    assert len(set(draw_guidance(config, random.Random(1), step=0))) > 1


def test_fixed_schedule_and_weighted_draws() -> None:
    assert (
        draw_guidance(layer(guidance={"draw": "fixed", "fixed_index": 3}), random.Random(0), step=9)
        == [3] * 4
    )
    assert draw_guidance(layer(guidance={"draw": "schedule"}), random.Random(0), step=9) == [2] * 4
    weighted = layer(guidance={"draw": "weighted", "weights": [0, 0, 0, 0, 0, 1, 0]})
    assert draw_guidance(weighted, random.Random(0), step=0) == [5] * 4


def test_equal_phrases_share_one_request_and_ids_run_on() -> None:
    builder = PromptBuilder(ByteTokenizer())
    requests = correction_requests(builder, layer(), PROBLEM, attempt(2, WRONG), [1, 0, 1, 1])
    assert [(r.guidance_id, r.num_samples, r.first_index) for r in requests] == [
        (1, 3, 0),
        (0, 1, 3),
    ]
    assert {r.group_key for r in requests} == {"s0p0#2"}


def test_seeds_are_stable_across_processes() -> None:
    assert stable_seed(0, "s1p2", 2) == 487551183  # sha256("0/s1p2/2"), first 4 bytes, halved
    assert 0 <= stable_seed("x") < 2**31
