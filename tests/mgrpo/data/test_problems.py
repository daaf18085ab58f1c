from __future__ import annotations

import json
from pathlib import Path

import pytest

from actors.templates import PromptBuilder
from mgrpo.config import (
    DataConfig,
    ReasoningGymSource,
    RowsSource,
    SolveLayer,
)
from mgrpo.data.formats import huggingface
from mgrpo.data.formats.generated import shares
from mgrpo.data.problems import drop_long_prompts, enforce_max_dropped, load_problems, usable_data
from mgrpo.data.sampler import ShufflingSampler
from mgrpo.errors import DataError, HubUnreachable

SUMS = {"name": "chain_sum", "settings": {"min_terms": 2, "max_terms": 2, "max_digits": 2}}
LEGS = {"name": "leg_counting", "settings": {"max_animals": 4}}


def jsonl(folder: Path, *lines: object, **settings: object) -> RowsSource:
    path = folder / "rows.jsonl"
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_text("\n".join(texts))
    return RowsSource(path=str(path), **settings)


def row(n: int) -> dict[str, object]:
    return {"question": f"What is {n} + 4?", "answer": n + 4}


# --- JSON Lines ---


def test_rows_become_problems_with_ids_by_line(tmp_path: Path):
    data = load_problems(jsonl(tmp_path, row(1), "", {**row(2), "topic": "sums"}))
    assert [(p.problem_id, p.answer) for p in data.problems] == [("rows/1", "5"), ("rows/3", "6")]
    assert data.num_dropped.total() == 0


def test_the_domain_is_read_from_its_column(tmp_path: Path):
    source = jsonl(tmp_path, {**row(1), "topic": "sums"}, row(2), domain_field="topic")
    assert [p.domain for p in load_problems(source).problems] == ["sums", "default"]


def test_the_answer_of_a_worked_solution_is_what_follows_the_mark(tmp_path: Path):
    solution = "48 / 2 = 24, and 48 + 24 = 72.\n#### 72"
    data = load_problems(jsonl(tmp_path, {"question": "How many clips?", "answer": solution}))
    assert data.problems[0].answer == "72"
    assert data.problems[0].solution == "48 / 2 = 24, and 48 + 24 = 72."


def test_solutions_and_metadata_are_read_from_their_columns(tmp_path: Path):
    full = {**row(1), "steps": "1 and 4 are 5", "names": ["Ada"], "level": 2}
    named = {"solution_field": "steps", "metadata_fields": ["names", "level"]}
    problems = load_problems(jsonl(tmp_path, full, row(2), **named)).problems
    assert [one.solution for one in problems] == ["1 and 4 are 5", ""]
    assert [one.metadata for one in problems] == [{"names": ["Ada"], "level": 2}, {}]


def test_a_column_of_metadata_that_no_row_has_is_refused(tmp_path: Path):
    with pytest.raises(DataError, match=r"'name' \(metadata_fields\)"):
        load_problems(jsonl(tmp_path, row(1), metadata_fields=["name"]))


def test_lines_that_are_no_problem_are_counted_with_their_numbers(tmp_path: Path):
    source = jsonl(
        tmp_path,
        row(1),
        "{broken",
        {"question": " ", "answer": "1"},
        {"question": "q", "answer": [1, 2]},
        [1, 2],
        row(2),
    )
    data = load_problems(source)
    assert len(data.problems) == 2
    assert dict(data.num_dropped) == {
        "not JSON": 1,
        "no question": 1,
        "answer is a list, not text or a number": 1,
        "not a JSON object": 1,
    }
    assert data.examples["not JSON"] == ["line 2"]
    assert data.dropped_fraction == 4 / 6


def test_max_rows_reads_the_first_rows(tmp_path: Path):
    data = load_problems(jsonl(tmp_path, row(1), row(2), row(3), max_rows=2))
    assert [p.problem_id for p in data.problems] == ["rows/1", "rows/2"]


