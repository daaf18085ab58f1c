"""Tests over seeds, by hand."""

from __future__ import annotations

import pytest

from mgrpo.evaluation.seeds import equivalence, holm


def test_means_that_lie_close_are_equivalent():
    """Differences 1, 2, 3: t = -3 sqrt(3) of two degrees of freedom at the nearer margin, whose
    tail is 1/2 - sqrt(27 / 29) / 2."""
    expected = 0.5 - (27 / 29) ** 0.5 / 2
    assert equivalence([0, 0, 0], [1, 2, 3], margin=5) == pytest.approx(expected)
    assert equivalence([1, 2, 3], [0, 0, 0], margin=5) == pytest.approx(expected)


def test_means_that_lie_as_far_apart_as_the_margin_are_not():
    assert equivalence([0, 0, 0], [1, 2, 3], margin=2) == pytest.approx(0.5)


def test_without_a_spread_nothing_is_said():
    assert equivalence([0], [1], margin=2) is None
    assert equivalence([0, 1], [1, 2], margin=2) is None


def test_the_smallest_p_pays_for_all_tests_and_none_passes_a_smaller_one():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []
