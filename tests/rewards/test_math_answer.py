import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mgrpo.types import Problem, Reward
from rewards.answer_forms import Relation, Scalar, Sequence, Words, read
from rewards.answer_text import clean, plain_number, tidy
from rewards.boxed import count_boxes, last_box
from rewards.math_answer import math_answer


def check(completion: str, answer: str, **options) -> Reward:
    return math_answer(completion, Problem(problem_id="p", question="", answer=answer), **options)


def boxed(answer: str) -> str:
    return f"So it is $\\boxed{{{answer}}}$."


SAME = [
    ("7", "7"),
    ("7", " 07. "),
    ("7", "7.0"),
    ("7", "x = 7"),
    ("7", "3 + 4 = 7"),
    ("7", "\\text{7}"),
    ("7", "7 \\text{ apples}"),
    ("7", "\\$7"),
    ("90", "90^\\circ"),
    ("-3", "\u22123"),
    ("1000", "1,000"),
    ("1,234,567", "1234567"),
    ("1000", "1{,}000"),
    ("1000000", "10^6"),
    ("3000", "3 \\times 10^{3}"),
    ("0.5", "\\frac12"),
    ("0.5", "1/2"),
    ("1/2", ".5"),
    ("1/2", "\\dfrac{1}{2}"),
    ("1/2", "2/4"),
    ("-1/2", "\\frac{-1}{2}"),
    ("1.5", "1\\frac{1}{2}"),
    ("50\\%", "0.5"),
    ("\\sqrt{8}", "2\\sqrt{2}"),
    ("(x+1)^2", "x^2+2x+1"),
    ("x+1", "1+x"),
    ("\\{1,2\\}", "\\{2, 1\\}"),
    ("[1, 2, 3]", "[1,2,3]"),
    ("\\frac{\\sqrt{3}}{2}", "\\frac{\\sqrt{3}}{2}"),
    ("yes", "Yes"),
    ("olleh", "\\text{olleh}"),
    ("12:30", "12:30"),
    ("1 2 3", "1 2 3"),
    ("\\boxed{7}", "7"),
]
DIFFERENT = [
    ("7", "8"),
    ("7", "-7"),
    ("7", "7, 8"),
    ("1/3", "0.333"),
    ("olleh", "hello"),  # equal as products of letters
    ("1 2 3", "3 2 1"),  # equal as products of numbers
    ("12:30", "2:5"),  # equal as quotients
    ("[1, 2, 3]", "[3, 2, 1]"),
    ("yes", "no"),
    ("123456789012345678901", "123456789012345678902"),
    ("x+1", "x-1"),
    ("1", "1e999999999"),
    ("0", "1/0"),
]
COPIED = [
    ("7", "3 + 4"),
    ("7", "10 - 3"),
    ("12", "3 \\times 4"),
    ("12", "3 * 4"),
    ("8", "2^3"),
    ("4", "\\sqrt{16}"),
    ("7", "14/2"),
    ("3", "\\frac{9}{3}"),
    ("1/2", "1/4 + 1/4"),
]


@pytest.mark.parametrize(("answer", "given_answer"), SAME)
def test_the_same_answer_in_another_spelling_is_right(answer, given_answer):
    reward = check(boxed(given_answer), answer)
    assert (reward.value, reward.correct, reward.status) == (1.0, True, "scored"), reward.detail


@pytest.mark.parametrize(("answer", "given_answer"), DIFFERENT)
def test_another_answer_is_wrong(answer, given_answer):
    reward = check(boxed(given_answer), answer)
    assert (reward.value, reward.correct, reward.status) == (0.0, False, "scored"), reward.detail


@pytest.mark.parametrize(("answer", "given_answer"), COPIED)
def test_arithmetic_is_no_answer_unless_it_is_allowed(answer, given_answer):
    assert check(boxed(given_answer), answer).correct is False
    assert check(boxed(given_answer), answer, allow_unevaluated=True).correct is True


@pytest.mark.parametrize(
    "completion",
    ["", "the answer is 7", "\\boxed{7", "\\boxed{}", "\\boxed{ }", "\\boxed 7", "\\boxedness{7}"],
)
def test_a_completion_without_a_closed_box_is_unparsable_and_worth_nothing(completion):
    reward = check(completion, "7")
    assert (reward.status, reward.value, reward.correct) == ("unparsable", 0.0, False)
    assert reward.extracted_answer is None


def test_only_the_last_box_counts():
    assert check("\\boxed{7} or rather \\boxed{8}", "8").correct
    assert not check("\\boxed{8} or rather \\boxed{7}", "8").correct


def test_an_unclosed_last_box_is_not_replaced_by_an_earlier_one():
    assert check("\\boxed{7}. No, wait: \\boxed{8", "7").status == "unparsable"


def test_nested_and_printed_braces_are_balanced():
    text = "\\boxed{\\{\\frac{1}{2}, \\frac{\\sqrt{3}}{2}\\}} }"
    box = last_box(text)
    assert box is not None
    assert box.content == "\\{\\frac{1}{2}, \\frac{\\sqrt{3}}{2}\\}"
    assert text[box.end :] == " }"
    assert last_box("\\boxed{\\boxed{5}}").content == "5"
    assert count_boxes("\\boxed{\\boxed{5}}") == 2


