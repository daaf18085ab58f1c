"""Data sets in the schemas of other systems, each by one line of the recipe."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import TypeAdapter

from mgrpo.config.data import DataSource
from mgrpo.data.formats.rows import LoadedData
from mgrpo.data.problems import load_problems
from mgrpo.errors import DataError

SYSTEM = {"role": "system", "content": "Add the numbers."}
ASKED = {"role": "user", "content": "1 + 1?"}
TOLD = {"role": "assistant", "content": "It is 2."}
QUESTION = {"role": "user", "content": "3 + 4?"}


def load(**source: Any) -> LoadedData:
    """What a line of the recipe reads."""
    return load_problems(TypeAdapter(DataSource).validate_python(source))


def lines(file: Path, *rows: object) -> str:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


def verl_rows(count: int = 3) -> list[dict[str, Any]]:
    """As verl's examples/data_preprocess/gsm8k.py writes them."""
    return [
        {
            "data_source": "openai/gsm8k",
            "prompt": [{"role": "user", "content": f"What is {n} + {n}?"}],
            "ability": "math",
            "reward_model": {"style": "rule", "ground_truth": str(2 * n)},
            "extra_info": {"split": "train", "index": n, "answer": f"so #### {2 * n}"},
        }
        for n in range(count)
    ]


def test_verl(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(verl_rows()), tmp_path / "train.parquet")
    data = load(format="verl", path=str(tmp_path / "train.parquet"))
    problem = data.problems[2]
    assert (problem.question, problem.answer) == ("What is 2 + 2?", "4")
    assert problem.domain == "openai/gsm8k"
    assert problem.metadata == {
        "data_source": "openai/gsm8k",
        "ability": "math",
        "reward_model": {"style": "rule", "ground_truth": "4"},
        "extra_info": {"split": "train", "index": 2, "answer": "so #### 4"},
    }


def test_an_answer_that_is_a_list_of_one_is_that_answer(tmp_path: Path) -> None:
    row = verl_rows(1)[0]
    path = lines(tmp_path / "a.jsonl", row, {**row, "reward_model": {"ground_truth": ["72"]}})
    assert [one.answer for one in load(format="verl", path=path).problems] == ["0", "72"]


@pytest.mark.parametrize("column", ["answer", "ground_truth", "solution"])
def test_trl(tmp_path: Path, column: str) -> None:
    path = lines(
        tmp_path / "a.jsonl",
        {"prompt": "3 + 4?", column: "7", "level": 2},
        {"prompt": [SYSTEM, ASKED, TOLD, QUESTION], column: "7", "level": None},
    )
    plain, chat = load(format="trl", path=path).problems
    assert (plain.question, plain.answer, plain.earlier_turns) == ("3 + 4?", "7", [])
    assert (plain.is_chat, chat.is_chat) == (False, True)
    assert chat.chat == [SYSTEM, ASKED, TOLD, QUESTION]
    assert plain.metadata == {column: "7", "level": 2}
    assert (chat.question, chat.answer) == ("3 + 4?", "7")
    assert chat.earlier_turns == [SYSTEM, ASKED, TOLD]
    assert chat.metadata == {column: "7", "level": None}


def test_of_a_worked_solution_and_an_answer_the_answer_is_compared_with(tmp_path: Path) -> None:
    row = {"prompt": "3 + 4?", "solution": "3 and 4 are 7.", "answer": "7"}
    (problem,) = load(format="trl", path=lines(tmp_path / "a.jsonl", row)).problems
    assert problem.answer == "7"


def test_openrlhf(tmp_path: Path) -> None:
    path = lines(
        tmp_path / "a.jsonl",
        {"input": "3 + 4?", "label": "7", "datasource": "sums"},
        {"input": [SYSTEM, QUESTION], "label": 7},
    )
    data = load(format="openrlhf", path=path, user_template="Question: {problem}\nAnswer:")
    assert [one.question for one in data.problems] == ["Question: 3 + 4?\nAnswer:"] * 2
    assert [one.domain for one in data.problems] == ["sums", "default"]
    assert data.problems[1].earlier_turns == [SYSTEM]


