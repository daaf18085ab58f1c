import pytest

from rewards.units import read_unit


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("cm", "centimeters"),
        ("km/h", "kilometers per hour"),
        ("km/h", "km h^{-1}"),
        ("mph", "miles per hour"),
        ("cm^2", "square centimeters"),
        ("sq. ft.", "ft^2"),
        ("feet", "foot"),
        ("\\$", "dollars"),
        ("apples", "red apples"),
        ("boxes", "box"),
        ("cups of sugar", "cups"),
    ],
)
def test_spellings_of_one_unit(one, other):
    assert read_unit(one).is_same(read_unit(other))
    assert read_unit(other).is_same(read_unit(one))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("cm", "m"),
        ("cm", "cm^2"),
        ("m/s", "s/m"),
        ("\\$", "€"),
        ("red apples", "green apples"),
        ("apples per day", "oranges per day"),
        ("mL", "L"),
    ],
)
def test_other_units(one, other):
    assert not read_unit(one).is_same(read_unit(other))


@pytest.mark.parametrize(
    "text",
    ["", "or 8", "and a half", "squared", "hundred", "+ 1", "x", "if even", "of 7", "thirds"],
)
def test_what_changes_the_number_is_no_unit(text):
    assert read_unit(text) is None
