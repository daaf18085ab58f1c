"""EDGE-GRPO's repairs, token by token."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.rollout import Rollout
from learner.batch import build_batch
from mgrpo.config import ObjectiveConfig
from mgrpo.types import Completion, CompletionId, Problem, Reward
from tests.actors.byte_tokenizer import END
from tests.actors.plugins.scripted_rollout import PROBLEM, TOKENIZER, plugin, rollout, sampled
from tests.learner.builders import solve_layer

ALWAYS = {"continued": (1, 0, 0), "answer_injected": (0, 1, 0), "solution_replaced": (0, 0, 1)}
STOP = "\nNo.\n"


def script(prompt: str, index: int) -> str:
    """Sample 0 is right, the others are wrong until they are told."""
    return "so 7" if STOP in prompt else "it is 7" if index == 0 else "it is 8"


def repairing(branch: str = "continued", **settings: Any) -> Any:
    wording = {"interjection": "No.", "answer_sentence": "It is \\boxed{{answer}}."}
    return plugin("guided_error_correction", **{"probs": ALWAYS[branch], **wording, **settings})


def repaired(branch: str, problem: Problem = PROBLEM, **settings: Any) -> list[Completion]:
    return sampled(rollout(script, [repairing(branch, **settings)]), problem)


def encoded(text: str) -> list[int]:
    return TOKENIZER.encode(text)


@pytest.mark.parametrize("branch", ALWAYS)
def test_right_completions_are_left_as_they_were(branch: str) -> None:
    first = repaired(branch)[0]
    assert first.text == "it is 7" and first.augmented_by == ""
    assert first.sampled_mask is None and first.train_mask is None


def test_a_continuation_follows_the_attempt_and_the_interjection() -> None:
    parts = rollout(script, [repairing("continued")])
    one = sampled(parts)[1]
    kept, injected, new = encoded("it is 8"), encoded(STOP), [*encoded("so 7"), END]
    assert one.token_ids.tolist() == kept + injected + new  # the attempt's end of turn is gone
    mask = [*[True] * 7, *[False] * 5, *[True] * 5]
    assert one.sampled_mask.tolist() == mask
    # Right by what came after the attempt.
    assert one.train_mask.tolist() == [*[False] * 12, *[True] * 5]
    assert one.rollout_logprobs.tolist() == [*[-0.5] * 7, *[0.0] * 5, *[-0.5] * 5]
    assert one.text == "it is 8\nNo.\nso 7"
    assert one.finish_reason == "stop" and one.augmented_by == "continued"
    assert one.is_correct and one.num_trained_tokens == 5
    engine: Any = parts.engines.by_layer[1][0]
    assert engine.prompts[1] == one.prompt_token_ids.tolist() + kept + injected


def test_a_continuation_that_runs_out_of_tokens_says_so() -> None:
    one = repaired("continued", max_new_tokens=2)[1]
    assert one.text == "it is 8\nNo.\nso" and one.finish_reason == "length"
    assert not one.is_correct
    assert one.train_mask is one.sampled_mask
    assert one.sampled_mask.tolist() == [*[True] * 7, *[False] * 5, True, True]


def test_the_answer_is_appended_before_the_end_of_turn() -> None:
    one = repaired("answer_injected")[1]
    assert one.text == "it is 8\nNo. It is \\boxed{7}."
    kept = encoded("it is 8")
    assert one.token_ids.tolist() == [*encoded(one.text), END]
    assert one.sampled_mask.tolist() == [
        *[True] * len(kept),
        *[False] * (len(one.token_ids) - len(kept)),
    ]
    assert one.rollout_logprobs[len(kept) :].tolist() == [0.0] * (len(one.token_ids) - len(kept))
    assert one.is_correct and one.augmented_by == "answer_injected"
    assert one.num_trained_tokens == 0  # the attempt was wrong, and nothing else is the policy's


def test_a_truncated_attempt_is_ended_by_hand() -> None:
    parts = rollout(script, [repairing("answer_injected")], max_completion_tokens=5)
    one = sampled(parts)[1]
    assert one.text == "it is\nNo. It is \\boxed{7}." and one.token_ids[-1] == END
    assert one.finish_reason == "stop"


def test_the_reference_solution_takes_the_place_of_everything() -> None:
    one = repaired("solution_replaced")[1]
    assert one.text == PROBLEM.solution and one.token_ids.tolist() == [
        *encoded(PROBLEM.solution),
        END,
    ]
    assert one.sampled_mask.tolist() == [False] * len(one.token_ids)
    assert one.num_trained_tokens == 0
    assert one.is_correct and one.augmented_by == "solution_replaced"


def test_without_a_reference_solution_nothing_is_done_or_the_answer_appended() -> None:
    bare = replace(PROBLEM, solution="")
    left = repaired("solution_replaced", bare)[1]
    assert left.augmented_by == "" and left.text == "it is 8" and left.train_mask is None
    found = repaired("solution_replaced", bare, missing_solution="inject_answer")[1]
    assert found.augmented_by == "answer_injected"


def test_only_what_changed_is_checked_again() -> None:
    parts = rollout(script, [repairing("answer_injected")])
    sampled(parts)
    scorer: Any = parts.scorer
    assert len(scorer.scored) == 4 + 3


@pytest.mark.parametrize("offpolicy", ["ratio_one", "recompute_logprob_as_old"])
def test_all_of_a_repaired_completion_trains_where_the_recipe_says_so(offpolicy: str) -> None:
    one = repaired("answer_injected", offpolicy=offpolicy)[1]
    assert one.train_mask is None and one.num_trained_tokens == len(one.token_ids)
    assert one.sampled_mask is not None and not all(one.sampled_mask)


def test_as_a_target_what_was_put_in_trains_without_the_wrong_attempt() -> None:
    one = repaired("answer_injected", offpolicy="sft_loss")[1]
    assert one.sampled_mask is not None
    assert one.train_mask.tolist() == [not is_sampled for is_sampled in one.sampled_mask]
    going_on = repaired("continued", offpolicy="sft_loss")[1]
    assert going_on.train_mask.tolist() == [*[False] * 7, *[True] * 10]


# --- what eight wrong attempts learn, when the answer is put into four of them ---


def pushes(offpolicy: str) -> dict[str, float]:
    """Advantage x weight, summed over the tokens of each kind."""
    part = repairing("answer_injected", offpolicy=offpolicy)
    kept = TOKENIZER.encode("it is 8")
    group = [
        wrong(0, id=CompletionId.named(f"p#{place}"), group_key="p", text="it is 8")
        for place in range(8)
    ]
    group = [
        replace(one, token_ids=[*kept, END], rollout_logprobs=[-1.0] * (len(kept) + 1))
        for one in group
    ]
    tools = rollout(script, [part])
    mended = asyncio.run(part.after_sampling(tools, 1, PROBLEM, group[:4]))
    solve = solve_layer(group_size=8, advantage={"epsilon": 0})
    rows = build_batch([*mended, *group[4:]], [solve], ObjectiveConfig()).all_rows
    found = {"wrong attempts, repaired": 0.0, "put in": 0.0, "wrong attempts, not repaired": 0.0}
    for place, row in enumerate(rows):
        is_mended = place < 4
        for token, (a, w) in enumerate(zip(row.advantages, row.token_weights, strict=True)):
            kind = (
                "wrong attempts, not repaired"
                if not is_mended
                else "wrong attempts, repaired"
                if token < len(kept)
                else "put in"
            )
            found[kind] += a * w
    return found


def test_the_reward_of_an_answer_that_was_put_in_does_not_push_the_wrong_attempt() -> None:
    """Rewards 1 1 1 1 0 0 0 0: advantages 0.5 / 0.534522 = 0.935414 and its negative, each row
    an eighth."""
    assert pushes("mask_injected") == pytest.approx(
        {
            "wrong attempts, repaired": 0.0,
            "put in": 0.0,
            "wrong attempts, not repaired": -4 * 0.935414 / 8,
        },
        abs=1e-6,
    )


def test_in_the_authors_form_it_does() -> None:
    """Of the 29 tokens of a repaired row 7 are the attempt's."""
    assert pushes("ratio_one") == pytest.approx(
        {
            "wrong attempts, repaired": 0.467707 * 7 / 29,
            "put in": 0.467707 * 22 / 29,
            "wrong attempts, not repaired": -0.467707,
        },
        abs=1e-6,
    )