def test_compare_text_does_no_mathematics_and_compare_math_does_it_for_words():
    assert not check(boxed("2/4"), "1/2", compare="text").correct
    assert check(boxed("HELLO"), "hello", compare="text").correct
    assert check(boxed("yx"), "xy", compare="math").correct
    assert not check(boxed("yx"), "xy").correct


def test_an_answer_of_absurd_length_is_not_read():
    reward = check(boxed("1+" * 600 + "1"), "601")
    assert (reward.status, reward.extracted_answer) == ("unparsable", None)


def test_the_extracted_answer_is_as_the_policy_wrote_it():
    assert check(boxed("\\dfrac{1}{2} "), "1/2").extracted_answer == "\\dfrac{1}{2}"
    assert "is not" in check(boxed("8"), "7").detail


@pytest.mark.parametrize(
    ("reference", "form"),
    [
        ("7", Scalar),
        ("-1.5", Scalar),
        ("\\frac{1}{2}", Scalar),
        ("x", Scalar),
        ("x-y", Scalar),
        ("18\\text{ cm}", Scalar),
        ("hello world", Words),
        ("12:30", Words),
        ("2024-01-05", Words),
        ("1 -2 3", Words),
        ("['a', 'b']", Sequence),
        ("(1, 2)", Sequence),
        ("1, 2", Sequence),
        ("x > 2", Relation),
    ],
)
def test_a_reference_has_one_form_that_decides_how_answers_are_compared(reference, form):
    assert type(read(clean(reference))) is form


def test_numbers_too_large_to_write_out_are_no_plain_numbers():
    assert plain_number("1e301") is None
    assert plain_number("9" * 201) is None
    assert plain_number("1e300") == 10**300


@given(numerator=st.integers(-999, 999), denominator=st.integers(1, 999))
def test_a_fraction_is_equal_to_its_multiples_in_every_spelling(numerator, denominator):
    sign = "-" if numerator < 0 else ""
    size = abs(numerator)
    reference = f"{numerator}/{denominator}"
    for spelling in (
        f"{sign}\\frac{{{3 * size}}}{{{3 * denominator}}}",
        f"{numerator * 2}/{denominator * 2}",
    ):
        assert check(boxed(spelling), reference).correct
    assert not check(boxed(f"{numerator + 1}/{denominator}"), reference).correct


@given(number=st.integers(0, 10**6), other=st.integers(0, 10**6))
def test_hexadecimal_numbers_are_equal_exactly_when_their_values_are(number, other):
    assert check(boxed(f"0x{number:X}"), hex(number)).correct
    assert check(boxed(str(number)), hex(number)).correct
    assert check(boxed(hex(other)), hex(number)).correct is (number == other)


UNITS = ["cm", "\\text{ cm}", "dollars", "\\text{ dollars}", "eggs", "km/h", "m^2", "years old"]


@given(number=st.integers(0, 999), unit=st.sampled_from(UNITS), other=st.sampled_from(UNITS))
def test_a_unit_may_be_left_out_but_not_be_another_one(number, unit, other):
    assert check(boxed(f"{number} {unit}"), str(number)).correct
    assert check(boxed(str(number)), f"{number} {unit}").correct
    assert not check(boxed(f"{number + 1} {unit}"), f"{number} {unit}").correct
    same = unit.strip("\\ext{} ") == other.strip("\\ext{} ")
    assert check(boxed(f"{number} {other}"), f"{number} {unit}").correct is same


RELATIONS = [
    ">",
    "<",
    "\\ge",
    "\\le",
    "\\ne",
    "\\neq",
    "\\geq",
    "\\leqslant",
    ">=",
    "<=",
    "!=",
    "\\not=",
]


@given(number=st.integers(-99, 99), sign=st.sampled_from(RELATIONS))
def test_no_inequality_or_denial_is_the_number_in_it(number, sign):
    assert not check(boxed(f"x {sign} {number}"), str(number)).correct
    assert not check(boxed(f"{number} {sign} x"), str(number)).correct
    assert check(boxed(f"x {sign} {number}"), f"x {sign} {number}").correct


@given(numbers=st.lists(st.integers(-50, 50), min_size=2, max_size=6, unique=True), data=st.data())
def test_several_answers_are_never_one_and_a_list_has_no_order(numbers, data):
    joiner = data.draw(st.sampled_from([", ", " or ", "\\text{ and }", "; ", " = ", " = x = "]))
    answers = data.draw(st.permutations(numbers))
    row = joiner.join(map(str, answers))
    for number in numbers:
        assert not check(boxed(row), str(number)).correct
        assert not check(boxed(f"x = {row}"), str(number)).correct
    if "=" not in joiner:
        assert check(boxed(row), ", ".join(map(str, numbers))).correct
        assert not check(boxed(row), f"{numbers[0]}, {sum(map(abs, numbers)) + 51}").correct