def test_messages_end_with_the_reference(tmp_path: Path) -> None:
    reply = {"role": "assistant", "content": "3 and 4 are\n#### 7"}
    path = lines(
        tmp_path / "a.jsonl",
        {"messages": [SYSTEM, ASKED, TOLD, QUESTION, reply], "id": "a"},
        {"messages": [QUESTION], "answer": "7"},
        {"messages": [QUESTION, {"role": "assistant", "content": "It is \\boxed{7}"}]},
        {"messages": [QUESTION]},
    )
    data = load(format="messages", path=path)
    first, second, third = data.problems
    assert first.earlier_turns == [SYSTEM, ASKED, TOLD]
    assert (first.question, first.answer) == ("3 + 4?", "7")
    assert first.solution == reply["content"]
    assert first.metadata == {"id": "a"}
    assert (second.answer, second.solution) == ("7", "")
    assert third.answer == "It is \\boxed{7}"
    assert data.describe_dropped() == "1 no answer (line 4)"


def test_turns_in_the_form_of_sharegpt(tmp_path: Path) -> None:
    chat = [{"from": "human", "value": "1 + 1?"}, {"from": "gpt", "value": "2"}]
    row = {"messages": [*chat, {"from": "human", "value": "3 + 4?"}, {"from": "gpt", "value": "7"}]}
    (problem,) = load(format="messages", path=lines(tmp_path / "a.jsonl", row)).problems
    assert problem.earlier_turns == [ASKED, {"role": "assistant", "content": "2"}]
    assert problem.answer == "7"


@pytest.mark.parametrize(
    ("chat", "reason"),
    [
        ([ASKED, {"role": "tool", "content": "2"}, QUESTION], "a turn of the role 'tool'"),
        ([ASKED, SYSTEM, QUESTION], "a system turn after others"),
    ],
)
def test_turns_that_no_template_takes_are_counted(tmp_path: Path, chat: object, reason: str):
    path = lines(
        tmp_path / "a.jsonl", {"prompt": chat, "answer": "7"}, {"prompt": "q", "answer": 1}
    )
    assert reason in load(format="trl", path=path).describe_dropped()


def test_a_system_turn_of_the_source_is_for_rows_without_one(tmp_path: Path) -> None:
    own = {"role": "system", "content": "Be brief."}
    path = lines(
        tmp_path / "a.jsonl",
        {"prompt": [own, QUESTION], "answer": "7"},
        {"prompt": [ASKED, TOLD, QUESTION], "answer": "7"},
        {"prompt": [{"role": "system", "content": " "}, QUESTION], "answer": "7"},
    )
    problems = load(format="trl", path=path, system_prompt="Add the numbers.").problems
    assert [one.earlier_turns for one in problems] == [[own], [SYSTEM, ASKED, TOLD], [SYSTEM]]


# --- rows without an answer ---


def test_rows_without_an_answer_are_kept_where_that_is_said(tmp_path: Path) -> None:
    rows = [{"prompt": "Write a poem."}, {"prompt": "And one more.", "answer": " "}]
    path = lines(tmp_path / "a.jsonl", *rows)
    assert [p.answer for p in load(format="trl", path=path, needs_answer=False).problems] == [
        "",
        "",
    ]
    with pytest.raises(DataError, match="2 no answer"):
        load(format="trl", path=path)
    with pytest.raises(DataError, match=r"needs_answer: false"):
        load(format="trl", path=lines(tmp_path / "b.jsonl", rows[0]))


