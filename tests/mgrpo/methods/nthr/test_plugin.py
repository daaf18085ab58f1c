"""NTHR: which tokens of wrong answers are spared, and what they would do to right ones."""

import dataclasses

import pytest
import torch
from torch.testing import assert_close

from learner.batch import build_batch, step_batch
from learner.policy_loading import load_policy
from learner.policy_reader import PolicyReader
from mgrpo.config import LearnerConfig, ObjectiveConfig
from mgrpo.methods.nthr.plugin import INFLUENCES, blocks
from mgrpo.methods.nthr.token_influence import gradient_sum, influences
from tests.learner.builders import (
    completion,
    layer,
    long,
    plugin,
    random_completions,
    save_tiny_llama,
    solve_layer,
    with_status,
)

EXACT = ObjectiveConfig()
Z_SCORE = {"epsilon": 0.0}
CHAIN = [solve_layer(advantage=Z_SCORE), layer(advantage=Z_SCORE)]


def tensor(*rows):
    return torch.tensor(rows, dtype=torch.float64)


# --- the worked example: two tokens of the right answer, two of a wrong one ---

RIGHT_ERRORS, RIGHT_HIDDEN = tensor([0.4, -0.4], [-0.3, 0.3]), tensor([1.0, 0.0], [0.0, 1.0])
WRONG_ERRORS, WRONG_HIDDEN = tensor([0.5, -0.5], [-0.5, 0.5]), tensor([1.0, 0.2], [1.0, 0.2])


def test_the_worked_influences_and_threshold():
    others = gradient_sum(RIGHT_ERRORS, RIGHT_HIDDEN)
    assert_close(others, tensor([0.4, -0.3], [-0.4, 0.3]))
    right = influences(RIGHT_ERRORS, RIGHT_HIDDEN, others)
    assert_close(right, tensor([0.32, 0.18])[0])
    wrong = influences(WRONG_ERRORS, WRONG_HIDDEN, others)
    assert_close(wrong, tensor([0.34, -0.34])[0])


def test_an_influence_is_the_sum_over_pairs_of_tokens():
    torch.manual_seed(0)
    errors, hidden = torch.randn(5, 3), torch.randn(5, 4)
    others = gradient_sum(errors[:3], hidden[:3])
    expected = [
        sum(errors[j].dot(errors[i]) * hidden[j].dot(hidden[i]) for i in range(3)) for j in (3, 4)
    ]
    assert_close(influences(errors[3:], hidden[3:], others), torch.stack(expected))


def test_the_least_of_the_right_completions_means_is_the_threshold():
    group = [long("q/1", 1.0, 3), long("q/2", 1.0, 2), long("q/3", 0.0, 1)]
    found = torch.tensor([1.0, 3.0, 5.0, -2.0, 4.0, 9.0], dtype=torch.float64)
    batch = step_batch(group, CHAIN, [plugin("nthr")], measurements={INFLUENCES: found})
    thresholds = plugin("nthr", threshold_scale=0.5).thresholds(batch)
    assert thresholds.tolist() == pytest.approx([0.5] * 3)


def worked_group():
    """One right completion of four, two tokens each."""
    return [long(f"q/{number}", float(number == 1), 2) for number in range(1, 5)]


WORKED = [0.32, 0.18, 0.34, -0.34, 0.34, -0.34, 0.34, -0.34]


def advantages(completions=None, found=WORKED, **settings):
    batch = build_batch(
        completions or worked_group(),
        [solve_layer(advantage=Z_SCORE)],
        EXACT,
        plugins=[plugin("nthr", **settings)],
        measurements={INFLUENCES: torch.tensor(found, dtype=torch.float64)},
    )
    return [row.advantages.tolist() for row in batch.all_rows]


def test_the_worked_advantages():
    assert advantages()[0] == pytest.approx([1.5, 1.5])
    for found in advantages()[1:]:
        assert found == pytest.approx([-0.25, -0.5])


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"threshold_scale": -2.0}, [-0.25, -0.25]),  # threshold -0.5
        ({"threshold_scale": 2.0}, [-0.5, -0.5]),
        ({"select": "all"}, [-0.25, -0.25]),
        ({"spared_weight": 0.0}, [0.0, -0.5]),
        ({"spared_weight": 1.0}, [-0.5, -0.5]),
    ],
)
def test_how_many_tokens_are_spared_and_how_far_can_be_set(settings, expected):
    assert advantages(**settings)[1] == pytest.approx(expected)


def test_weight_one_is_grpo_and_reads_nothing():
    plain = build_batch(worked_group(), [solve_layer(advantage=Z_SCORE)], EXACT).all_rows
    assert advantages(spared_weight=1.0) == [row.advantages.tolist() for row in plain]
    assert plugin("nthr", spared_weight=1.0).read_policy(None, None) == {}
    assert plugin("nthr", select="all").read_policy(None, None) == {}