def test_as_a_target_only_what_was_put_in_is_pushed_up() -> None:
    found = pushes("sft_loss")  # supervised_injections gives these tokens an advantage of its own
    assert found["wrong attempts, repaired"] == 0.0
    assert found["put in"] == pytest.approx(0.467707, abs=1e-6)


def test_long_prompts_are_left_alone() -> None:
    length = len(repaired("continued")[0].prompt_token_ids)
    assert repaired("continued", max_prompt_tokens=length)[1].augmented_by == "continued"
    assert repaired("continued", max_prompt_tokens=length - 1)[1].augmented_by == ""


def test_the_second_layer_corrects_what_was_repaired() -> None:
    parts = rollout(script, [repairing("answer_injected")], group_sizes=(2, 2))
    completions = sampled(parts)
    child = next(one for one in completions if one.parent_id == completions[1].completion_id)
    assert "\\boxed{7}" in TOKENIZER.decode(child.prompt_token_ids)
    assert child.augmented_by == ""  # the plug-in works on layer 1


@given(
    seed=st.integers(0, 10_000),
    probs=st.sampled_from([(1, 0, 0), (0, 1, 0), (0, 0, 1), (0.5, 0.25, 0.25)]),
    room=st.integers(1, 8),
)
@settings(max_examples=30, deadline=None)
def test_no_attempt_trains_on_a_reward_that_it_has_not_earned(
    seed: int, probs: tuple[float, float, float], room: int
) -> None:
    """Whatever the branch and wherever a continuation is cut off."""
    group = [wrong(number) for number in range(6)]
    for before, one in zip(
        group, after(group, seed=seed, probs=probs, max_new_tokens=room), strict=True
    ):
        if one.augmented_by == "":
            assert one == before
            continue
        assert (
            one.sampled_mask is not None and one.train_mask is not None and one.reward is not None
        )
        kept = one.sampled_mask.tolist().index(False)
        earned = before.reward is not None and one.reward.value <= before.reward.value
        assert one.train_mask[:kept].tolist() == [earned] * kept
        assert np.array_equal(one.train_mask[kept:], one.sampled_mask[kept:])


