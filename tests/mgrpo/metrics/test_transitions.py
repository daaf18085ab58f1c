from __future__ import annotations

import random

import pytest

from mgrpo.metric_sums import MetricSums
from mgrpo.metrics.transitions import (
    count_transitions,
    is_usable,
    pairs_of,
    rollout_metrics,
    whole_chain_pairs,
)
from mgrpo.types import EARLIER_STEP, Completion, CompletionId, Reward


def completion(layer: int, key: str, parent: str | None, right: bool, **keys: object) -> Completion:
    reward = Reward(value=float(right), correct=right, extracted_answer="7" if right else "8")
    return Completion(
        id=CompletionId.named(key),
        problem_id="p",
        layer=layer,
        parent_id=parent,
        group_key=parent or "p",
        prompt=[1, 2],
        token_ids=[3, 4, 5],
        rollout_logprobs=[0.0] * 3,
        version_spans=((0, 0),),
        text="",
        prompt_text="",
        **{"domain": "d", "finish_reason": "stop", "reward": reward, **keys},
    )


def tree(first: list[int], second: list[list[int]]) -> list[Completion]:
    """Attempts and their corrections from 0/1 rewards."""
    completions = [completion(1, f"p#{i}", None, bool(r)) for i, r in enumerate(first)]
    for i, rewards in enumerate(second):
        completions += [
            completion(2, f"p#{i}.{j}", f"p#{i}", bool(r)) for j, r in enumerate(rewards)
        ]
    return completions


def test_the_twelve_pairs_of_the_reference() -> None:
    completions = tree([1, 0, 0, 1], [[1, 1, 0], [1, 0, 0], [0, 0, 0], [1, 1, 1]])
    counts = count_transitions(pairs_of(completions, 2))
    assert (counts.wrong_to_right, counts.right_to_wrong) == (1, 1)
    assert (counts.right_to_right, counts.wrong_to_wrong) == (5, 5)
    assert counts.delta == 0


def test_the_eight_problems_of_the_reference() -> None:
    first, second = [1, 1, 1, 0, 0, 0, 1, 0], [1, 1, 0, 1, 1, 0, 1, 0]
    counts = count_transitions(pairs_of(tree(first, [[r] for r in second]), 2))
    shares = counts.fractions()
    assert shares["wrong_to_right"] == 0.25
    assert shares["right_to_wrong"] == 0.125
    assert counts.delta == sum(second) / 8 - sum(first) / 8 == 0.125


def test_the_identity_holds_over_any_pairs() -> None:
    completions = tree([1, 0, 1], [[0, 1], [1, 1], [1, 0]])
    counts = count_transitions(pairs_of(completions, 2))
    shares = counts.fractions()
    assert counts.delta == pytest.approx(shares["wrong_to_right"] - shares["right_to_wrong"])


def test_a_failed_check_leaves_its_pairs_out() -> None:
    completions = tree([1, 0], [[1], [1]])
    completions[0] = completion(1, "p#0", None, False, reward=Reward(value=0.0, status="timeout"))
    counts = count_transitions(pairs_of(completions, 2))
    assert counts.num_pairs == 1 and counts.wrong_to_right == 1
    sums = rollout_metrics(completions, 2)
    assert sums["layer1/accuracy"] == (0, 1)
    assert sums["rewards/timeout"] == (1, 4)


def test_copies_are_equal_final_answers() -> None:
    counts = count_transitions(pairs_of(tree([1, 0], [[1, 0], [0, 1]]), 2))
    assert counts.num_copies == 2


def test_metrics_are_sums_and_counts() -> None:
    sums = rollout_metrics(tree([1, 0], [[1, 0], [0, 1]]), 2)
    assert sums["layer1/accuracy"] == (1, 2)
    assert sums["layer2/accuracy"] == (2, 4)
    assert sums["layer2/completion_tokens_mean"] == (12, 4)
    assert sums["transition/layer2/wrong_to_right"] == (1, 4)
    assert sums["tokens/generated"] == (18, 1)


def test_the_unequal_groups_of_the_reference_in_metrics() -> None:
    completions = tree([1, 0, 0, 1], [[1, 1, 0], [1, 0, 0], [0, 0, 0], [1, 1, 1]])
    sums = rollout_metrics(completions, 2)
    name = "transition/layer2"
    assert (
        sums[f"{name}/wrong_to_right"] == (1, 12) and sums[f"{name}/wrong_to_right_count"][0] == 1
    )
    assert (
        sums[f"{name}/right_to_wrong"] == (1, 12) and sums[f"{name}/right_to_wrong_count"][0] == 1
    )
    assert sums[f"{name}/accuracy_before"] == sums[f"{name}/accuracy_after"] == (6, 12)
    assert sums[f"{name}/delta"] == (0, 12)
    assert sums[f"{name}/confirmed_fraction"] == (5, 6)
    assert sums[f"{name}/repaired_fraction"] == (1, 6)
    assert sums[f"{name}/pairs"] == (12, 1)


