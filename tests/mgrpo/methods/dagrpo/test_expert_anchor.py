"""A solution of the data beside attempts that all failed."""

from __future__ import annotations

import dataclasses

import pytest

from actors.plugin import RolloutPlugin
from mgrpo.errors import ConfigError
from mgrpo.metrics.transitions import rollout_metrics
from mgrpo.plugin import load_plugins
from tests.actors.plugins.scripted_rollout import PROBLEM, TOKENIZER, plugin, rollout, sampled
from tests.learner.builders import layer, run_config, solve_layer

UNSOLVED = dataclasses.replace(PROBLEM, solution="")


def group(answers, problem=PROBLEM, **settings):
    parts = rollout(lambda prompt, index: answers[index], [plugin("expert_anchor", **settings)])
    return sampled(parts, problem)


def test_an_all_wrong_group_gets_the_solution():
    *attempts, expert = group("1234")
    assert len(attempts) == 4
    assert expert.text == "3 and 4 are 7"
    assert TOKENIZER.decode(expert.token_ids[:-1]) == expert.text
    assert expert.is_correct and expert.augmented_by == "expert"
    assert expert.sampled_mask.tolist() == [False] * len(expert.token_ids)
    assert expert.group_key == attempts[0].group_key
    assert expert.prompt_token_ids is attempts[0].prompt_token_ids
    assert expert.completion_id not in {one.completion_id for one in attempts}


def test_one_right_answer_is_enough_unless_told_otherwise():
    assert len(group("1274")) == 4
    assert len(group("1274", max_pass_rate=0.25)) == 5
    assert len(group("1774", max_pass_rate=0.25)) == 4


def test_without_a_solution_the_group_stays_or_gets_the_bare_answer():
    assert len(group("1234", UNSOLVED)) == 4
    *_, expert = group("1234", UNSOLVED, missing_solution="answer")
    assert expert.text == "\\boxed{7}"


def test_a_solution_that_is_too_long_is_left_out():
    length = len("3 and 4 are 7") + 1
    assert len(group("1234", max_solution_tokens=length)) == 5
    assert len(group("1234", max_solution_tokens=length - 1)) == 4


def test_a_solution_that_the_checks_find_wrong_is_left_out():
    assert len(group("1234", dataclasses.replace(PROBLEM, solution="it is 8"))) == 4


def test_it_is_in_no_metric_of_the_rollout():
    with_it, without = group("1234"), group("1234", UNSOLVED)
    assert len(with_it) == len(without) + 1
    assert rollout_metrics(with_it, 1) == rollout_metrics(without, 1)


def test_it_is_refused_where_solutions_would_be_corrected_or_have_no_objective():
    config = run_config(
        plugins=[{"use": "expert_anchor", "settings": {}}],
        layers=[solve_layer(), layer()],
    )
    with pytest.raises(ConfigError) as caught:
        load_plugins(config.method_view, RolloutPlugin)
    for message in ("layers: [correct]", "Add shaped_probability to objective.loss"):
        assert message in str(caught.value)
