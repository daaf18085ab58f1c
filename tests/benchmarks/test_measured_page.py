"""Numbers between the marks, prose around them."""

from __future__ import annotations

import pytest

from benchmarks.measured_page import BEGIN, END, marks, write_measured


def test_what_stands_around_the_marks_is_kept(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"head\n{BEGIN}\nold\n{END}\ntail\n")

    write_measured(page, "new", title="unused")

    assert page.read_text() == f"head\n{BEGIN}\nnew\n{END}\ntail\n"


def test_each_of_several_parts_has_marks_of_its_own(tmp_path):
    page = tmp_path / "page.md"
    first, second = marks("first"), marks("second")
    page.write_text("\n".join([*first, "between", *second]))

    write_measured(page, "1", title="unused", part="first")
    write_measured(page, "2", title="unused", part="second")

    expected = [first[0], "1", first[1], "between", second[0], "2", second[1]]
    assert page.read_text() == "\n".join(expected)


def test_a_page_that_is_not_there_is_made(tmp_path):
    page = tmp_path / "results" / "page.md"

    write_measured(page, "numbers", title="A study")

    assert page.read_text() == f"# A study\n\n{BEGIN}\nnumbers\n{END}\n"


def test_a_page_without_marks_is_left_alone(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("prose\n")

    with pytest.raises(ValueError, match="once each"):
        write_measured(page, "numbers", title="unused")
    assert page.read_text() == "prose\n"
