from __future__ import annotations

import dataclasses
import random
from collections import Counter

import numpy as np
import pytest

from actors.layers import (
    choose_parents,
    correction_requests,
    draw_guidance,
    falls_back_to_problem,
    stable_seed,
)
from actors.templates import PromptBuilder
from mgrpo.config import CorrectLayer
from mgrpo.types import Completion, CompletionId, FinishReason, Problem, Reward
from tests.actors.byte_tokenizer import ByteTokenizer
from tests.actors.plugins.scripted_rollout import TOKENIZER, rollout, sampled

PROBLEM = Problem(problem_id="p", question="1+1?", answer="2")


def layer(**keys: object) -> CorrectLayer:
    return CorrectLayer.model_validate({"name": "correct", "group_size": 4, **keys})


def attempt(index: int, reward: Reward | None, finish: FinishReason = "stop") -> Completion:
    return Completion(
        id=CompletionId.named(f"s0p0#{index}"),
        problem_id="p",
        domain="d",
        layer=1,
        parent_id=None,
        group_key="s0p0",
        prompt=[1],
        token_ids=[65 + index, 256],
        rollout_logprobs=[-1.0, -1.0],
        finish_reason=finish,
        version_spans=((0, 0),),
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
    config = layer(parents={"type": "wrong_first", "k": 2})
    chosen = [ids(choose_parents(config, attempts, random.Random(seed))) for seed in range(20)]
    assert all(2 in parents and len(parents) == 2 for parents in chosen)


def test_best_takes_the_highest_reward() -> None:
    attempts = [attempt(i, r) for i, r in enumerate([WRONG, RIGHT, WRONG])]
    assert ids(choose_parents(layer(parents="best"), attempts, random.Random(3))) == [1]


def test_uniform_k_reaches_every_attempt() -> None:
    attempts = [attempt(i, WRONG) for i in range(3)]
    config = layer(parents="uniform_k")
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
        draw_guidance(
            layer(guidance={"draw": {"type": "fixed", "index": 3}}), random.Random(0), step=9
        )
        == [3] * 4
    )
    assert draw_guidance(layer(guidance={"draw": "schedule"}), random.Random(0), step=9) == [2] * 4
    weighted = layer(guidance={"draw": {"type": "weighted", "weights": [0, 0, 0, 0, 0, 1, 0]}})
    assert draw_guidance(weighted, random.Random(0), step=0) == [5] * 4


def test_equal_phrases_share_one_request_and_ids_run_on() -> None:
    builder = PromptBuilder(ByteTokenizer())
    requests = correction_requests(builder, layer(), PROBLEM, attempt(2, WRONG), [1, 0, 1, 1])
    assert [(r.guidance_id, r.num_samples, r.first_index) for r in requests] == [
        (1, 3, 0),
        (0, 1, 3),
    ]
    assert {r.group_key for r in requests} == {"s0p0#2"}


def test_a_correction_opens_with_its_own_phrase() -> None:
    builder, config = PromptBuilder(ByteTokenizer()), layer()
    requests = correction_requests(builder, config, PROBLEM, attempt(2, WRONG), [1, 0])
    for request in requests:
        assert request.guidance_id is not None
        phrase = config.guidance.phrases[request.guidance_id]
        text = TOKENIZER.decode(request.prompt.token_ids.tolist())
        assert phrase in text
        assert not any(other in text for other in config.guidance.phrases if other != phrase)


def test_seeds_are_stable_across_processes() -> None:
    assert stable_seed(0, "s1p2", 2) == 487551183  # sha256("0/s1p2/2"), first 4 bytes, halved
    assert 0 <= stable_seed("x") < 2**31


# --- the best attempt ---


def drafts(*rewards: float, lengths: tuple[int, ...] = (2, 2, 2, 2)) -> list[Completion]:
    made = []
    for index, (value, length) in enumerate(zip(rewards, lengths, strict=False)):
        one = attempt(index, Reward(value=value, correct=value >= 1))
        tokens = [65] * length
        made.append(dataclasses.replace(one, token_ids=tokens, rollout_logprobs=[-1.0] * length))
    return made