def test_the_eight_problems_of_the_reference_in_metrics() -> None:
    first, second = [1, 1, 1, 0, 0, 0, 1, 0], [1, 1, 0, 1, 1, 0, 1, 0]
    means = MetricSums(rollout_metrics(tree(first, [[r] for r in second]), 2)).means()
    assert means["layer1/accuracy"] == means["transition/layer2/accuracy_before"] == 0.5
    assert means["layer2/accuracy"] == means["transition/layer2/accuracy_after"] == 0.625
    assert means["transition/layer2/delta"] == 0.125
    assert means["transition/layer2/wrong_to_right"] == 0.25
    assert means["transition/layer2/right_to_wrong"] == 0.125


def random_chain(draw: random.Random, num_layers: int) -> list[Completion]:
    """A few problems of two domains, with uneven numbers of children and some failed checks."""
    completions: list[Completion] = []
    for number in range(draw.randint(1, 5)):
        domain = draw.choice(["sums", "legs"])
        parents: list[Completion | None] = [None]
        for layer in range(1, num_layers + 1):
            children = []
            for parent in parents:
                for child in range(draw.randint(0, 3)):
                    key = f"{parent.completion_id}.{child}" if parent else f"p{number}#{child}"
                    status = draw.choice(["scored", "scored", "scored", "unparsable", "timeout"])
                    right = status == "scored" and draw.random() < 0.5
                    answer = str(draw.randint(0, 2)) if status == "scored" else None
                    children.append(
                        completion(
                            layer,
                            key,
                            parent.completion_id if parent else None,
                            right,
                            domain=domain,
                            finish_reason=draw.choice(["stop", "length"]),
                            reward=Reward(
                                value=float(right),
                                status=status,
                                correct=right,
                                extracted_answer=answer,
                            ),
                        )
                    )
            completions += children
            parents = list(children)
    draw.shuffle(completions)
    return completions


def test_gains_minus_losses_is_the_difference_in_right_answers_over_random_trees() -> None:
    draw = random.Random(20260)
    num_pairs_seen = 0
    for _ in range(200):
        completions = random_chain(draw, 3)
        for pairs in (
            pairs_of(completions, 2),
            pairs_of(completions, 3),
            whole_chain_pairs(completions, 3),
        ):
            usable = [(a, c) for a, c in pairs if is_usable(a) and is_usable(c)]
            before = sum(attempt.is_correct for attempt, _ in usable)
            after = sum(correction.is_correct for _, correction in usable)
            counts = count_transitions(pairs)
            assert counts.num_pairs == len(usable)
            assert after - before == counts.wrong_to_right - counts.right_to_wrong
            assert (counts.num_right_before, counts.num_right_after) == (before, after)
            num_pairs_seen += len(usable)
    assert num_pairs_seen > 1000


def test_the_domains_of_a_step_add_up_to_the_step() -> None:
    draw = random.Random(7)
    whole_steps = 0
    for _ in range(50):
        completions = random_chain(draw, 3)
        sums = rollout_metrics(completions, 3)
        if len({c.domain for c in completions}) < 2:
            assert not any("/domain/" in name for name in sums)
            continue
        whole_steps += 1
        for name, (total, count) in sums.items():
            place, _, metric = name.rpartition("/")
            parts = [sums.get(f"{place}/domain/{d}/{metric}") for d in ("legs", "sums")]
            known = [part for part in parts if part is not None]
            if "/domain/" in name or len(known) < 2:
                continue
            totals, counts = zip(*known, strict=True)
            assert sum(totals) == total, name
            if count != 1:
                assert sum(counts) == count, name
    assert whole_steps > 10


def test_each_domain_has_its_own_numbers() -> None:
    completions = [
        completion(1, "a", None, True, domain="sums"),
        completion(1, "b", None, False, domain="legs"),
        completion(2, "a.0", "a", False, domain="sums"),
        completion(2, "b.0", "b", True, domain="legs"),
        completion(2, "b.1", "b", False, domain="legs"),
    ]
    sums = rollout_metrics(completions, 2)
    assert sums["layer1/domain/sums/accuracy"] == (1, 1)
    assert sums["layer2/domain/legs/accuracy"] == (1, 2)
    assert sums["transition/layer2/domain/legs/wrong_to_right"] == (1, 2)
    assert sums["transition/layer2/domain/legs/copy_fraction_of_wrong"] == (1, 2)
    assert sums["transition/layer2/domain/sums/delta"] == (-1, 1)
    assert sums["transition/layer2/delta"] == (0, 3)