# --- chances ---


def wrong(number: int, **changes: Any) -> Completion:
    values: dict[str, Any] = {
        "id": CompletionId.named(f"s0p{number}#0"),
        "problem_id": "p",
        "domain": "d",
        "layer": 1,
        "parent_id": None,
        "group_key": f"s0p{number}",
        "prompt": [65],
        "token_ids": [66, END],
        "rollout_logprobs": [-1.0, -1.0],
        "finish_reason": "stop",
        "version_spans": ((0, 3),),
        "text": "B",
        "prompt_text": "",
        "reward": Reward(value=0.0),
    }
    return Completion(**{**values, **changes})


def after(
    completions: list[Completion], *, tools: Rollout | None = None, seed: int = 0, **settings: Any
) -> list[Completion]:
    part = plugin("guided_error_correction", **settings)
    tools = tools or rollout(script, [part], seed=seed)
    found: list[Completion] = asyncio.run(part.after_sampling(tools, 1, PROBLEM, completions))
    return found


def test_branches_are_drawn_with_their_chances_and_right_samples_untouched() -> None:
    right = [
        wrong(number, reward=Reward(value=1.0, correct=True)) for number in range(10_000, 11_000)
    ]
    found = after([*(wrong(number) for number in range(10_000)), *right])
    shares = Counter(one.augmented_by for one in found[:10_000])
    expected = {"continued": 5000, "answer_injected": 2500, "solution_replaced": 2500}
    assert shares.keys() == expected.keys()
    assert all(abs(shares[branch] - expected[branch]) < 150 for branch in expected)
    assert found[10_000:] == right


def test_the_seed_and_the_place_decide_the_branch() -> None:
    group = [wrong(number) for number in range(40)]
    first, again, other = (after(group, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert [one.augmented_by for one in first] != [one.augmented_by for one in other]
    alone = after(group[7:8], seed=1)
    assert alone == first[7:8]


def test_two_of_a_group_are_repaired_on_average() -> None:
    groups = [[wrong(8 * group + place) for place in range(8)] for group in range(500)]
    counts = [
        sum(one.augmented_by != "" for one in after(group, intervene_rate="2/G"))
        for group in groups
    ]
    assert 1.85 < sum(counts) / 500 < 2.15


def test_a_rate_of_nothing_repairs_nothing() -> None:
    group = [wrong(number) for number in range(5)]
    assert after(group, intervene_rate=0.0) == group


def test_what_is_short_of_the_full_reward_is_repaired_where_the_recipe_says_so() -> None:
    badly_formed = wrong(0, reward=Reward(value=1.0, correct=True))
    assert after([badly_formed]) == [badly_formed]
    found = after([badly_formed], trigger="reward_below_full", full_reward=2.0)
    assert found[0].augmented_by != ""


@pytest.mark.parametrize("reward", [None, Reward(value=0.0, status="timeout")])
def test_where_the_check_failed_nothing_is_known_and_nothing_repaired(
    reward: Reward | None,
) -> None:
    group = [wrong(0, reward=reward)]
    assert after(group) == group


def test_a_continuation_says_which_version_wrote_which_token() -> None:
    (found,) = after([wrong(0)], probs=(1, 0, 0))
    first_sampled = len(found.token_ids) - int(found.sampled_mask[::-1].argmin())
    assert found.version_spans == ((0, 3), (first_sampled, 0))  # the engine is of version 0
    (found,) = after([wrong(0)], probs=(0, 1, 0))
    assert found.oldest_version == 3


def test_it_asks_for_room_for_what_it_adds() -> None:
    part = plugin("guided_error_correction", max_new_tokens=64)
    (found,) = after([wrong(0)], probs=(0, 1, 0))
    assert part.extra_tokens() >= 64 + len(found.token_ids) - 2