def test_a_misspelt_answer_column_is_refused_in_any_case(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", {"prompt": "q", "answer": "7"})
    with pytest.raises(DataError, match="Did you mean answer"):
        load(format="trl", path=path, answer_field="anwser", needs_answer=False)


def test_gaps_of_a_table_are_no_answers(tmp_path: Path) -> None:
    table = pa.table({"question": ["a", "b", "c"], "answer": pa.array([7.0, float("nan"), None])})
    pq.write_table(table, tmp_path / "a.parquet")
    data = load(path=str(tmp_path / "a.parquet"), needs_answer=False)
    assert [one.answer for one in data.problems] == ["7", "", ""]


def test_an_answer_that_is_no_text_is_left_to_the_metadata(tmp_path: Path) -> None:
    tests = {"inputs": ["1 2"], "outputs": ["3"]}
    path = lines(tmp_path / "a.jsonl", {"prompt": "Add.", "reward_model": {"ground_truth": tests}})
    with pytest.raises(DataError, match="answer is a dict, not text"):
        load(format="verl", path=path)
    (problem,) = load(format="verl", path=path, needs_answer=False).problems
    assert problem.answer == ""
    assert problem.metadata["reward_model"]["ground_truth"] == tests


# --- metadata ---


def test_metadata_of_any_type_is_plain_and_bounded(tmp_path: Path) -> None:
    columns = {
        "prompt": ["a", "b"],
        "answer": ["1", "2"],
        "day": pa.array([0, 1], pa.date32()),
        "image": pa.array([b"x", b"x" * 4000]),
    }
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    data = load(format="trl", path=str(tmp_path / "a.parquet"), max_metadata_kib=2)
    (problem,) = data.problems
    assert json.dumps(problem.metadata)
    assert problem.metadata["day"] == "1970-01-01"
    assert "1 with more metadata than max_metadata_kib (row 2)" in data.describe_dropped()


def test_rows_keep_no_further_columns_unless_they_are_named(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", {"question": "a", "answer": "1", "level": 2})
    assert load(path=path).problems[0].metadata == {}
    assert load(path=path, metadata_fields=["level"]).problems[0].metadata == {"level": 2}
    kept = load(path=path, metadata_fields="all").problems[0].metadata
    assert kept == {"answer": "1", "level": 2}


# --- where rows come from ---


def test_a_pattern_reads_the_files_that_match_it_in_the_order_of_their_names(tmp_path: Path):
    (tmp_path / "deep").mkdir()
    for name, n in (("b-1.jsonl", 1), ("a-2.jsonl", 2), ("notes.jsonl", 3), ("deep/a-4.jsonl", 4)):
        lines(tmp_path / name, {"question": f"q{n}", "answer": n})
    flat = load(path=f"{tmp_path}/[ab]-*.jsonl").problems
    assert [one.answer for one in flat] == ["2", "1"]
    deep = load(path=f"{tmp_path}/**/*-*.jsonl").problems
    assert [one.answer for one in deep] == ["2", "1", "4"]
    assert len({one.problem_id for one in deep}) == 3
    with pytest.raises(DataError, match=r"no data file that matches c\*\.jsonl"):
        load(path=f"{tmp_path}/c*.jsonl")


@pytest.mark.parametrize("has_splits", [False, True])
def test_a_data_set_saved_on_disk(tmp_path: Path, has_splits: bool) -> None:
    import datasets

    rows = datasets.Dataset.from_list(verl_rows())
    saved = datasets.DatasetDict({"train": rows}) if has_splits else rows
    saved.save_to_disk(tmp_path / "set")
    data = load(format="verl", path=str(tmp_path / "set"))
    assert [one.answer for one in data.problems] == ["0", "2", "4"]
    assert data.problems[1].metadata["extra_info"]["index"] == 1


def test_the_sources_of_before_are_the_rows_of_now(tmp_path: Path) -> None:
    path = lines(tmp_path / "train.jsonl", {"question": "a", "answer": "1"})
    new = load(path=path).problems
    assert load(source="jsonl", path=path).problems == new
    assert load(source="huggingface", path=path).problems == new
    (by_split,) = load(source="huggingface", path=str(tmp_path)).problems
    assert by_split.problem_id.endswith("/train/0")


# --- several sources ---


def test_several_sources_name_their_problems(tmp_path: Path) -> None:
    one = lines(tmp_path / "sums.jsonl", {"question": "a", "answer": "1"})
    two = lines(tmp_path / "other.jsonl", {"question": "b", "answer": "2", "kind": "x"}, "broken")
    data = load_problems(
        TypeAdapter(DataSource).validate_python(
            [{"path": one}, {"path": two, "name": "mixed", "domain_field": "kind"}]
        )
    )
    found = [(p.problem_id, p.source, p.domain) for p in data.problems]
    assert found == [("sums/sums/1", "sums", "sums"), ("mixed/other/1", "mixed", "x")]
    assert data.describe_dropped() == "1 not a JSON object (mixed: line 2)"
