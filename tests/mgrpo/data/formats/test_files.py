"""Every form of file gives the rows that were written into it, values as they were written."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mgrpo.config import RowsSource
from mgrpo.data.formats import huggingface
from mgrpo.data.problems import load_problems
from mgrpo.errors import DataError, HubUnreachable
from mgrpo.types import Problem

ROWS = [{"question": f"What is {n} + {n}?", "answer": str(2 * n)} for n in range(5)]


def of_split(**keys: object) -> RowsSource:
    return RowsSource.model_validate({"split": "train", **keys})


SOURCES = [RowsSource, of_split]


def as_csv(rows: list[dict[str, str]], delimiter: str = ",") -> str:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def write(file: Path, rows: list[dict[str, str]]) -> Path:
    """The rows in the form that the name says."""
    name = file.name
    text = {
        "jsonl": "".join(json.dumps(row) + "\n" for row in rows),
        "json": json.dumps(rows, indent=1),
        "csv": as_csv(rows),
        "tsv": as_csv(rows, "\t"),
    }
    kind = next(part for part in name.split(".") if part in (*text, "parquet", "arrow"))
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), file)
        return file
    if kind == "arrow":
        table = pa.Table.from_pylist(rows)
        new = pa.ipc.new_stream if "stream" in name else pa.ipc.new_file
        with new(file, table.schema) as writer:
            writer.write_table(table)
        return file
    data = text[kind].encode()
    pack = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}
    file.write_bytes(pack.get(name.split(".")[-1], bytes)(data))
    return file


def pairs(problems: list[Problem]) -> list[tuple[str, str]]:
    return [(problem.question, problem.answer) for problem in problems]


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize(
    "name",
    [
        "sums.jsonl",
        "sums.json",
        "sums.csv",
        "sums.tsv",
        "sums.parquet",
        "sums.arrow",
        "sums.stream.arrow",
        "sums.jsonl.gz",
        "sums.csv.bz2",
        "sums.json.xz",
    ],
)
def test_a_single_file_of_any_form_is_read(tmp_path: Path, name: str, source):
    data = load_problems(source(path=str(write(tmp_path / name, ROWS))))
    assert pairs(data.problems) == [(row["question"], row["answer"]) for row in ROWS]
    assert data.num_dropped.total() == 0
    assert len({problem.problem_id for problem in data.problems}) == len(ROWS)
    assert all(problem.problem_id.startswith("sums") for problem in data.problems)


@pytest.mark.parametrize("source", SOURCES)
def test_a_table_of_verls_form_is_read(tmp_path: Path, source):
    rows = [
        {
            "prompt": [{"role": "user", "content": row["question"]}],
            "reward_model": {"style": "rule", "ground_truth": row["answer"]},
        }
        for row in ROWS
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "train.parquet")
    fields = {"question_field": "prompt", "answer_field": "reward_model.ground_truth"}
    for path in (tmp_path / "train.parquet", tmp_path):
        problems = load_problems(source(path=str(path), **fields)).problems
        assert pairs(problems) == [(row["question"], row["answer"]) for row in ROWS]


def test_the_content_counts_where_the_name_says_something_else(tmp_path: Path):
    table = write(tmp_path / "rows.parquet", ROWS).rename(tmp_path / "rows.jsonl")
    assert len(load_problems(RowsSource(path=str(table))).problems) == len(ROWS)
    lines = write(tmp_path / "lines.jsonl", ROWS).rename(tmp_path / "lines.json")
    assert len(load_problems(RowsSource(path=str(lines))).problems) == len(ROWS)


def test_a_folder_of_files_is_read_in_the_order_of_their_names(tmp_path: Path):
    write(tmp_path / "b.csv", ROWS[2:])
    write(tmp_path / "a.jsonl", ROWS[:2])
    (tmp_path / "notes.txt").write_text("not data")
    data = load_problems(RowsSource(path=str(tmp_path)))
    assert pairs(data.problems) == [(row["question"], row["answer"]) for row in ROWS]
    assert len({problem.problem_id for problem in data.problems}) == len(ROWS)


printable = st.text(
    st.characters(codec="utf-8", exclude_characters="\0\r\n\x85\u2028\u2029"), min_size=1
).map(lambda text: f"q{text}?")


@given(
    st.lists(st.tuples(printable, st.integers(-(10**40), 10**40)), min_size=1, max_size=6),
    st.sampled_from(["jsonl", "json", "csv", "tsv", "parquet"]),
)
def test_text_comes_back_as_it_was_written(tmp_path_factory, drawn, kind: str):
    rows = [{"question": question, "answer": str(number)} for question, number in drawn]
    file = write(tmp_path_factory.mktemp("rows") / f"rows.{kind}", rows)
    loaded = load_problems(RowsSource(path=str(file)))
    assert pairs(loaded.problems) == [(row["question"].strip(), row["answer"]) for row in rows]


# --- values are not changed ---


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("7", "7"),
        ("18.0", "18.0"),
        ("0.1", "0.1"),
        ("3.14159265358979323846", "3.14159265358979323846"),
        ("123456789012345678901234567890", "123456789012345678901234567890"),
        ("true", "True"),
        ('"007"', "007"),
    ],
)
def test_a_json_number_is_the_text_that_stands_in_the_file(
    tmp_path: Path, written: str, expected: str
):
    file = tmp_path / "rows.jsonl"
    file.write_text('{"question": "How much?", "answer": %s}' % written)  # noqa: UP031
    (problem,) = load_problems(RowsSource(path=str(file))).problems
    assert problem.answer == expected


def test_csv_values_are_text_so_that_no_digit_and_no_word_is_lost(tmp_path: Path):
    answers = ["007", "NA", "None", "1e5", "1,000", "0.10", "true"]
    rows = [{"question": f"Question {n}", "answer": answer} for n, answer in enumerate(answers)]
    file = write(tmp_path / "train.csv", rows)
    assert [p.answer for p in load_problems(RowsSource(path=str(file))).problems] == answers
    folder = of_split(path=str(tmp_path))  # through the datasets library
    assert [p.answer for p in load_problems(folder).problems] == answers


def test_numbers_of_a_table_are_what_they_mean(tmp_path: Path):
    columns = {
        "question": ["a", "b", "c", "d"],
        "whole": pa.array([7.0, None, 12.0, 3.5]),  # whole numbers with a gap, as pandas keeps them
        "narrow": pa.array([0.1, 2.5, 1e-3, 3.0], pa.float32()),
        "big": pa.array([2**62 + 1] * 4),
    }
    file = tmp_path / "rows.parquet"
    pq.write_table(pa.table(columns), file)

    def answers(column: str) -> list[str]:
        source = RowsSource(path=str(file), answer_field=column)
        return [problem.answer for problem in load_problems(source).problems]

    assert answers("whole") == ["7", "12", "3.5"]
    assert answers("narrow") == ["0.1", "2.5", "0.001", "3"]
    assert answers("big") == [str(2**62 + 1)] * 4


def test_narrow_numbers_inside_other_columns_are_read_as_they_print(tmp_path: Path):
    inner = pa.struct([("truth", pa.float32()), ("all", pa.list_(pa.float32()))])
    table = pa.table({"question": ["a"], "gold": pa.array([{"truth": 0.1, "all": [0.7]}], inner)})
    pq.write_table(table, tmp_path / "rows.parquet")
    for field, expected in (("gold.truth", "0.1"), ("gold.all.0", "0.7")):
        source = RowsSource(path=str(tmp_path / "rows.parquet"), answer_field=field)
        assert [problem.answer for problem in load_problems(source).problems] == [expected]


# --- what cannot be read is said ---


def test_a_csv_row_with_a_stray_comma_is_counted_and_not_misread(tmp_path: Path):
    file = tmp_path / "rows.csv"
    file.write_text("question,answer\nWhat is 1,000 + 2?,1002\nWhat is 3 + 4?,7\n")
    data = load_problems(RowsSource(path=str(file)))
    assert pairs(data.problems) == [("What is 3 + 4?", "7")]
    assert data.num_dropped.total() == 1
    assert "line 2" in data.describe_dropped()


def test_a_csv_value_may_hold_commas_quotes_and_lines(tmp_path: Path):
    rows = [{"question": 'Say "1,2"\nand more', "answer": "1"}, {"question": "next", "answer": "2"}]
    data = load_problems(RowsSource(path=str(write(tmp_path / "rows.csv", rows))))
    assert pairs(data.problems) == [(row["question"], row["answer"]) for row in rows]


def test_a_csv_quote_that_is_never_closed_is_an_error_with_its_line(tmp_path: Path):
    file = tmp_path / "rows.csv"
    file.write_text('question,answer\na,1\n"b,2\nc,3\n')
    with pytest.raises(DataError, match="line 3 and is never closed"):
        load_problems(RowsSource(path=str(file)))


def test_lines_that_end_as_on_an_old_macintosh_are_an_error_that_says_so(tmp_path: Path):
    file = tmp_path / "rows.csv"
    file.write_bytes(b"question,answer\ra,1\rb,2\r")
    with pytest.raises(DataError, match="not with CR alone"):
        load_problems(RowsSource(path=str(file)))


def test_semicolons_of_a_spreadsheet_part_columns(tmp_path: Path):
    file = tmp_path / "rows.csv"
    file.write_text("\ufeffquestion;answer\nHalf of 1?;0,5\n", encoding="utf-8")
    assert pairs(load_problems(RowsSource(path=str(file))).problems) == [("Half of 1?", "0,5")]


def test_one_line_that_is_not_utf8_costs_that_line(tmp_path: Path):
    file = tmp_path / "rows.jsonl"
    lines = [json.dumps(row).encode() for row in ROWS]
    file.write_bytes(b"\n".join([lines[0], lines[1][:14] + b"\xff" + lines[1][14:], *lines[2:]]))
    data = load_problems(RowsSource(path=str(file)))
    assert dict(data.num_dropped) == {"not UTF-8 text": 1}
    assert data.examples["not UTF-8 text"] == ["line 2"]


@pytest.mark.parametrize("name", ["rows.parquet", "rows.jsonl.gz"])
def test_half_a_file_is_an_error_that_names_it(tmp_path: Path, name: str):
    file = write(tmp_path / name, ROWS * 50)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(DataError, match=r"rows\..* cannot be read"):
        load_problems(RowsSource(path=str(file)))


def test_an_archive_or_a_spreadsheet_is_refused_with_what_to_do(tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "rows.xlsx", "w") as archive:
        archive.writestr("sheet.xml", "<rows/>")
    with pytest.raises(DataError, match="save the sheet as CSV"):
        load_problems(RowsSource(path=str(tmp_path / "rows.xlsx")))


def test_a_single_file_has_one_split(tmp_path: Path):
    file = write(tmp_path / "rows.parquet", ROWS)
    with pytest.raises(DataError, match="no split 'test'"):
        load_problems(RowsSource(path=str(file), split="test"))


@pytest.mark.parametrize(
    "path",
    [
        "/no/such/folder",
        "./nothing",
        "../nothing-here",
        "~/nothing-of-this-name",
        "nothing.parquet",
        "nothing.jsonl.gz",
        "data/of/mine",
    ],
)
def test_a_local_path_that_does_not_exist_is_not_blamed_on_the_hub(monkeypatch, path: str):
    monkeypatch.setattr(huggingface, "is_hub_reachable", lambda: False)
    with pytest.raises(DataError, match="There is no file"):
        load_problems(of_split(path=path))


def test_a_link_to_nothing_is_said_to_be_one(tmp_path: Path):
    link = tmp_path / "train.jsonl"
    link.symlink_to("elsewhere.jsonl")
    with pytest.raises(DataError, match=r"train\.jsonl is a link to elsewhere\.jsonl, which"):
        load_problems(RowsSource(path=str(link)))


def test_a_name_that_could_be_the_hubs_is_local_where_its_folder_is(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(huggingface, "is_hub_reachable", lambda: False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(HubUnreachable):
        load_problems(of_split(path="mydata/sums"))
    (tmp_path / "mydata").mkdir()
    with pytest.raises(DataError, match="There is no file mydata/sums"):
        load_problems(of_split(path="mydata/sums"))


def test_a_data_set_with_a_loading_script_is_refused_with_a_way_on(tmp_path: Path):
    folder = tmp_path / "script"
    folder.mkdir()
    (folder / "script.py").write_text(
        "import datasets\n\n\nclass Old(datasets.GeneratorBasedBuilder):\n    pass\n"
    )
    with pytest.raises(DataError, match=r"a loading script are not supported.*Parquet"):
        load_problems(of_split(path=str(folder)))


@pytest.mark.parametrize("error", [RuntimeError("odd"), pa.ArrowInvalid("odd"), KeyError("odd")])
def test_whatever_the_datasets_library_raises_is_a_data_error(tmp_path: Path, monkeypatch, error):
    def broken(*args: object, **kwargs: object) -> None:
        raise error

    monkeypatch.setattr("datasets.load_dataset_builder", broken)
    with pytest.raises(DataError, match="odd"):
        load_problems(of_split(path=str(tmp_path)))
