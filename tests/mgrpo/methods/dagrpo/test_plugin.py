"""DaGRPO through the learner's own seam."""

import dataclasses

import pytest
import torch

from learner.batch import build_batch
from learner.objective import microbatch_loss
from learner.packing import collate
from learner.plugin import LearnerPlugin
from mgrpo.config import ObjectiveConfig
from mgrpo.errors import ConfigError
from mgrpo.methods.dagrpo.distinct_pairs import (
    distinct_by_tokens,
    pairwise_advantages,
    shaped_probability,
)
from mgrpo.plugin import load_plugins
from mgrpo.types import EXPERT, Reward
from tests.learner.builders import completion, plugin, run_config, solve_layer

OBJECTIVE = ObjectiveConfig()
Z_SCORE = {"epsilon": 0.0}
SCORES = [0.9, 0.55, 0.5, 0.1]


def scored(name, reward, score):
    one = completion(name, reward)
    reward = Reward(value=reward, correct=reward >= 1, parts={"judge": score})
    return dataclasses.replace(one, reward=reward)


def worked_group():
    return [
        scored(f"q/{n}", reward, score)
        for n, (reward, score) in enumerate(zip([1.0, 1.0, 0.0, 0.0], SCORES, strict=True), 1)
    ]


def expert(name, token_ids=(9,)):
    return completion(
        name,
        1.0,
        token_ids=list(token_ids),
        rollout_logprobs=[0.0] * len(token_ids),
        sampled_mask=[False] * len(token_ids),
        augmented_by=EXPERT,
    )


def built(completions, **settings):
    part = plugin("dagrpo", epsilon=0.0, **settings)
    return build_batch(completions, [solve_layer(advantage=Z_SCORE)], OBJECTIVE, plugins=[part])


def advantages(batch):
    return [row.advantages[0] for row in batch.all_rows]


def test_the_worked_group_leaves_out_the_pair_that_hardly_differs():
    batch = built(worked_group(), score_part="judge")
    assert advantages(batch) == pytest.approx([0.866025, 0.433013, -0.433013, -0.866025], abs=1e-6)
    assert batch.metrics["dagrpo/distinct_pairs_fraction"] == (10.0, 12.0)


def test_threshold_zero_is_grpo():
    found = advantages(built(worked_group(), score_part="judge", threshold=0))
    assert found == pytest.approx([0.866025, 0.866025, -0.866025, -0.866025], abs=1e-6)
    by_tokens = advantages(built(worked_group(), threshold=0))
    assert by_tokens == pytest.approx(found)


def test_the_worked_group_with_a_solution_beside_it():
    group = [completion(f"q/{n}", 0.0) for n in range(1, 5)]
    batch = built([*group, expert("q/5")])
    assert advantages(batch) == pytest.approx([-0.447214] * 4 + [1.788854], abs=1e-6)


def test_equal_texts_with_different_rewards_teach_nothing():
    pair = [completion("q/1", 1.0), completion("q/2", 0.0)]
    assert advantages(built(pair)) == [0.0, 0.0]


def test_a_group_of_equal_rewards_has_no_advantages():
    found = pairwise_advantages(torch.full((3,), 0.1), torch.ones(3, 3).bool(), epsilon=0.0)
    assert found.tolist() == [0.0, 0.0, 0.0]


def test_distance_is_one_minus_the_cosine_of_token_counts():
    """[1, 1, 2] and [1, 2, 2] have cosine 4 / 5."""
    pair = [[1, 1, 2], [1, 2, 2]]
    assert distinct_by_tokens(pair, threshold=0.2).tolist() == [[False, True], [True, False]]
    assert not distinct_by_tokens(pair, threshold=0.21).any()
    assert distinct_by_tokens([[1], []], threshold=1.0)[0, 1]


def test_the_worked_shaped_probability():
    logprob = torch.tensor(0.3).double().log().requires_grad_()
    value = shaped_probability(logprob, gamma=0.1)
    value.backward()
    assert float(value.detach()) == pytest.approx(0.75)
    assert float(logprob.grad) == pytest.approx(0.1875)


def loss_and_gradient(old_of_expert):
    """Of a mixed group whose sampled tokens have ratio e^0.5, clipped at 1.2."""
    group = [*[completion(f"q/{n}", 0.0) for n in range(1, 5)], expert("q/5")]
    parts = [plugin("dagrpo", epsilon=0.0), plugin("shaped_probability")]
    rows = build_batch(group, [solve_layer(advantage=Z_SCORE)], OBJECTIVE, plugins=parts).rows
    piece = collate(rows, merge_prefixes=False)
    own = torch.tensor([-1.0] * 4 + [-1.2039728]).requires_grad_()
    old = torch.tensor([-1.5] * 4 + [old_of_expert])
    loss = microbatch_loss(piece, own, old, None, own * 0, OBJECTIVE, parts)
    loss.backward()
    return loss.item(), own.grad.tolist()


def test_sampled_tokens_have_a_ratio_and_the_experts_a_shaped_probability():
    """Each row weighs 1/5; ratios of losing tokens are not clipped from above. The engine's
    recorded log-probability is -1, the learner's -1.5: importance weight e^-0.5."""
    loss, gradient = loss_and_gradient(old_of_expert=-1.0)
    sampled = -0.447214 / 5 * 2.718281828**0.5 * 2.718281828**-0.5
    assert gradient == pytest.approx([-sampled] * 4 + [-1.788854 / 5 * 0.1875], abs=1e-6)
    assert loss == pytest.approx(-4 * sampled - 1.788854 / 5 * 0.75, abs=1e-6)


def test_the_old_logprob_of_an_experts_token_is_never_read():
    assert loss_and_gradient(old_of_expert=float("nan")) == loss_and_gradient(old_of_expert=-1.0)


def test_an_unknown_score_is_refused():
    config = run_config(layers=[solve_layer(advantage={"type": "dagrpo", "score_part": "judge"})])
    with pytest.raises(ConfigError, match="not one of the recipe's checks: math_answer"):
        load_plugins(config.method_view, LearnerPlugin)
