import pytest

from mgrpo.report.words import MISSING, duration, number, percent, plural, points


@pytest.mark.parametrize(
    ("share", "text"), [(0.425, "42.5\u00a0%"), (1.0, "100.0\u00a0%"), (None, "\u2013")]
)
def test_shares_read_as_percent(share, text):
    assert percent(share) == text


@pytest.mark.parametrize(
    ("share", "text"), [(0.05, "+5.0"), (-0.031, "\u22123.1"), (0.0, "0.0"), (-0.0001, "0.0")]
)
def test_differences_read_as_signed_points_and_nothing_is_minus_zero(share, text):
    assert points(share) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (0.123456, "0.123"),
        (26380.0, "26,380"),
        (-1.5, "\u22121.5"),
        (1e-6, "1e-6"),
        (2.25e-5, "2.25e-5"),
        (float("inf"), "inf"),
        (-float("inf"), "\u2212inf"),
        (float("nan"), "nan"),
    ],
)
def test_numbers_keep_three_digits(value, text):
    assert number(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (4.56, "4.6 s"),
        (45.0, "45 s"),
        (200.0, "3 min 20 s"),
        (4020.0, "1 h 7 min"),
        (180_000.0, "2 d 2 h"),
    ],
)
def test_durations_use_two_units(seconds, text):
    assert duration(seconds).replace("\u00a0", " ") == text


@pytest.mark.parametrize("words", [percent, points, duration])
@pytest.mark.parametrize("value", [float("inf"), -float("inf"), float("nan")])
def test_no_number_ends_a_report(words, value):
    assert words(value) == MISSING


@pytest.mark.parametrize("words", [percent, points, number, duration])
@pytest.mark.parametrize("value", [1e9, -1e26, 1e300, -1.7e308])
def test_no_number_is_too_large_for_a_report(words, value):
    assert words(value)


def test_what_is_no_share_is_short_still():
    assert percent(1e25) == "1e27\u00a0%"


def test_one_is_singular():
    assert plural(1, "step") == "1\u00a0step"
    assert plural(1200, "step") == "1,200\u00a0steps"


@pytest.mark.parametrize(("share", "text"), [(0.925, "93"), (0.355, "36"), (0.9249, "92")])
def test_a_half_is_rounded_up(share, text):
    assert percent(share, digits=0) == f"{text}\u00a0%"
