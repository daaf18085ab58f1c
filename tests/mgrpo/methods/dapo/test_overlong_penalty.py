"""DAPO's penalty for answers that run long."""

import pytest
from pydantic import ValidationError

from learner.batch import build_batch
from mgrpo.config import ObjectiveConfig
from tests.learner.builders import long, plugin, run_config, solve_layer, with_status


def shaped(*lengths, reward=1.0, **settings):
    made = [long(f"q/{number}", reward, length) for number, length in enumerate(lengths, start=1)]
    part = plugin("overlong_penalty", **{"max_tokens": 20, "buffer_tokens": 4, **settings})
    return build_batch(made, [solve_layer()], ObjectiveConfig(), plugins=[part])


def test_the_papers_lengths():
    batch = shaped(16384, 18432, 20481, reward=0.0, max_tokens=20480, buffer_tokens=4096)
    assert batch.shaped_rewards == pytest.approx([0, -0.5, -1])


def test_the_penalty_rises_over_the_buffer_and_stays():
    batch = shaped(1, 16, 17, 20, 40)
    assert batch.shaped_rewards == pytest.approx([1, 1, 0.75, 0, 0])
    assert batch.metrics["overlong/penalised_fraction"] == (3.0, 5.0)
    assert shaped(18, penalty=0.4).shaped_rewards == pytest.approx([0.8])


def test_a_failed_check_stays_failed():
    failed = with_status(long("q/1", 0.0, 20), "timeout")
    part = plugin("overlong_penalty", max_tokens=20, buffer_tokens=4)
    made = [failed, long("q/2", 1.0, 1)]
    batch = build_batch(made, [solve_layer()], ObjectiveConfig(), plugins=[part])
    assert not batch.selections[0].selected and batch.metrics["overlong/penalised_fraction"][0] == 0


def problems(**settings):
    config = run_config(layers=[solve_layer(max_completion_tokens=8)])
    part = plugin("overlong_penalty", 1, **settings)
    return [
        one.path for one in type(part).faults(part.settings, frozenset({1}), config.method_view)
    ]


def test_a_penalty_that_no_completion_can_reach_is_refused():
    assert problems(max_tokens=8, buffer_tokens=2) == []
    assert problems(max_tokens=10, buffer_tokens=2) == ["max_tokens"]
    with pytest.raises(ValidationError, match="is above max_tokens"):
        problems(max_tokens=8, buffer_tokens=9)