@given(first=st.integers(1, 400), second=st.integers(1, 400), base=st.integers(2, 9))
def test_small_numbers_are_equal_only_if_their_exponents_are(first, second, base):
    answer = boxed(f"\\frac{{1}}{{{base}^{{{first}}}}}")
    assert check(answer, f"{base}^{{-{second}}}").correct is (first == second)


@given(digits=st.text("01", min_size=2, max_size=8), bases=st.permutations(range(2, 11)))
def test_the_same_digits_in_another_base_are_another_number(digits, bases):
    one, other = bases[:2]
    digits = "1" + digits
    assert check(boxed(f"{digits}_{{{one}}}"), f"{digits}_{one}").correct
    assert not check(boxed(f"{digits}_{{{other}}}"), f"{digits}_{one}").correct


@given(low=st.integers(-99, 98), size=st.integers(1, 99), left=st.booleans(), right=st.booleans())
def test_an_interval_is_its_inequality(low, size, left, right):
    high = low + size
    interval = f"{'[' if left else '('}{low}, {high}{']' if right else ')'}"
    signs = ("\\le" if left else "<", "\\le" if right else "<")
    for written in (
        f"{low} {signs[0]} x {signs[1]} {high}",
        f"x \\in {interval}",
        f"\\{{x \\mid {low} {signs[0]} x {signs[1]} {high}\\}}",
    ):
        assert check(boxed(written), interval).correct
    assert not check(boxed(f"{low} {signs[0]} x {signs[1]} {high + 1}"), interval).correct
    assert not check(boxed(f"{'(' if left else '['}{low}, {high}]"), interval).correct


@given(year=st.integers(1900, 2099), month=st.integers(1, 12), day=st.integers(1, 28))
def test_a_date_is_only_the_same_date(year, month, day):
    date = f"{year}-{month:02}-{day:02}"
    assert check(boxed(date), date).correct
    assert not check(boxed(str(year - month - day)), date).correct
    assert not check(boxed(f"{year}-{day:02}-{month:02}"), date).correct or day == month


@given(letters=st.text("abcdefghklmnpqrstuvwxyz", min_size=1, max_size=3))
def test_a_capital_is_another_symbol(letters):
    reference = "+".join(f"2{letter}" for letter in letters)
    assert check(boxed(reference), reference).correct
    assert not check(boxed(reference.upper()), reference).correct


NO_REFERENCES = ["", " ", ".", ",", "$", "$$", "\\text{}", "{}", "nan", "NaN", "inf", "-inf"]


@pytest.mark.parametrize("reference", NO_REFERENCES)
@given(answer=st.text(max_size=12))
def test_no_text_earns_the_reward_of_an_empty_reference(reference, answer):
    assert not check(boxed(answer), reference).correct
    assert not check(boxed(reference), reference).correct


@pytest.mark.parametrize(
    ("completion", "correct"),
    [
        ("The answer is \\boxed{5}. As asked, I have put it in \\boxed{}.", True),
        ("\\boxed{5} and \\boxed{ }", True),
        ("\\boxed{5} is in \\boxed{\\text{}}", True),
        ("\\boxed{5}. I used \\boxed as asked.", True),
        ("\\boxed{} \\boxed{6} \\boxed{}", False),
        ("\\boxed{5} \\boxed{6} \\boxed{}", False),
        ("\\boxed{5} \\boxed{", False),
        ("\\boxed{5}, no: \\boxed 6", False),
    ],
)
def test_an_empty_box_does_not_take_back_the_one_before_it(completion, correct):
    assert check(completion, "5").correct is correct


MESSY = st.text(alphabet="\\{}$^_/+-=,. 0123456789abxyfrcsqt", max_size=24)


@settings(max_examples=150, deadline=None)
@given(before=st.text(max_size=20), answer=st.text(max_size=15), after=st.text(max_size=20))
def test_the_same_text_always_gets_the_same_reward(before, answer, after):
    text = f"{before}\\boxed{{{answer}}}{after}"
    first = check(text, "12")
    assert check(text, "12") == first
    assert first.value in (0.0, 1.0)
    assert first.status in ("scored", "unparsable")


@settings(max_examples=150, deadline=None)
@given(answer=MESSY)
def test_no_text_is_too_messy_to_tidy_and_classify(answer):
    tidied = tidy(answer)
    assert tidy(tidied) == tidy(tidy(tidied))
    assert read(clean(answer)) == read(clean(answer))
    assert last_box(f"\\boxed{{{answer}}}") is None or count_boxes(f"\\boxed{{{answer}}}") >= 1


@given(st.text(max_size=30), st.sampled_from(["7", "1234567", "\\frac{5}{12}", "(3, 4)", "Lima"]))
def test_feedback_never_names_the_reference(wrong: str, answer: str):
    for text in (wrong, boxed(wrong), boxed("x" * 2000), boxed(answer)):
        reward = check(text, answer)
        assert reward.feedback and answer not in reward.feedback
        assert not any(digit in reward.feedback for digit in "0123456789")


def test_feedback_says_what_is_wrong():
    assert "no answer in a closed" in check("It is 7.", "7").feedback
    assert "not the expected one" in check(boxed("8"), "7").feedback
    assert check(boxed("7"), "7").feedback == "The answer is right."
