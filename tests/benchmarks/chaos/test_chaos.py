"""The schedule, the faults that need no run, and the comparison of what a run has recorded."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from benchmarks.chaos import hostile
from benchmarks.chaos.comparison import (
    Trained,
    is_within_noise,
    seconds_to_return,
    slopes,
    trained_problems,
    violations,
)
from benchmarks.chaos.injectors import INJECTORS, Damaged, Mounted, Victim, is_mounted
from benchmarks.chaos.page import page_lines, summary
from benchmarks.chaos.processes import kind_of
from benchmarks.chaos.proxy import Mode, Proxy, http_reward
from benchmarks.chaos.schedule import (
    FAULT_STEPS,
    GAP_STEPS,
    KINDS,
    ORDERS,
    PART_FAULTS,
    campaign,
    undisturbed,
)
from mgrpo.storage.checkpoints import (
    CHECKPOINTS_DIR,
    LEARNER_DIR,
    begin_checkpoint,
    fault_of,
    finish_checkpoint,
)
from mgrpo.types import Completion, CompletionId
from tests.learner.builders import completion

# --- schedule ---


def test_the_same_seed_gives_the_same_faults_and_more_of_them_begin_with_the_same() -> None:
    short, long = campaign(2 * PART_FAULTS, seed=3), campaign(5 * PART_FAULTS, seed=3)
    assert long[:2] == short != campaign(2 * PART_FAULTS, seed=4)


def test_every_kind_comes_before_any_comes_twice() -> None:
    kinds = [fault.kind for part in campaign(2 * len(KINDS), seed=0) for fault in part.faults]
    assert sorted(kinds[: len(KINDS)]) == sorted(kinds[len(KINDS) :]) == sorted(KINDS)


def test_faults_keep_their_distance_and_end_before_the_run_does() -> None:
    for part in campaign(3 * PART_FAULTS + 5, seed=0):
        steps = [fault.step for fault in part.faults]
        gaps = [b - a for a, b in pairwise(steps)]
        assert min(gaps) >= GAP_STEPS
        assert part.num_steps > steps[-1] and part.num_steps >= FAULT_STEPS * len(steps)
    orders = [part.order for part in campaign(3 * PART_FAULTS, seed=0)]
    assert orders == [ORDERS[0], ORDERS[1], ORDERS[0]]


def test_an_undisturbed_run_stands_beside_every_order_and_length() -> None:
    parts = campaign(2 * PART_FAULTS + 1, seed=0)
    assert {(one.order, one.num_steps) for one in undisturbed(parts)} == {
        (one.order, one.num_steps) for one in parts
    }
    assert not any(one.faults for one in undisturbed(parts))


def test_every_kind_has_its_injector() -> None:
    assert sorted(INJECTORS) == sorted(KINDS)


# --- faults ---


@pytest.mark.parametrize(
    ("title", "kind"),
    [
        ("python python -m mgrpo train recipe.yaml", "driver"),
        ("ray::VllmEngine ray::VllmEngine.generate", "engine actor"),
        ("VLLM::EngineCore VLLM::EngineCore", "EngineCore"),
        ("ray::LearnerRank.update", "learner rank"),
        ("bash -c ls", None),
    ],
)
def test_processes_are_told_by_their_titles(title: str, kind: str | None) -> None:
    assert kind_of(title) == kind


def asked(proxy: Proxy, mode: Mode) -> bytes | None:
    """The answer through the proxy; None: the connection broke."""
    proxy.mode = mode
    connection = http.client.HTTPConnection(urlsplit(proxy.url).netloc, timeout=10)
    try:
        connection.request("POST", "/score", json.dumps({"completions": ["a1", "22"]}))
        return connection.getresponse().read()
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def test_connections_are_cut_and_refused_and_work_again() -> None:
    with http_reward() as proxy:
        right = json.dumps({"rewards": [0.5, 1.0]}).encode()
        assert [asked(proxy, mode) for mode in ("through", "cut", "refused", "through")] == [
            right,
            None,
            None,
            right,
        ]
        assert proxy.num_disturbed == 2


def test_an_order_is_taken_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not hostile.take_order(hostile.SHIFTED)  # there is no folder
    monkeypatch.setenv(hostile.ORDERS_VARIABLE, str(tmp_path))
    hostile.give_order(tmp_path, hostile.SHIFTED)
    assert hostile.take_order(hostile.SHIFTED)
    assert not hostile.take_order(hostile.SHIFTED)


def test_log_probabilities_are_spoiled_as_ordered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(hostile.ORDERS_VARIABLE, str(tmp_path))
    plugin = hostile.SpoiledLogprobs(hostile.SpoiledLogprobs.Settings(), frozenset({1}))
    one = completion("q/1", 1.0)
    hostile.give_order(tmp_path, hostile.SHIFTED)
    assert plugin.annotate(None, one).rollout_logprobs.tolist() == [-6.0]
    assert plugin.annotate(None, one) == one


def test_the_newest_checkpoint_is_damaged_if_there_is_another(tmp_path: Path) -> None:
    with http_reward() as proxy:
        victim = Victim("no such run", tmp_path, tmp_path, proxy)
        (fault,) = campaign(1, seed=0)[0].faults
        for step in (3, 6):
            assert Damaged().begin(victim, fault) == ""
            unfinished = begin_checkpoint(tmp_path, step)
            (unfinished / LEARNER_DIR).mkdir()
            (unfinished / LEARNER_DIR / "shard.pt").write_bytes(b"weights")
            finished = finish_checkpoint(unfinished, {"num_steps": step})
        assert Damaged().begin(victim, fault) == "step-000006/shard.pt"
        assert fault_of(finished) == "learner/shard.pt was changed"


# --- comparison ---


def step_of(*problems: str, step: int = 0) -> list[Completion]:
    """Two attempts at each problem, and one correction of each."""
    return [
        completion(
            "/".join(["q", *map(str, path)]),
            1.0,
            id=CompletionId(step, slot, path),
            problem_id=problem,
        )
        for slot, problem in enumerate(problems)
        for path in ((0,), (1,), (0, 0), (1, 0))
    ]


def compared(*steps: list[Completion], drawn: list[list[str]], num_dropped: int = 0) -> Trained:
    return trained_problems(steps, drawn, group_sizes=(2, 1), num_dropped=num_dropped)


def test_what_was_drawn_and_trained_is_counted_once() -> None:
    found = compared(step_of("a", "b"), step_of("c", "a", step=1), drawn=[["b", "a"], ["a", "c"]])
    assert found == Trained(4, dropped=0, missing=0, doubled=0, strange=0, wrong_groups=0)


def test_what_is_missing_was_dropped_or_lost() -> None:
    assert compared(step_of("a"), drawn=[["a", "b"]]).missing == 1
    assert compared(step_of("a"), drawn=[["a", "b"]], num_dropped=1).missing == 0


def test_a_problem_in_two_slots_and_a_completion_in_two_rows_are_doubled() -> None:
    assert compared(step_of("a", "a"), drawn=[["a"]]).doubled == 1
    twice = [*step_of("a"), *step_of("a")[:1]]
    assert compared(twice, drawn=[["a"]]).doubled == 1


def test_a_problem_of_another_step_is_strange_and_groups_have_their_sizes() -> None:
    found = compared(step_of("z"), step_of("a", step=1)[:-1], drawn=[["a"], ["a"]])
    assert (found.strange, found.missing, found.wrong_groups) == (1, 1, 0)
    assert compared(step_of("a")[1:], drawn=[["a"]]).wrong_groups == 1


def test_shares_differ_by_chance_or_not() -> None:
    assert is_within_noise(0.5, 0.55, 100) and is_within_noise(0.0, 0.0, 10)
    assert not is_within_noise(0.5, 0.8, 100)


def test_memory_grows_by_the_slope_of_its_later_part() -> None:
    samples = [(step, {"driver": 100.0 + 2 * step, "GCS": 50.0}) for step in range(12)]
    samples[0] = (0, {"driver": 1.0, "GCS": 1.0})
    assert slopes(samples) == {"driver": pytest.approx(2.0), "GCS": 0.0}


def test_engines_return_when_they_work_again() -> None:
    changes = [
        (0, "a", None, "starting"),
        (20, "a", "stale", "healthy"),
        (50, "a", "healthy", "dead"),
        (51, "a", "dead", "restarting"),
        (60, "a", "restarting", "dead"),  # the first try failed
        (61, "b", None, "starting"),
        (80, "a", "restarting", "stale"),
        (81, "a", "stale", "healthy"),
        (90, "b", "healthy", "dead"),  # the run ends with it
        (95, "b", None, "starting"),
        (99, "b", "stale", "healthy"),
        (100, "a", "healthy", "dead"),
        (3720, "a", "stale", "healthy"),  # the clock was set meanwhile
    ]
    rows = [dict(zip(("time", "engine", "from", "to"), one, strict=True)) for one in changes]
    assert seconds_to_return(rows) == [31]


RECORD: dict[str, Any] = {
    "part": "part-0-12",
    "order": "streamed",
    "steps": 42,
    "is_finished": True,
    "events": [
        {"kind": "driver killed", "step": 3, "done_to": "process 7", "ends": [-9], "seconds": 30.0},
        {"kind": "driver killed", "step": 9, "done_to": "", "ends": [], "seconds": None},
    ],
    "exits": [],
    "hangs": [],
    "problems": {**dict.fromkeys(("missing", "doubled", "strange", "wrong_groups"), 0)}
    | {"trained": 168, "dropped": 0},
    "orphans": [],
    "ports": [],
    "files": [],
    "engine_return_s": [21.0, 30.5],
    "accuracy": {"training": 0.5},
    "counted": {"training": 672},
    "step_s": 1.5,
    "memory_slope_mib": {"driver": 0.01},
    "memory_steps": 42,
    "seconds": 300.0,
    "violations": [],
}


def test_a_clean_record_has_no_violation_and_others_say_what_is_wrong() -> None:
    assert violations(RECORD, RECORD) == []
    wrong = {
        **RECORD,
        "is_finished": False,
        "orphans": ["ray::X"],
        "accuracy": {"training": 0.1},
        "problems": {**RECORD["problems"], "missing": 2},
    }
    assert violations(wrong, RECORD) == [
        "the run did not finish",
        "2 problems or groups: missing",
        "left behind: ray::X",
        "training accuracy 0.100 against 0.500 undisturbed",
    ]


def test_the_page_has_a_row_for_each_kind() -> None:
    result = summary([RECORD], [RECORD])
    kind = result["kinds"]["driver killed"]
    assert (kind["times"], kind["nothing_there"], kind["resumed"]) == (1, 1, 1)
    origin = {"command": "c", "date": "d", "commit": "r", "cpu": "p", "cores": 2, "python": "3"}
    own = {"packages": {}, "violations": ["x"], "commits": ["r"], "seed": 0}
    lines = list(page_lines({**result, **origin, **own}))
    assert "| driver killed | 1 | 0 | 1 | -9 | 30.0 | 30.0 |" in lines
    assert "2 engines that were lost worked again, with the newest weights, after" in lines
    assert "25.8 s (median; at most 30.5 s); meanwhile the run" in lines


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts need root")
@pytest.mark.parametrize("is_full", [True, False])
@pytest.mark.parametrize("is_damaged", [False, True])
def test_a_disk_of_its_own_is_taken_away_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_full: bool, is_damaged: bool
) -> None:
    """After its time, or for a fault that has to write there; also by a relative path."""
    monkeypatch.chdir(tmp_path)
    folder = Path("run") / CHECKPOINTS_DIR
    folder.mkdir(parents=True)
    (fault,) = campaign(1, seed=0)[0].faults
    victim = Victim("no such run", folder.parent, tmp_path, Proxy(1))
    injector = Mounted(is_full)
    try:
        done_to = injector.begin(victim, fault)
    except subprocess.CalledProcessError:
        pytest.skip("this machine lets nobody mount")
    assert is_mounted(folder)
    with pytest.raises(OSError, match=r"No space|Read-only"):
        (folder / "file").write_bytes(bytes(1 << 20))
    if is_damaged:
        Damaged().begin(victim, fault)
    else:
        injector.end(victim, done_to)
    assert not is_mounted(folder)
    (folder / "file").write_bytes(bytes(1 << 20))
