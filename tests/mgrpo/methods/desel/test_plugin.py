"""DeSel as a filter of rows, through the learner's own seam."""

import pytest
import torch

from learner.batch import build_batch
from learner.plugin import LearnerPlugin
from mgrpo.config import ObjectiveConfig
from mgrpo.errors import ConfigError, LearnerError
from mgrpo.methods.desel.plugin import likely_enough
from mgrpo.plugin import load_plugins
from tests.learner.builders import completion, plugin, run_config, solve_layer

ANCHOR = {"greedy_logprob_mean": -0.5}
MEANS = [-0.4, -0.9, -1.5]


def sampled(number, mean, reward=0.0, **changes):
    """Two tokens with this mean log-probability."""
    return completion(
        f"q/{number}",
        reward,
        token_ids=[3, 4],
        rollout_logprobs=[mean - 0.1, mean + 0.1],
        **{"metadata": ANCHOR, **changes},
    )


def kept(completions, **settings):
    """Ids of what stays in its group."""
    batch = build_batch(
        completions, [solve_layer()], ObjectiveConfig(), plugins=[plugin("desel", **settings)]
    )
    reason = "it is much less likely than its group's anchor"
    return [one.completion_id for one in batch.selections if one.reason != reason]


def worked_group(*rewards):
    return [
        sampled(number, mean, reward)
        for number, (mean, reward) in enumerate(
            zip(MEANS, rewards or (0.0,) * 3, strict=True), start=1
        )
    ]


def test_the_worked_samples_against_the_greedy_answer():
    assert kept(worked_group(), anchor="greedy") == ["q/1", "q/2"]


def test_the_worked_likelihoods_and_threshold():
    likelihoods = torch.tensor(MEANS).double().exp()
    assert likelihoods.tolist() == pytest.approx([0.670320, 0.406570, 0.223130], abs=1e-6)
    anchor = 0.606531
    assert likely_enough(likelihoods, anchor, ratio=0.363918 / anchor).tolist() == [
        True,
        True,
        False,
    ]
    assert 0.6 * anchor == pytest.approx(0.363918, abs=1e-6)


def test_without_a_greedy_answer_the_likeliest_completion_is_the_anchor():
    """Of e^-0.4 = 0.670320, 0.6 is 0.402192: just below e^-0.9."""
    assert kept(worked_group()) == ["q/1", "q/2"]
    assert kept(worked_group(), ratio=0.61) == ["q/1"]


def test_ratio_zero_keeps_everything():
    assert kept(worked_group(), ratio=0) == ["q/1", "q/2", "q/3"]


def test_right_answers_stay_however_unlikely_unless_told_otherwise():
    group = worked_group(0.0, 0.0, 1.0)
    assert kept(group) == ["q/1", "q/2", "q/3"]
    assert kept(group, drop="unlikely") == ["q/1", "q/2"]


def test_the_likeliest_few():
    likelihoods = torch.tensor([0.5, 0.9, 0.5, 0.1])
    found = likely_enough(likelihoods, 0.9, ratio=0.5, top_k=2)
    assert found.tolist() == [True, True, False, False]
    assert likely_enough(likelihoods, 0.9, ratio=0.5, top_k=9).tolist() == [True, True, True, False]


def test_what_is_left_out_is_in_no_statistics():
    """[1, 0] is what is compared: without the third the mean is 1/2."""
    batch = build_batch(
        worked_group(1.0, 0.0, 0.0),
        [solve_layer(advantage={"scale_by_std": False})],
        ObjectiveConfig(),
        plugins=[plugin("desel")],
    )
    assert [row.advantages[0] for row in batch.rows] == [0.5, -0.5]
    assert [row.token_weights.tolist() for row in batch.rows] == [[0.25] * 2] * 2


def test_only_sampled_tokens_say_how_likely_a_completion_is():
    group = worked_group()
    group[2] = sampled(3, -1.5, sampled_mask=[False, True])  # -1.4: 0.246597
    assert kept(group, anchor="greedy", ratio=0.4) == ["q/1", "q/2", "q/3"]
    assert kept(worked_group(), anchor="greedy", ratio=0.4) == ["q/1", "q/2"]
    group[2] = sampled(3, -1.5, sampled_mask=[False, False])
    assert kept(group, anchor="greedy") == ["q/1", "q/2", "q/3"]


def test_a_completion_without_the_greedy_answers_likelihood_is_an_error():
    group = [sampled(n, -1.0, metadata={}) for n in (1, 2)]
    with pytest.raises(LearnerError, match="Let greedy_anchor work on layer 1"):
        kept(group, anchor="greedy")


def test_the_greedy_anchor_must_be_in_the_recipe():
    config = run_config(plugins=[{"use": "desel", "settings": {"anchor": "greedy"}}])
    with pytest.raises(ConfigError, match="Add greedy_anchor to plugins"):
        load_plugins(config.method_view, LearnerPlugin)
