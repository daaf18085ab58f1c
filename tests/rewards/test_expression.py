from fractions import Fraction

import pytest

from rewards.expression import literal_value, read_expression
from rewards.expression_value import are_equal, constant_ratio
from rewards.unfinished import is_arithmetic, is_unfinished


def equal(one: str, other: str) -> bool:
    nodes = read_expression(one), read_expression(other)
    assert nodes[0] is not None, one
    assert nodes[1] is not None, other
    return are_equal(*nodes)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("-x^2", "-(x^2)"),
        ("2^3^2", "2^9"),
        ("1/2x", "x/2"),
        ("6/2/3", "1"),
        ("2-3-4", "-5"),
        ("\\frac12x", "0.5x"),
        ("\\sqrt4x", "2x"),
        ("\\sqrt[3]{-8}", "-2"),
        ("\\sin 2x \\cos x", "\\cos(x) \\sin(2x)"),
        ("\\sin^2 x", "(\\sin x)^2"),
        ("\\sin(x)^2", "(\\sin x)^2"),
        ("\\sin^{-1} x", "\\arcsin x"),
        ("\\log_2 8", "3"),
        ("3!^2", "36"),
        ("|x-1||x+1|", "|x^2-1|"),
        ("2\\frac{3}{4}", "2.75"),
        ("2\\frac{5}{3}", "10/3"),
        ("x^2\\frac{1}{2}", "x^2/2"),
        ("xsin(x)", "x\\sin x"),
        ("2pi", "2\\pi"),
        ("e^{i\\pi}", "-1"),
        ("x_1 x_{12}", "x_{12}x_1"),
    ],
)
def test_formulas_mean_what_they_usually_mean(written, meant):
    assert equal(written, meant)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "+",
        "2 3",
        "x2",
        "(",
        "1 +",
        "\\frac{1}",
        "2^",
        "hello",
        "\\sum_{i} i",
        "3,4",
        "5!!",
        "a=b",
    ],
)
def test_what_is_no_formula_is_not_read(text):
    assert read_expression(text) is None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("x", "X"),
        ("x_1", "x_2"),
        ("f(2x)", "2f(x)"),
        ("\\sqrt{x^2}", "x"),
        ("\\pi", "3.14159265358979323846264338327950288419716939937510"),
        ("10^{-300}\\pi", "10^{-301}\\pi"),
        ("2^{2000}", "2^{2000}+1"),
        ("1+e^{-300}", "1"),
        ("\\sin 10^{-90}", "\\sin 10^{-91}"),
        ("9^{9^{9^9}}", "9^{9^{9^9}}"),
        ("\\log 2", "\\ln 2"),
        ("1/0", "1/0"),
    ],
)
def test_these_are_not_equal(one, other):
    assert not equal(one, other)


def test_equations_are_the_same_up_to_a_constant_factor():
    line, double, other = map(read_expression, ("x+y-5", "10-2x-2y", "x-y-5"))
    assert constant_ratio(line, double) == -2
    assert constant_ratio(line, other) is None


def test_numbers_that_are_written_out_have_an_exact_value():
    values = {
        "-3": -3,
        "0.1": Fraction(1, 10),
        "3\\times10^{2}": 300,
        "\\frac{-1}{2}": Fraction(-1, 2),
    }
    for text, value in values.items():
        assert literal_value(read_expression(text)) == value
    for text in ("3+4", "2^3", "3\\cdot4", "--3", "\\sqrt4", "x"):
        node = read_expression(text)
        assert node is None or literal_value(node) is None


@pytest.mark.parametrize(
    ("answer", "reference", "unfinished"),
    [
        ("3+4", "7", True),
        ("14/2", "7", True),
        ("2/4", "1/2", False),
        ("\\sqrt{12}", "2\\sqrt{3}", True),
        ("2\\sqrt{3}", "\\sqrt{12}", False),
        ("\\sin 1", "\\cos 1", False),
        ("\\sin 1", "\\frac{1}{2}\\pi", True),
        ("(x+1)^2", "x^2+2x+1", False),
        ("2\\pi+3\\pi", "5\\pi", True),
    ],
)
def test_arithmetic_is_unfinished_where_the_reference_has_done_it(answer, reference, unfinished):
    assert is_unfinished(read_expression(answer), read_expression(reference)) is unfinished


def test_only_sums_and_products_of_plain_numbers_are_arithmetic():
    assert all(is_arithmetic(read_expression(text)) for text in ("3+4", "(8-2)*4/3", "2\\cdot3"))
    others = ("7", "3/4", "2^3", "1+\\sqrt{2}", "2+3i", "x+1", "3\\times10^2")
    assert not any(is_arithmetic(read_expression(text)) for text in others)
