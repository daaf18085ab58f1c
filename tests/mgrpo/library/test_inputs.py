"""Data of a calling program as a section of a recipe."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mgrpo.errors import DataError
from mgrpo.library.inputs import data_section

ROWS = [{"question": "What is 3 + 4?", "answer": "7"}, {"question": "π?", "answer": 3.0}]


def test_rows_are_written_beside_the_run(tmp_path: Path) -> None:
    folder = tmp_path / "sums.inputs"
    section = data_section(ROWS, "train", folder)
    assert section == {"path": str(folder / "train.jsonl")}
    lines = (folder / "train.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == ROWS


def test_a_data_set_of_the_library_is_rows(tmp_path: Path) -> None:
    from datasets import Dataset

    rows = [{"question": "a", "answer": "1"}, {"question": "b", "answer": "2"}]
    data_section(Dataset.from_list(rows), "heldout", tmp_path)
    lines = (tmp_path / "heldout.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == rows


@pytest.mark.parametrize("given", ["sums.jsonl", "openai/gsm8k", Path("data/*.parquet")])
def test_a_path_or_a_name_on_the_hub_is_the_source_s_path(given) -> None:
    assert data_section(given, "train", Path()) == {"path": str(given)}


def test_a_section_stays_as_it_is() -> None:
    section = {"path": "x.csv", "question_field": "q"}
    assert data_section(section, "train", Path()) == section


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (["What is 3 + 4?"], "row 1 is a str, not a dict"),
        ([ROWS[0], {"question": {1, 2}}], "row 2 cannot be written as JSON"),
        ([], "there are no rows"),
        ({"train": ROWS, "test": ROWS}, 'data\\["train"\\]'),
    ],
)
def test_what_is_no_data_is_refused(rows, expected: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=expected):
        data_section(rows, "train", tmp_path)
    assert not (tmp_path / "train.jsonl").exists()