def test_three_layers_have_the_way_from_the_first_attempt_to_the_last_layer() -> None:
    completions = [
        completion(1, "a", None, False),
        completion(1, "b", None, True),
        completion(2, "a.0", "a", True),
        completion(2, "b.0", "b", True),
        completion(3, "a.0.0", "a.0", True),
        completion(3, "a.0.1", "a.0", False),
        completion(3, "b.0.0", "b.0", False),
    ]
    sums = rollout_metrics(completions, 3)
    assert sums["transition/layer3/right_to_wrong"] == (2, 3)
    assert sums["transition/all/wrong_to_right"] == (1, 3)
    assert sums["transition/all/right_to_wrong"] == (1, 3)
    assert sums["transition/all/wrong_to_wrong"] == (1, 3)
    assert sums["transition/all/delta"] == (0, 3)
    assert sums["transition/all/copy_fraction"] == (1, 3)  # a wrong, right, wrong again: the 8
    assert "transition/all/delta" not in rollout_metrics(completions[:4], 2)


def test_a_check_that_fails_between_the_ends_does_not_hide_the_whole_way() -> None:
    timeout = Reward(value=0.0, status="timeout")
    completions = [
        completion(1, "a", None, False),
        completion(2, "a.0", "a", False, reward=timeout),
        completion(3, "a.0.0", "a.0", True),
    ]
    sums = rollout_metrics(completions, 3)
    assert sums["transition/layer3/wrong_to_right"] == (0, 0)
    assert sums["transition/all/wrong_to_right"] == (1, 1)


def test_a_line_of_parents_that_breaks_off_is_left_out() -> None:
    completions = [completion(2, "a.0", "a", True), completion(3, "a.0.0", "a.0", True)]
    assert whole_chain_pairs(completions, 3) == []
    assert len(pairs_of(completions, 3)) == 1


def test_two_completions_without_an_answer_copy_nothing() -> None:
    none = Reward(value=0.0, status="unparsable")
    completions = [
        completion(1, "a", None, False, reward=none),
        completion(2, "a.0", "a", False, reward=none),
        completion(2, "a.1", "a", False),
    ]
    sums = rollout_metrics(completions, 2)
    assert sums["transition/layer2/copy_fraction"] == (0, 2)
    assert sums["transition/layer2/copy_fraction_of_wrong"] == (0, 2)


def test_where_checks_read_no_answers_there_is_no_copy_rate() -> None:
    silent = Reward(value=0.0, status="scored")  # a check of one's own that returns a number
    completions = [
        completion(1, "a", None, False, reward=silent),
        completion(2, "a.0", "a", False, reward=silent),
    ]
    means = MetricSums(rollout_metrics(completions, 2)).means()
    assert means["transition/layer2/wrong_to_wrong"] == 1
    assert "transition/layer2/copy_fraction" not in means
    assert "transition/layer2/copy_fraction_of_wrong" not in means


def test_copies_of_wrong_attempts_are_counted_apart() -> None:
    sums = rollout_metrics(tree([1, 0], [[1, 0], [0, 1]]), 2)
    assert sums["transition/layer2/copy_fraction"] == (2, 4)
    assert sums["transition/layer2/copy_fraction_of_wrong"] == (1, 2)


def test_corrections_of_truncated_attempts_are_a_share_of_the_pairs() -> None:
    completions = tree([1, 0], [[1, 0], [0]])
    completions[1] = completion(1, "p#1", None, False, finish_reason="length")
    sums = rollout_metrics(completions, 2)
    assert sums["transition/layer2/truncated_parents_fraction"] == (1, 3)
    assert sums["layer1/truncated_fraction"] == (1, 2)


def test_attempts_out_of_the_error_pool_are_parents_and_nothing_else() -> None:
    pooled = completion(1, "p#0", None, False, augmented_by=EARLIER_STEP)
    corrections = [completion(2, f"p#0.{j}", "p#0", bool(r)) for j, r in enumerate([1, 0])]
    means = MetricSums(rollout_metrics([pooled, *corrections], 2)).means()
    assert "layer1/accuracy" not in means and means["layer1/completions"] == 0
    assert means["layer2/accuracy"] == 0.5 and means["tokens/generated"] == 6
    assert means["transition/layer2/wrong_to_right"] == 0.5


def test_each_term_of_a_reward_has_a_mean_over_what_it_scored() -> None:
    both = {"./my.py:accuracy": 1.0, "./my.py:score#acc": 0.5}
    rewards = [
        Reward(value=1.5, parts=both),
        Reward(value=0.5, parts={"./my.py:score#acc": 0.0}),
        Reward(value=0.0, status="timeout"),
    ]
    completions = [
        completion(1, f"p#{number}", None, False, reward=reward)
        for number, reward in enumerate(rewards)
    ]
    sums = rollout_metrics(completions, 1)
    assert sums["layer1/reward_term/my.py_accuracy"] == (1.0, 1)
    assert sums["layer1/reward_term/my.py_score_acc"] == (0.5, 2)
    alone = [completion(1, "p#0", None, True, reward=Reward(value=1.0, parts={"format": 1.0}))]
    assert not any("reward_term" in name for name in rollout_metrics(alone, 1))
