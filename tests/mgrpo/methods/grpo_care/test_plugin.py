"""GRPO-CARE: which right answers earn the bonus."""

import dataclasses
import math

import pytest
import torch

from learner.batch import build_batch
from learner.ema_policy import ema_schedule
from learner.plugin import EmaSchedule, LearnerPlugin
from mgrpo.config import ObjectiveConfig
from mgrpo.errors import ConfigError, LearnerError
from mgrpo.methods.grpo_care.plugin import accurate_enough, likely_enough
from mgrpo.plugin import load_plugins
from mgrpo.types import Reward
from tests.learner.builders import completion, plugin, run_config, solve_layer, with_status

OBJECTIVE = ObjectiveConfig()
Z_SCORE = {"epsilon": 1e-4}
PROBABILITIES = [0.99, 0.8, 0.6, 0.9]


def answered(name, reward, **changes):
    """Two tokens, of which the second is the answer."""
    tokens = {"token_ids": [3, 4], "rollout_logprobs": [-1.0] * 2, "spans": {"answer": [(1, 2)]}}
    return completion(name, reward, **{**tokens, **changes})


def worked_group():
    return [answered(f"q/{n}", value) for n, value in enumerate([1.0, 1.0, 1.0, 0.0], start=1)]


def built(completions=None, probabilities=PROBABILITIES, **settings):
    """The first token of each has probability 1/100, which must not count."""
    logprobs = [value for p in probabilities for value in (math.log(0.01), math.log(p))]
    return build_batch(
        completions or worked_group(),
        [solve_layer(advantage=Z_SCORE)],
        OBJECTIVE,
        plugins=[plugin("grpo_care", **settings)],
        measurements={"ema_logprobs": torch.tensor(logprobs, dtype=torch.float64)},
    )


def test_the_worked_group_gets_its_rewards_and_advantages():
    batch = built()
    assert batch.shaped_rewards == pytest.approx([1.5, 1.5, 1.0, 0.0])
    found = [row.advantages[0] for row in batch.all_rows]
    assert found == pytest.approx([0.707007, 0.707007, 0.0, -1.414014], abs=1e-6)


def test_the_worked_mean_is_what_an_answer_must_reach():
    """Capped at .95 the right answers' mean is .783333, less the margin .773333."""
    candidates = torch.tensor([True, True, True, False])
    values = torch.tensor([0.99, 0.8, 0.6, 0.9], dtype=torch.float64)

    def at(third):
        values[2] = third
        return likely_enough(values, candidates, ceiling=0.95, margin=0.01).tolist()

    assert at(0.6) == [True, True, False, False]
    # (.95 + .8 + p) / 3 - .01 = p at p = .86
    assert at(0.859)[1:] == [False, False, False]
    assert at(0.861)[2] is True


def test_bonus_zero_is_grpo_and_keeps_no_average():
    part = plugin("grpo_care", bonus=0)
    assert built(bonus=0).shaped_rewards == [1.0, 1.0, 1.0, 0.0]
    assert part.wanted_measurements() == frozenset() and part.ema() is None


def test_the_average_is_the_settings():
    assert plugin("grpo_care").ema() == EmaSchedule(decay=0.995, every_updates=10)


def test_an_answer_of_several_tokens_has_a_mean_of_either_kind():
    """Probabilities .9 and .4: arithmetic .65, geometric .6; the other answer has .61."""
    two = [
        answered("q/1", 1.0, spans={"answer": [(0, 2)]}),
        answered("q/2", 1.0),
        answered("q/3", 0.0),
    ]
    logprobs = torch.tensor([0.9, 0.4, 0.01, 0.61, 0.01, 0.5], dtype=torch.float64).log()

    def shaped(kind):
        return build_batch(
            two,
            [solve_layer(advantage=Z_SCORE)],
            OBJECTIVE,
            plugins=[plugin("grpo_care", answer_probability=kind, margin=0)],
            measurements={"ema_logprobs": logprobs},
        ).shaped_rewards

    assert shaped("arithmetic") == pytest.approx([1.5, 1.0, 0.0])
    assert shaped("geometric") == pytest.approx([1.0, 1.5, 0.0])


def test_candidates_reach_the_mean_accuracy_and_the_floor():
    accuracies = torch.tensor([0.0, 0.1, 0.2, 0.05])
    assert accurate_enough(accuracies, floor=0.1, exceed=False).tolist() == [False, True, True, 0]
    assert accurate_enough(accuracies, floor=0.1, exceed=True).tolist() == [False, False, True, 0]
    assert accurate_enough(accuracies * 10, floor=0.1, exceed=True).tolist() == [0, 1, 1, 0]


def test_accuracy_may_be_graded_and_format_be_paid_beside_it():
    group = [
        dataclasses.replace(
            answered(f"q/{n}", None),
            reward=Reward(value=graded + 0.5, parts={"overlap": graded, "format": 0.5}),
        )
        for n, graded in enumerate([0.8, 0.6, 0.1], start=1)
    ]
    batch = built(group, [0.9, 0.9, 0.9], accuracy_part="overlap")
    assert batch.shaped_rewards == pytest.approx([0.8 + 0.5 + 0.4, 0.6 + 0.5 + 0.3, 0.6])


def test_without_an_answer_or_a_check_there_is_no_bonus():
    group = [
        answered("q/1", 1.0),
        answered("q/2", 1.0, spans={}),
        with_status(answered("q/3", 1.0), "error"),
        answered("q/4", 0.0),
    ]
    batch = built(group, [0.5, 0.99, 0.99, 0.99])
    assert batch.shaped_rewards == pytest.approx([1.5, 1.0, 0.0, 0.0])
    assert batch.metrics["grpo_care/consistent_fraction"] == (1, 1)


def test_all_wrong_groups_earn_nothing():
    assert built([answered("q/1", 0.0), answered("q/2", 0.0)], [0.5, 0.6]).shaped_rewards == [0, 0]


MARKED = [{"use": "answer_span"}]


@pytest.mark.parametrize(
    ("plugins", "said"),
    [
        ([{"use": "grpo_care"}], "Add answer_span to plugins"),
        (
            [*MARKED, {"use": "grpo_care", "settings": {"accuracy_part": "overlap"}}],
            "not one of the recipe's checks: math_answer",
        ),
        (
            [
                *MARKED,
                {"use": "grpo_care", "layers": ["solve"]},
                {"use": "grpo_care", "layers": ["correct"], "settings": {"ema_decay": 0.9}},
            ],
            "a run keeps one average",
        ),
    ],
)
def test_recipes_that_it_cannot_work_with_are_refused(plugins, said):
    with pytest.raises(ConfigError, match=said):
        load_plugins(run_config(plugins=plugins).method_view, LearnerPlugin)


def test_plug_ins_of_ones_own_must_agree_on_the_average():
    with pytest.raises(LearnerError, match="different averages"):
        ema_schedule([plugin("grpo_care"), plugin("grpo_care", ema_decay=0.5)])
    assert ema_schedule([plugin("rloo")]) is None


def test_the_average_of_1_that_follows_2_is_1_005(tmp_path):
    from learner.ema_policy import EmaPolicy

    policy, average = torch.nn.Linear(1, 1, bias=False), torch.nn.Linear(1, 1, bias=False)
    policy.weight.data.fill_(2.0)
    average.weight.data.fill_(1.0)
    schedule = plugin("grpo_care").ema()
    ema = EmaPolicy(schedule, policy=policy, model=average)
    for number in range(1, 10):
        ema.update(number)
    assert average.weight.item() == 1.0
    ema.update(10)
    assert average.weight.item() == pytest.approx(1.005, abs=1e-6)