def test_where_takes_rows_by_their_columns_and_counts_no_other(tmp_path: Path):
    levels = [1, 2, "2", 2, None, 3]
    rows = [
        {
            **row(number),
            "more": {"level": level},
            "subject": "Algebra" if number % 2 else "Geometry",
        }
        for number, level in enumerate(levels, 1)
    ]

    def ids(**changed: object) -> list[str]:
        data = load_problems(jsonl(tmp_path, *rows, "{broken", **changed))
        assert set(data.num_dropped) <= {"not JSON"}
        return [one.problem_id for one in data.problems]

    assert ids(where={"more.level": 2}) == ["rows/2", "rows/3", "rows/4"]
    assert ids(where={"more.level": ["2", 3]}) == ["rows/2", "rows/3", "rows/4", "rows/6"]
    both = {"more.level": [2, 3], "subject": "Geometry"}
    assert ids(where=both) == ["rows/2", "rows/4", "rows/6"]
    assert ids(where=both, max_rows=2) == ["rows/2", "rows/4"]


def test_where_that_takes_no_row_says_what_there_is(tmp_path: Path):
    rows = [{**row(number), "level": number % 2 + 1} for number in range(5)]
    with pytest.raises(DataError, match=r'"level": \[7\].*of 5 rows most have level: 1, level: 2'):
        load_problems(jsonl(tmp_path, *rows, where={"level": 7}))
    with pytest.raises(DataError, match=r"no column 'levels' \(where\). Did you mean level\?"):
        load_problems(jsonl(tmp_path, *rows, where={"levels": 1}))


@pytest.mark.parametrize(
    ("lines", "expected"),
    [((), "there are no rows"), (("not json",), "1 not JSON"), (("[1]",), "not a JSON object")],
)
def test_a_file_without_problems_says_so(tmp_path: Path, lines, expected: str):
    with pytest.raises(DataError, match=expected):
        load_problems(jsonl(tmp_path, *lines))


def test_a_wrong_column_names_those_that_exist(tmp_path: Path):
    with pytest.raises(DataError, match=r"no column 'prompt' \(question_field\).*question, answer"):
        load_problems(jsonl(tmp_path, row(1), question_field="prompt"))


def test_a_missing_file_says_where_it_was_looked_for(tmp_path: Path):
    (tmp_path / "sums.jsonl").touch()
    with pytest.raises(DataError, match="Did you mean") as error:
        load_problems(RowsSource(path=str(tmp_path / "sum.jsonl")))
    assert str(Path.cwd()) in str(error.value)
    with pytest.raises(DataError, match=r"the folder .* does not exist"):
        load_problems(RowsSource(path=str(tmp_path / "no" / "sum.jsonl")))


def test_a_folder_and_a_binary_file_are_refused(tmp_path: Path):
    with pytest.raises(DataError, match="contains no data file"):
        load_problems(RowsSource(path=str(tmp_path)))
    (tmp_path / "b.jsonl").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(DataError, match="not UTF-8"):
        load_problems(RowsSource(path=str(tmp_path / "b.jsonl")))


# --- Hugging Face ---


@pytest.fixture
def saved_rows(tmp_path: Path) -> str:
    import datasets

    rows = [{"q": "6 x 7?", "a": "6 * 7 = 42\n#### 42"}, {"q": "1 + 1?", "a": "2"}]
    datasets.DatasetDict({"train": datasets.Dataset.from_list(rows)}).save_to_disk(tmp_path / "set")
    return str(tmp_path / "set")


def test_a_local_data_set_is_loaded(saved_rows: str):
    source = RowsSource(path=saved_rows, question_field="q", answer_field="a")
    problems = load_problems(source).problems
    assert [(p.problem_id, p.answer) for p in problems] == [
        ("set/train/0", "42"),
        ("set/train/1", "2"),
    ]


def test_a_local_data_set_has_its_columns_and_splits_checked(saved_rows: str):
    with pytest.raises(DataError, match="Its columns: q, a"):
        load_problems(RowsSource(path=saved_rows))
    with pytest.raises(DataError, match="split 'test'"):
        load_problems(RowsSource(path=saved_rows, split="test"))


def test_a_folder_of_jsonl_files_is_a_data_set_too(tmp_path: Path):
    (tmp_path / "train.jsonl").write_text(json.dumps({"question": "2 + 2?", "answer": "4"}) + "\n")
    (problem,) = load_problems(RowsSource(path=str(tmp_path), split="train")).problems
    assert problem.answer == "4"