def test_half_right_groups_lose_the_spared_tokens():
    pair = [long("q/1", 1.0, 1), long("q/2", 0.0, 1)]
    assert advantages(pair, [0.1, 0.2])[1] == [0.0]


def test_uniform_groups_and_failed_checks_are_left_alone():
    wrong = [long(f"q/{number}", 0.0, 1) for number in (1, 2)]
    failed = with_status(long("q/3", 0.0, 1), "error")
    right = [long(f"p/{number}", 1.0, 1) for number in (1, 2)]
    batch = build_batch(
        [*wrong, failed, *right],
        [solve_layer(advantage=Z_SCORE)],
        EXACT,
        plugins=[plugin("nthr")],
        measurements={INFLUENCES: torch.full((5,), 9.0, dtype=torch.float64)},
    )
    assert not batch.rows
    assert batch.metrics["nthr/spared_fraction"] == (0.0, 0.0)


# --- influences as they are read of a policy ---


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    model_dir = save_tiny_llama(tmp_path_factory.mktemp("model") / "tiny")
    return load_policy(str(model_dir), dtype=torch.float32, merge_prefixes=True)


@pytest.fixture
def reader(policy):
    return PolicyReader(
        {"policy": policy},
        settings=LearnerConfig(microbatch_tokens=48, logprob_chunk_tokens=7),
        temperature=1.0,
        merges_prefixes=True,
        hidden_size=policy.hidden_size,
    )


def read(reader, completions, **settings):
    part = plugin("nthr", **settings)
    batch = step_batch(completions, CHAIN)
    return part, batch, part.read_policy(batch, reader).get(INFLUENCES)


@torch.no_grad()
def naive_influences(policy, completions):
    """[M] by the definition: token by token, pair by pair, on the group's own vocabulary."""
    groups = {}
    for one in completions:
        groups.setdefault(one.group_key, []).append(one)
    found = {}
    for group in groups.values():
        vocab = sorted({token for one in group for token in one.token_ids})
        features = {}
        for one in group:
            tokens = torch.tensor([[*one.prompt_token_ids.tolist(), *one.token_ids.tolist()]])
            first = len(one.prompt_token_ids)
            hidden = policy.causal_lm.get_decoder()(input_ids=tokens).last_hidden_state[0]
            chosen = policy.causal_lm(input_ids=tokens).logits[0].softmax(-1)[first - 1 : -1]
            errors = torch.nn.functional.one_hot(tokens[0, first:], 64) - chosen
            features[one.completion_id] = (errors[:, vocab], hidden[first - 1 : -1])
        right = [features[one.completion_id] for one in group if one.is_correct]
        is_mixed = 0 < len(right) < len(group)
        for one in group:
            values = torch.zeros(len(one.token_ids))
            for errors, hidden in right if is_mixed else []:
                g, h = features[one.completion_id]
                values += ((g @ errors.T) * (h @ hidden.T)).sum(1)
            found[one.completion_id] = values
    return torch.cat([found[one.completion_id] for one in completions]).double()


def test_influences_are_those_of_the_definition(policy, reader):
    completions = random_completions()
    _, _, found = read(reader, completions)
    expected = naive_influences(policy, completions)
    assert (expected != 0).any() and (expected == 0).any()
    assert_close(found, expected, rtol=1e-3, atol=1e-3)
    assert set(reader.costs()) == {"measurements/nthr_s"}


def test_groups_that_do_not_fit_together_are_looked_at_in_turn(policy, reader):
    completions = random_completions()
    part, batch, whole = read(reader, completions)
    groups = part.groups(batch)
    assert len(groups) > 2 and len(blocks(groups, reader.hidden_size, 2**29)) == 1
    sizes = [len(group.vocab_ids) * reader.hidden_size * 4 for group in groups]
    assert len(blocks(groups, reader.hidden_size, 1)) == len(groups)
    assert len(blocks(groups, reader.hidden_size, sum(sizes[:2]))[0]) == 2
    part.settings = part.settings.model_copy(update={"memory_mib": 1 / 2**20})
    assert_close(part.read_policy(batch, reader)[INFLUENCES], whole, rtol=1e-4, atol=1e-4)


def test_tokens_that_were_put_in_count_for_nothing(policy, reader):
    """The put-in end of a right completion has no influence and is none of the right tokens."""
    right = long("q/1", 1.0, 3)
    injected = dataclasses.replace(right, train_mask=[True, True, False])
    wrong = completion("q/2", 0.0, token_ids=[5, 3])
    _, _, masked = read(reader, [injected, wrong])
    shorter = dataclasses.replace(right, token_ids=[3, 3], rollout_logprobs=[-1.0, -1.0])
    _, _, expected = read(reader, [shorter, wrong])
    assert masked[2] == 0
    assert_close(torch.cat([masked[:2], masked[3:]]), expected, rtol=1e-4, atol=1e-4)
