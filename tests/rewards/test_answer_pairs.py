"""Every labelled pair, the bounds on mistakes, and the page that reports them."""

import re
from collections import Counter

import pytest

from benchmarks.answers import PAGE, PAIRS, SETTINGS_KIND, Pair, accepts, mistakes, read_pairs
from rewards.answer_text import plain_number, tidy

ALL_PAIRS = read_pairs()
MAX_FALSE_POSITIVES = 0.005
MAX_FALSE_NEGATIVES = 0.03


def name_of(pair: Pair) -> str:
    settings = "".join(f" {name}={value}" for name, value in pair.settings.items())
    relation = "is" if pair.expected else "is not"
    return f"{pair.kind}: {pair.boxed} {relation} {pair.reference}{settings}"


def kinds() -> list[str]:
    found = sorted(path.stem for path in PAIRS.glob("*.jsonl"))
    assert SETTINGS_KIND in found
    return found


@pytest.mark.parametrize("kind", kinds())
def test_answers_are_graded_as_they_are_labelled(kind):
    of_kind = [pair for pair in ALL_PAIRS if pair.kind == kind]
    assert of_kind
    assert [name_of(pair) for pair in of_kind if accepts(pair) is not pair.expected] == []


def test_every_reference_is_its_own_answer():
    references = {p.reference for p in ALL_PAIRS if p.kind != "empty_references"}
    pairs = [Pair(kind="own", reference=r, boxed=r, expected=True) for r in sorted(references)]
    assert [pair.reference for pair in pairs if not accepts(pair)] == []


def test_mistakes_stay_within_the_promised_bounds():
    refused, accepted = mistakes(ALL_PAIRS, accepts)
    num_right = sum(pair.expected for pair in ALL_PAIRS)
    assert refused <= MAX_FALSE_NEGATIVES * num_right
    assert accepted <= MAX_FALSE_POSITIVES * (len(ALL_PAIRS) - num_right)


def test_the_set_has_no_pair_twice_and_both_labels_in_every_kind():
    pairs = Counter((p.reference, p.boxed, str(p.settings)) for p in ALL_PAIRS)
    assert [pair for pair, times in pairs.items() if times > 1] == []
    labels = {kind: {p.expected for p in ALL_PAIRS if p.kind == kind} for kind in kinds()}
    one_sided = {kind for kind, found in labels.items() if len(found) < 2}
    assert one_sided <= {"empty_references", "gaming"}  # no answer to these is right
    assert len(ALL_PAIRS) >= 500


def test_the_page_shows_the_pairs_that_there_are():
    rows = re.findall(r"^\| (\w+) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \|", PAGE.read_text(), re.M)
    found = {kind: (int(right), int(wrong)) for kind, right, wrong, _, _ in rows}
    right = Counter(pair.kind for pair in ALL_PAIRS if pair.expected)
    wrong = Counter(pair.kind for pair in ALL_PAIRS if not pair.expected)
    assert found == {kind: (right[kind], wrong[kind]) for kind in kinds()}, (
        "run `make answers ARGS=--write`"
    )


def test_the_page_shows_fewer_mistakes_than_math_verify_makes():
    cells = re.search(r"^\| \*\*all\*\* \|(.*)\|$", PAGE.read_text(), re.M)
    assert cells is not None
    *_, refused, accepted, their_refused, their_accepted = map(int, cells[1].split("|"))
    assert refused < their_refused
    assert accepted < their_accepted


HEDGES = [
    *("%r \\text{ or } %o", "%o or %r", "%r; %o", "%o, %r", "\\text{either } %r \\text{ or } %o"),
    *("\\text{not } %r", "x \\ne %r", "x > %r", "x \\le %r", "%r \\text{ (or } %o)", "%o \\to %r"),
    *("\\begin{cases}%r\\\\%o\\end{cases}", "%r \\\\[%o]", "%r \\text{ is wrong}", "%o \\quad %r"),
    *("-(%r)", "2(%r)", "%r + 10^{-20}", "|%r|+1", "x=%r \\lor x=%o", "%o = %r", "x = %o = %r"),
]


@pytest.mark.parametrize("hedge", HEDGES)
def test_a_number_beside_something_else_is_not_the_number(hedge):
    numbers = {p.reference for p in ALL_PAIRS if is_number(p.reference)}
    for reference, other in zip(sorted(numbers), sorted(numbers, reverse=True), strict=True):
        if not accepts(Pair(kind="", reference=reference, boxed=other, expected=False)):
            boxed = hedge.replace("%r", reference).replace("%o", other)
            hedged = Pair(kind="", reference=reference, boxed=boxed, expected=False)
            assert not accepts(hedged), boxed


def is_number(reference: str) -> bool:
    value = plain_number(tidy(reference))
    return value is not None and value != 0
