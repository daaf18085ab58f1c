"""Problems on disk are those in memory, in the same order, also while a run goes on."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from actors.templates import PromptBuilder
from mgrpo.config import DataConfig, RowsSource, SolveLayer
from mgrpo.data.problems import load_problems, usable_data
from mgrpo.data.sampler import ShufflingSampler
from mgrpo.data.store import JoinedProblems, StoredProblems, selected
from mgrpo.storage.checkpoints import fingerprint
from mgrpo.training.sources.fresh import FreshProblems
from mgrpo.types import Problem
from tests.actors.byte_tokenizer import ByteTokenizer

PROBLEMS = [
    Problem(problem_id=f"p/{n}", question=f"{n} + 1?" * n, answer=str(n + 1), metadata={"n": [n]})
    for n in range(40)
]


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