def best(attempts: list[Completion], seed: int = 0, **keys: object) -> list[int]:
    config = layer(parents={"type": "best", **keys})
    return ids(choose_parents(config, attempts, random.Random(seed)))


def test_of_equal_drafts_the_first_is_best() -> None:
    for seed in range(10):
        assert best(drafts(0, 1, 0, 1), seed, tie_break="first") == [1]


def test_of_equal_drafts_chance_decides_by_default() -> None:
    chosen = Counter(best(drafts(0, 1, 0, 1), seed)[0] for seed in range(60))
    assert set(chosen) == {1, 3} and min(chosen.values()) > 15
    assert best(drafts(0, 1, 0, 1), 5) == best(drafts(0, 1, 0, 1), 5)


def test_of_equal_drafts_the_shortest_or_the_likeliest_is_best() -> None:
    attempts = drafts(1, 1, 1, lengths=(5, 3, 3))
    assert best(attempts, tie_break="shortest") == [1]
    attempts[2] = dataclasses.replace(attempts[2], rollout_logprobs=[-0.2, -0.2, -0.2])
    assert best(attempts, tie_break="highest_logprob") == [2]  # per token, not in all


def test_the_highest_reward_comes_before_any_tie_break() -> None:
    attempts = drafts(0.5, 1, lengths=(1, 9))
    assert best(attempts, tie_break="shortest") == [1]
    assert best(attempts, tie_break="shortest", k=2) == [0, 1]


@pytest.mark.parametrize(
    ("all_fail", "parents", "falls_back"),
    [("use_any", [0], False), ("skip_query", [], False), ("plain_grpo_on_q", [], True)],
)
def test_where_every_draft_failed(all_fail: str, parents: list[int], falls_back: bool) -> None:
    attempts = drafts(0, 0, 0)
    config = layer(parents={"type": "best", "tie_break": "first", "all_fail": all_fail})
    assert ids(choose_parents(config, attempts, random.Random(0))) == parents
    assert falls_back_to_problem(config, attempts) is falls_back
    # One that is not quite nothing is refined whatever the setting.
    attempts = drafts(0, 0.1, 0)
    assert ids(choose_parents(config, attempts, random.Random(0))) == [1]
    assert not falls_back_to_problem(config, attempts)


def test_where_every_check_failed_nothing_is_known_of_the_drafts() -> None:
    config = layer(parents={"type": "best", "all_fail": "plain_grpo_on_q"})
    assert not falls_back_to_problem(config, [attempt(0, TIMEOUT), attempt(1, None)])
    assert not falls_back_to_problem(layer(parents="all"), drafts(0, 0))


def refined(all_fail: str) -> list[Completion]:
    """Four drafts, all wrong, and what the layer makes of them."""
    parts = rollout(lambda prompt, index: "so 8", [], group_sizes=(4, 4))
    refine = layer(
        name="refine", parents={"type": "best", "tie_break": "first", "all_fail": all_fail}
    )
    parts.layers = [parts.layers[0], refine]
    return sampled(parts)


def test_a_query_may_be_skipped_where_every_draft_failed() -> None:
    assert {one.layer for one in refined("skip_query")} == {1}


def test_or_any_draft_be_refined() -> None:
    completions = refined("use_any")
    assert {one.parent_id for one in completions if one.layer == 2} == {"s0p0#0"}


def test_or_the_bare_problem_be_answered_again_as_a_group_of_its_own() -> None:
    completions = refined("plain_grpo_on_q")
    first, again = completions[:4], completions[4:]
    assert {one.layer for one in again} == {2} and len(again) == 4
    assert all(np.array_equal(one.prompt_token_ids, first[0].prompt_token_ids) for one in again)
    assert {(one.parent_id, one.guidance_id) for one in again} == {(None, None)}
    assert {one.group_key for one in again}.isdisjoint({one.group_key for one in first})
    assert {one.id.tree for one in again} == {CompletionId(0, 0)}
    assert len({one.completion_id for one in completions}) == 8