def test_a_hub_that_does_not_answer_is_told_apart_from_a_wrong_name(monkeypatch):
    monkeypatch.setattr(huggingface, "is_hub_reachable", lambda: False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(HubUnreachable, match="nobody/nothing is not in the local cache"):
        load_problems(RowsSource(path="nobody/nothing"))


# --- reasoning-gym ---


def test_generated_problems_are_the_same_each_time_and_interleaved_by_weight():
    source = ReasoningGymSource(tasks=[{**SUMS, "weight": 3}, LEGS], size=40, seed=5)
    problems = load_problems(source).problems
    assert problems == load_problems(source).problems
    domains = [p.domain for p in problems]
    assert domains.count("chain_sum") == 30
    assert domains[:8].count("chain_sum") == 6  # any stretch holds about its share
    assert len({p.question for p in problems}) == len({p.problem_id for p in problems}) == 40


def test_shares_add_up_and_the_largest_remainder_comes_first():
    assert shares(10, [1, 1, 1]) == [4, 3, 3]
    assert shares(7, [0.6, 0.4]) == [4, 3]  # 4.2 and 2.8
    assert shares(1, [1, 5]) == [0, 1]


def test_excluded_questions_are_left_out_and_the_size_is_kept():
    heldout = ReasoningGymSource(tasks=[SUMS], size=30, seed=1)
    train = ReasoningGymSource(tasks=[SUMS], size=50, seed=0, exclude_questions_of=[heldout])
    held = {p.question for p in load_problems(heldout).problems}
    trained = [p.question for p in load_problems(train).problems]
    assert len(trained) == 50
    assert not held & set(trained)
    overlapping = ReasoningGymSource(tasks=[SUMS], size=50, seed=0)
    assert held & {p.question for p in load_problems(overlapping).problems}


def test_one_task_twice_with_other_settings_has_distinct_ids():
    long = {"name": "chain_sum", "settings": {"min_terms": 4, "max_terms": 4}}
    problems = load_problems(ReasoningGymSource(tasks=[SUMS, long], size=10)).problems
    assert len({p.problem_id for p in problems}) == 10


def test_an_unknown_task_gets_near_names():
    with pytest.raises(DataError, match="chain_sum"):
        load_problems(ReasoningGymSource(tasks=[{"name": "chain_sums"}], size=2))


def test_an_unknown_setting_lists_those_that_exist():
    task = {"name": "chain_sum", "settings": {"max_term": 3}}
    with pytest.raises(DataError, match=r"no setting max_term.*min_terms, max_terms"):
        load_problems(ReasoningGymSource(tasks=[task], size=2))


def test_settings_that_the_generator_refuses_are_a_data_error():
    task = {"name": "chain_sum", "settings": {"min_terms": 5, "max_terms": 2}}
    with pytest.raises(DataError, match="refuses the settings"):
        load_problems(ReasoningGymSource(tasks=[task], size=2))


def test_a_generator_that_runs_out_of_new_questions_says_how_many_there_are():
    task = {"name": "chain_sum", "settings": {"max_terms": 2, "max_digits": 1}}  # 10 x 2 x 10
    with pytest.raises(DataError, match="gave 200 new questions"):
        load_problems(ReasoningGymSource(tasks=[task], size=500))


def test_a_generator_known_for_wrong_answers_is_refused():
    settings: dict[str, object] = {"allow_parentheses": False}
    task = {"name": "basic_arithmetic", "settings": settings}
    with pytest.raises(DataError, match="wrong answers"):
        load_problems(ReasoningGymSource(tasks=[task], size=5))
    settings["operators"] = ["+", "-"]
    for problem in load_problems(ReasoningGymSource(tasks=[task], size=50)).problems:
        assert eval(problem.metadata["expression"]) == int(problem.answer)


# --- long prompts ---


class Letters:
    """A tokenizer whose tokens are characters."""

    def __init__(self) -> None:
        self.all_special_ids: list[int] = []

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        return [ord(character) for character in text]

    def apply_chat_template(self, conversation, *, tokenize: bool, add_generation_prompt: bool):
        return "".join(turn["content"] for turn in conversation) + ">"


def test_prompts_that_are_too_long_are_left_out_and_counted(tmp_path: Path):
    source = jsonl(tmp_path, row(1), {"question": "x" * 30, "answer": "1"}, "{broken")
    layer = SolveLayer(name="solve", group_size=2, system_prompt="")
    data = drop_long_prompts(load_problems(source), PromptBuilder(Letters()), layer, 15)
    assert [p.problem_id for p in data.problems] == ["rows/1"]  # 14 characters and the mark
    assert dict(data.num_dropped) == {"not JSON": 1, "longer than data.max_prompt_tokens": 1}
    assert data.examples["longer than data.max_prompt_tokens"] == ["rows/2: 31 tokens"]


def test_one_overlong_row_does_not_stop_a_run(tmp_path: Path):
    rows = [row(n) for n in range(60)]
    source = jsonl(tmp_path, *rows, {"question": "x" * 2_000_000, "answer": "1"})
    layer = SolveLayer(name="solve", group_size=2, system_prompt="")
    config = DataConfig(train=source, max_prompt_tokens=192)
    data = usable_data(source, config, PromptBuilder(Letters()), layer)
    assert len(data.problems) == 60
    assert data.num_dropped["longer than data.max_prompt_tokens"] == 1
    with pytest.raises(DataError, match=r"1 of 61 rows cannot be used"):
        strict = config.model_copy(update={"max_dropped_fraction": 0.01})
        usable_data(source, strict, PromptBuilder(Letters()), layer)


def test_measuring_from_the_longest_down_finds_what_measuring_all_finds(tmp_path: Path):
    lengths = [3, 90, 5, 40, 7, 91, 30, 2]
    questions = [{"question": "x" * length, "answer": "1"} for length in lengths]
    loaded = load_problems(jsonl(tmp_path, *questions))
    layer = SolveLayer(name="solve", group_size=2, system_prompt="")
    builder = PromptBuilder(Letters())
    whole = drop_long_prompts(loaded, builder, layer, 50)
    assert len(whole.problems) == 6
    for enough in (1, 2, 100):
        assert drop_long_prompts(loaded, builder, layer, 50, max_fitting=enough) == whole


def test_too_many_dropped_rows_stop_the_run_and_few_do_not(tmp_path: Path):
    source = jsonl(tmp_path, row(1), row(2), row(3), "{broken")
    data = load_problems(source)
    enforce_max_dropped(data, 0.25, source)
    with pytest.raises(DataError, match=r"1 of 4 rows cannot be used.*0\.2.*line 4"):
        enforce_max_dropped(data, 0.2, source)


# --- the sampler ---


def test_an_epoch_gives_every_problem_once_in_an_order_of_its_own():
    sampler = ShufflingSampler(10, seed=3)
    first, second = sampler.take(10), sampler.take(10)
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second != list(range(10))
    assert ShufflingSampler(10, seed=4).take(10) != first


def test_one_step_never_holds_a_problem_twice():
    sampler = ShufflingSampler(10, seed=0)
    for _ in range(200):
        assert len(set(sampler.take(7))) == 7


def test_asking_for_more_than_there_is_goes_round():
    taken = ShufflingSampler(3, seed=0).take(8)
    assert [taken.count(index) for index in range(3)] in ([3, 3, 2], [3, 2, 3], [2, 3, 3])


@pytest.mark.parametrize("taken_before", [0, 1, 4, 5, 9, 23])
def test_a_restored_sampler_continues_exactly(taken_before: int):
    sampler = ShufflingSampler(10, seed=7)
    for _ in range(taken_before):
        sampler.take(4)
    state = json.loads(json.dumps(sampler.state_dict()))
    restored = ShufflingSampler(10, seed=7)
    restored.load_state_dict(state)
    assert [restored.take(4) for _ in range(20)] == [sampler.take(4) for _ in range(20)]


@pytest.mark.parametrize(("num_problems", "seed"), [(11, 7), (10, 8)])
def test_a_state_of_other_data_is_refused(num_problems: int, seed: int):
    state = ShufflingSampler(10, seed=7).state_dict()
    with pytest.raises(DataError, match="cannot be continued"):
        ShufflingSampler(num_problems, seed).load_state_dict(state)


def test_nothing_to_sample_from_is_an_error():
    with pytest.raises(DataError):
        ShufflingSampler(0, seed=0)
