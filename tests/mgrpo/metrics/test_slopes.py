from __future__ import annotations

import random

import pytest

from mgrpo.metrics.slopes import slope


def test_a_straight_line_has_its_slope_and_no_error():
    found = slope([3.0 + 0.5 * step for step in range(40)])
    assert found.per_step == pytest.approx(0.5) and found.error == pytest.approx(0.0, abs=1e-12)


def test_the_error_is_that_of_the_formula():
    # Blocks of two with the means 0, 1, 0, 1, ... at -9, -7, ... 9, whose squares add up to 330.
    found = slope([float(number // 2 % 2) for number in range(20)])
    assert found.per_step == pytest.approx(5 / 330)
    assert found.error == pytest.approx(((2.5 - 25 / 330) / 8 / 330) ** 0.5)


def test_noise_is_no_growth_and_growth_within_noise_is_one():
    dice = random.Random(1)
    noise = [dice.gauss(0, 1) for _ in range(500)]
    assert not slope(noise).exceeds(0.0)
    assert slope([value + 0.01 * step for step, value in enumerate(noise)]).exceeds(0.0)
    assert not slope([value + 0.01 * step for step, value in enumerate(noise)]).exceeds(0.02)


def test_too_few_measurements_are_refused():
    with pytest.raises(ValueError, match="needs 20 measurements, not 19"):
        slope([0.0] * 19)
