"""Weights and rejections against the gap between engines and learner."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from learner.batch import build_batch
from mgrpo.config import ObjectiveConfig
from tests.learner.builders import long, plugin, solve_layer
from tests.learner.exact import UNCORRECTED, floats

OFF = ObjectiveConfig(**UNCORRECTED)
GAPS = [0.9, -0.1]
"""log w of the worked example, on the first completion."""


def step(*, gaps=GAPS, sampled=None, kl_weight=0.0, **settings):
    """A completion with these gaps, reward 1, and one without a gap, reward -1."""
    first = long("q/1", 1.0, len(gaps), sampled_mask=sampled)
    second = long("q/2", -1.0, 1)
    solve = solve_layer(advantage="raw_reward", kl_weight=kl_weight)
    return build_batch(
        [first, second],
        [solve],
        OFF,
        plugins=[plugin("mismatch_correction", **settings)],
        measurements={"policy_logprobs": floats(*(gap - 1 for gap in gaps), -1.0)},
    )


def weights(**settings):
    """Those of the first completion, whose reward is 1."""
    return step(**settings).all_rows[0].advantages


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"method": "truncate", "level": "token"}, [2, 0.904837]),
        ({"method": "truncate", "level": "token", "cap": 9.0}, [2.459603, 0.904837]),
        ({"method": "truncate", "level": "sequence"}, [2, 2]),
        ({"method": "truncate", "level": "sequence", "cap": 9.0}, [2.225541, 2.225541]),
        ({"method": "mask", "level": "token"}, [0, 0.904837]),
        ({"method": "mask", "level": "sequence"}, [0, 0]),
        ({"method": "mask", "level": "sequence", "cap": 3.0}, [2.225541, 2.225541]),
    ],
)
def test_truncation_and_masking_by_token_and_by_completion(settings, expected):
    assert weights(**settings) == pytest.approx(expected, abs=1e-6)


def test_a_masked_completion_is_left_out_of_the_loss():
    batch = step(method="mask", level="sequence")
    assert [one.selected for one in batch.selections] == [False, True]
    assert "disagree" in batch.selections[0].reason
    assert batch.metrics["mismatch/rejected_fraction"] == (1.0, 2.0)


@pytest.mark.parametrize(
    ("settings", "is_trained"),
    [
        ({"reject_geometric": (0.999, 1.001)}, False),
        ({"reject_geometric": (0.999, 1.4918)}, False),
        ({"reject_geometric": (0.999, 1.4919)}, True),
        # k3: 2.459603 - 1 - 0.9 and 0.904837 - 1 + 0.1, mean 0.282220
        ({"reject_k3": 0.01}, False),
        ({"reject_k3": 0.2822}, False),
        ({"reject_k3": 0.2823}, True),
    ],
)
def test_completions_that_are_too_far_off_are_rejected(settings, is_trained):
    batch = step(method="none", **settings)
    assert [one.selected for one in batch.selections] == [is_trained, True]
    assert batch.all_rows[0].advantages.tolist() == [1, 1]


def test_weights_of_mean_1():
    batch = step(normalise=True)
    found = [value for row in batch.all_rows for value in row.advantages]
    mean = (2 + 0.904837 + 1) / 3
    assert found == pytest.approx([2 / mean, 0.904837 / mean, -1 / mean], abs=1e-6)


def two_rows(gaps, lengths, **settings):
    """Rows whose log w are `gaps` in all, spread evenly over their tokens; all rewards 1."""
    made = [long(f"q/{n}", 1.0, length) for n, length in enumerate(lengths, start=1)]
    each = [gap / length for gap, length in zip(gaps, lengths, strict=True) for _ in range(length)]
    part = plugin("mismatch_correction", level="sequence", normalise=True, **settings)
    batch = build_batch(
        made,
        [solve_layer(advantage="raw_reward")],
        OFF,
        plugins=[part],
        measurements={"policy_logprobs": floats(*(gap - 1 for gap in each))},
    )
    return [row.advantages.tolist() for row in batch.all_rows]


def test_weights_of_completions_have_mean_1_over_completions_however_long():
    """w 0.5 on one token and 1.5 on three: their mean is 1, not (0.5 + 3 x 1.5) / 4."""
    found = two_rows([math.log(0.5), math.log(1.5)], [1, 3])
    assert found[0] == pytest.approx([0.5]) and found[1] == pytest.approx([1.5] * 3)


@given(st.lists(st.tuples(st.floats(-2, 2), st.integers(1, 9)), min_size=1, max_size=6))
@settings(max_examples=40, deadline=None)
def test_whatever_the_lengths_the_mean_over_completions_is_1(rows):
    gaps, lengths = zip(*rows, strict=True)
    found = two_rows(gaps, lengths, cap=1e9)
    assert sum(one[0] for one in found) / len(found) == pytest.approx(1)


def test_what_was_done_is_measured():
    metrics = step().metrics
    assert metrics["mismatch/weight_mean"] == pytest.approx((3.904837, 3.0), abs=1e-6)
    assert metrics["mismatch/weight_clipped_fraction"] == (1.0, 3.0)
    assert metrics["mismatch/k3"] == pytest.approx((0.564440, 3.0), abs=1e-6)


def test_tokens_that_no_engine_sampled_keep_their_weight():
    found = weights(gaps=[0.9, 5.0, -0.1], sampled=[True, False, True])
    assert found == pytest.approx([2, 1, 0.904837], abs=1e-6)
    found = weights(gaps=[0.9, 5.0, -0.1], sampled=[True, False, True], level="sequence", cap=9)
    assert found == pytest.approx([2.225541, 1, 2.225541], abs=1e-6)


def test_the_kl_term_is_not_weighed():
    plain, weighed = step(method="none", reject_k3=9.0), step()
    for row, other in zip(weighed.all_rows, plain.all_rows, strict=True):
        assert row.token_weights.tolist() == other.token_weights.tolist()


def test_weights_stay_finite_however_far_the_gap():
    found = weights(gaps=[500.0, -500.0], cap=1e300)
    assert torch.isfinite(floats(*found)).all() and found[0] == pytest.approx(4.851652e8, rel=1e-6)


def test_the_gap_is_corrected_by_something():
    for wrong, reason in (
        ({"method": "none"}, "without a rejection does nothing"),
        ({"reject_geometric": (1.1, 1.2)}, "around 1"),
        ({"lowest": 0.4}, "has no effect without method: mask"),
    ):
        with pytest.raises(ValidationError, match=reason):
            plugin("mismatch_correction", **wrong)
