"""Problems on disk are those in memory, in the same order, also while a run goes on."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from actors.templates import PromptBuilder
from mgrpo.config import DataConfig, RowsSource, SolveLayer
from mgrpo.data.kept import KeptData
from mgrpo.data.problems import load_problems, usable_data
from mgrpo.data.progress import noting
from mgrpo.data.sampler import ShufflingSampler
from mgrpo.data.store import JoinedProblems, StoredProblems, selected
from mgrpo.errors import DataError
from mgrpo.storage.checkpoints import fingerprint
from mgrpo.training.sources.fresh import FreshProblems
from mgrpo.types import Problem
from tests.actors.byte_tokenizer import ByteTokenizer

PROBLEMS = [
    Problem(problem_id=f"p/{n}", question=f"{n} + 1?" * n, answer=str(n + 1), metadata={"n": [n]})
    for n in range(40)
]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MGRPO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "data"


@pytest.fixture
def stored() -> StoredProblems:
    store = StoredProblems()
    for problem in PROBLEMS:
        store.append(problem)
    return store


def test_what_is_stored_is_read_back(stored: StoredProblems) -> None:
    assert len(stored) == 40
    assert list(stored) == PROBLEMS
    assert stored[-1] == PROBLEMS[-1]
    assert stored[3:9:2] == PROBLEMS[3:9:2]
    with pytest.raises(IndexError):
        stored[40]


def test_it_may_grow_after_it_was_read(stored: StoredProblems) -> None:
    assert stored[0] == PROBLEMS[0]
    stored.append(PROBLEMS[5])
    assert stored[40] == PROBLEMS[5]


@pytest.mark.parametrize("kind", [list, lambda stored: stored])
def test_a_selection_keeps_its_order(stored: StoredProblems, kind) -> None:
    assert list(selected(kind(stored), [7, 2, 30])) == [PROBLEMS[n] for n in (7, 2, 30)]


def test_several_lists_are_one(stored: StoredProblems) -> None:
    joined = JoinedProblems(PROBLEMS[:3], [], stored)
    assert list(joined) == [*PROBLEMS[:3], *PROBLEMS]
    assert [joined[n] for n in (0, 2, 3, 42)] == [PROBLEMS[n] for n in (0, 2, 0, 39)]
    assert len(joined) == 43


def test_threads_read_at_once(stored: StoredProblems) -> None:
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda n: stored[n % 40], range(400))) == PROBLEMS * 10


def rows(folder: Path) -> str:
    file = folder / "rows.jsonl"
    lines = [{"question": one.question, "answer": one.answer, "n": 1} for one in PROBLEMS]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(file)


@pytest.mark.parametrize("sources", [1, 2])
def test_a_run_on_disk_draws_what_one_in_memory_draws(tmp_path: Path, sources: int) -> None:
    builder = PromptBuilder(ByteTokenizer())
    layer = SolveLayer(name="solve", group_size=2, system_prompt="")
    found = []
    for on_disk in (False, True):
        source = {"path": rows(tmp_path), "on_disk": on_disk, "metadata_fields": "all"}
        train = source if sources == 1 else [source, {"path": source["path"], "name": "twice"}]
        config = DataConfig.model_validate(
            {"train": train, "max_prompt_tokens": 200, "max_dropped_fraction": 1}
        )
        data = usable_data(config.train, config, builder, layer)
        assert isinstance(data.problems, StoredProblems) == on_disk
        fresh = FreshProblems(
            data.problems, ShufflingSampler(len(data.problems), seed=1), problems_per_step=5
        )
        fresh.take(12)
        resumed = FreshProblems(
            data.problems, ShufflingSampler(len(data.problems), seed=1), problems_per_step=5
        )
        resumed.load_state_dict(fresh.state_dict())
        drawn = fresh.take(50)
        assert resumed.take(50) == drawn
        found.append((fingerprint(data.problems), data.describe_dropped(), drawn))
    assert found[0] == found[1]
    assert "longer than data.max_prompt_tokens" in found[0][1]


def test_a_file_of_one_list_is_read_too(tmp_path: Path) -> None:
    file = tmp_path / "rows.json"
    file.write_text(json.dumps([{"question": "a", "answer": "1"}] * 3, indent=1))
    assert len(load_problems(RowsSource(path=str(file), on_disk=True)).problems) == 3


def no_reading(*given: object) -> object:
    raise AssertionError(f"{given} was read again")


@pytest.mark.parametrize("sources", [1, 2])
def test_data_on_disk_are_read_once(
    tmp_path: Path, sources: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = [{"path": rows(tmp_path), "name": f"n{n}", "on_disk": True} for n in range(sources)]
    source = DataConfig.model_validate({"train": train}).train
    first = load_problems(source)
    assert first.problems and isinstance(first.problems, StoredProblems)
    monkeypatch.setattr("mgrpo.data.formats.places.read_file", no_reading)
    said: list[str] = []
    again = load_problems(source, said.append)
    assert (list(again.problems), again.num_dropped, again.examples) == (
        list(first.problems),
        first.num_dropped,
        first.examples,
    )
    assert said[0].startswith(f"{len(first.problems)} problems as they were read before")


def test_a_changed_file_is_read_again_and_takes_the_earlier_one_s_place(
    tmp_path: Path, cache: Path
) -> None:
    source = RowsSource(path=rows(tmp_path), on_disk=True)
    assert len(load_problems(source).problems) == 39  # the first question is empty
    (before,) = cache.rglob("*.problems")
    with Path(source.path).open("a") as file:
        file.write(json.dumps({"question": "new", "answer": "1"}) + "\n")
    assert load_problems(source).problems[-1].question == "new"
    (after,) = cache.rglob("*.problems")
    assert after.parent == before.parent and after.name != before.name


def test_other_keys_of_a_source_are_other_problems(tmp_path: Path) -> None:
    source = RowsSource(path=rows(tmp_path), on_disk=True)
    other = source.model_copy(update={"max_rows": 5})
    assert len(load_problems(source).problems) > len(load_problems(other).problems)


@pytest.fixture
def tokenizer() -> ByteTokenizer:
    class Described(ByteTokenizer):
        backend_tokenizer = SimpleNamespace(to_str=lambda: "bytes")

    return Described()


def test_prompts_are_measured_once_for_a_tokenizer_and_a_limit(
    tmp_path: Path, tokenizer: ByteTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = SolveLayer(name="solve", group_size=2, system_prompt="")
    source = {"path": rows(tmp_path), "on_disk": True}
    config = DataConfig.model_validate({"train": source, "max_dropped_fraction": 1})
    narrow = config.model_copy(update={"max_prompt_tokens": 100})
    for limits in (config, narrow):
        measured = usable_data(limits.train, limits, PromptBuilder(tokenizer), layer)
        builder = PromptBuilder(tokenizer)
        monkeypatch.setattr(builder, "solve_prompt", no_reading)
        again = usable_data(limits.train, limits, builder, layer)
        assert list(again.problems) == list(measured.problems)
        assert again.describe_dropped() == measured.describe_dropped()
        assert again.longest == measured.longest and again.longest
        assert isinstance(again.problems, StoredProblems) and again.problems.known_fingerprint
        assert fingerprint(again.problems) == fingerprint(list(measured.problems))
    other = SolveLayer(name="solve", group_size=2, system_prompt="Be brief.")
    with pytest.raises(AssertionError, match="read again"):
        usable_data(narrow.train, narrow, builder, other)


def test_while_another_process_reads_the_same_data_each_reads_for_itself(
    tmp_path: Path, cache: Path
) -> None:
    source = RowsSource(path=rows(tmp_path), on_disk=True)
    kept = KeptData.of(source)
    assert kept is not None
    with kept.only_writer() as is_writer:
        assert is_writer
        assert len(load_problems(source).problems) == 39
        assert not list(cache.rglob("*.problems"))
    load_problems(source)
    assert len(list(cache.rglob("*.problems"))) == 1


def test_a_folder_that_cannot_be_written_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MGRPO_CACHE", str(tmp_path / "file"))
    with pytest.raises(DataError, match="Set MGRPO_CACHE to a folder with room"):
        load_problems(RowsSource(path=rows(tmp_path), on_disk=True))


def test_a_long_reading_says_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mgrpo.data.progress.NOTE_EVERY_S", 0.0)
    said: list[str] = []
    assert list(noting("ab", said.append, "{} rows read")) == ["a", "b"]
    assert said == ["0 rows read", "1 rows read"]
