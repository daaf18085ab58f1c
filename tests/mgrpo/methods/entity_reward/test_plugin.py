"""E-GRPO's reward through the learner's own seam."""

import dataclasses

import pytest
import torch

from learner.batch import build_batch
from learner.plugin import LearnerPlugin
from mgrpo.config import ObjectiveConfig
from mgrpo.errors import ConfigError
from mgrpo.methods.entity_reward.plugin import entity_rewards, match_rate
from mgrpo.plugin import load_plugins
from mgrpo.types import CompletionId, Reward
from tests.learner.builders import completion, plugin, run_config, solve_layer

EXACT = ObjectiveConfig()
Z_SCORE = {"epsilon": 0.0}
ENTITIES = {"entities": ["Ada", "Kiel", "1843", "engine"]}
TEXTS = {1.0: "Ada wrote in 1843 of an engine, in Kiel", 0.5: "Ada, 1843", 0.25: "an engine", 0: ""}


def thought(name, match, *, right=False, status="scored", **changes):
    """A completion whose text names this share of the entities."""
    one = completion(name, 0.0, text=TEXTS[match], metadata=ENTITIES, **changes)
    reward = Reward(value=float(right), correct=right, status=status)
    return dataclasses.replace(one, reward=reward)


def built(completions, **settings):
    return build_batch(
        completions,
        [solve_layer(advantage=Z_SCORE)],
        EXACT,
        plugins=[plugin("entity_reward", **settings)],
    )


def worked_group():
    return [
        thought("q/1", 1.0, right=True),
        thought("q/2", 0.5),
        thought("q/3", 0.25),
        thought("q/4", 0.5, status="unparsable"),
    ]


def advantages(batch):
    return [row.advantages[0] for row in batch.all_rows]


def test_the_worked_group_gets_its_rewards_and_advantages():
    batch = built(worked_group())
    assert batch.shaped_rewards == pytest.approx([1, 0.15, 0.075, 0])
    assert advantages(batch) == pytest.approx([1.487022, -0.334915, -0.495674, -0.656433], abs=1e-6)


def test_a_group_of_wrong_answers_learns_from_what_they_name():
    batch = built([thought("q/1", 0.5), thought("q/2", 0.25), thought("q/3", 0)])
    assert batch.shaped_rewards == pytest.approx([0.3, 0.15, 0])
    assert advantages(batch) == pytest.approx([1, 0, -1])


def test_strength_zero_is_grpo():
    batch = built(worked_group(), strength=0)
    assert advantages(batch) == pytest.approx([1.5, -0.5, -0.5, -0.5])


def test_a_group_that_names_nothing_earns_nothing():
    found = entity_rewards(
        torch.zeros(3), torch.tensor([False] * 3), torch.tensor([False] * 3), strength=0.3
    )
    assert found.tolist() == [0, 0, 0]


def test_the_highest_match_may_be_one_that_earns_nothing_itself():
    matches, no = torch.tensor([1.0, 0.5]), torch.tensor([False, False])
    found = entity_rewards(matches, no, torch.tensor([True, False]), strength=0.3)
    assert found.tolist() == pytest.approx([0, 0.15])


def test_what_ran_out_of_tokens_counts_in_the_statistics_and_not_in_the_loss():
    long = thought("q/3", 1.0, right=True, finish_reason="length")
    batch = built([thought("q/1", 1.0, right=True), thought("q/2", 0.25), long])
    assert batch.shaped_rewards == pytest.approx([1, 0.075, 0])
    mean, std = 1.075 / 3, torch.tensor([1, 0.075, 0.0]).std().item()
    assert advantages(batch)[0] == pytest.approx((1 - mean) / std, abs=1e-6)
    assert [row.completion_id for row in batch.rows] == ["q/1", "q/2"]
    assert batch.selections[2].reason == "it ran out of tokens"


def test_a_check_of_the_form_can_say_what_a_format_error_is():
    informal = thought("q/2", 0.5)
    informal = dataclasses.replace(informal, reward=Reward(value=0.0, parts={"format": 0.0}))
    formal = dataclasses.replace(informal, reward=Reward(value=0.0, parts={"format": 1.0}))
    pair = [dataclasses.replace(formal, id=CompletionId.named("q/1")), informal]
    assert built(pair, format_part="format").shaped_rewards == pytest.approx([0.3, 0])
    assert built(pair).shaped_rewards == pytest.approx([0.3, 0.3])


def test_a_number_inside_a_longer_one_is_no_match_as_a_whole_word():
    one = completion("q/1", 0.0, text="13 + 4 = 17", metadata={"entities": ["3", "4"]})
    assert match_rate(one, match="verbatim") == 1.0
    assert match_rate(one, match="whole_word") == 0.5


def test_text_that_was_put_in_names_nothing():
    one = thought("q/1", 1.0, sampled_mask=[False])
    assert match_rate(one, match="verbatim") == 0.0


def test_the_match_rate_is_reported_over_usable_completions():
    metrics = built([*worked_group(), thought("q/5", 1.0, status="timeout")]).metrics
    assert metrics["entities/match_rate"] == (2.25, 4.0)


def test_it_is_refused_where_nothing_says_what_the_entities_are():
    config = run_config(plugins=[{"use": "entity_reward", "settings": {"format_part": "tags"}}])
    with pytest.raises(ConfigError) as caught:
        load_plugins(config.method_view, LearnerPlugin)
    assert "Add problem_entities" in str(caught.value)
    assert "not one of the recipe's checks: math_answer" in str(caught.value)
