"""The supervisor on a stand-in of `mgrpo train`: real processes and signals, no engines."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks.chaos import supervise
from benchmarks.chaos.comparison import drawn_by, violations
from benchmarks.chaos.processes import TITLES
from benchmarks.chaos.proxy import Proxy
from benchmarks.chaos.schedule import Fault, Part
from benchmarks.chaos.supervise import Life, Supervisor
from benchmarks.chaos.work import ATTEMPTS, CORRECTIONS
from mgrpo.types import CompletionId
from tests.fuzz.trees import node

FAKE = Path(__file__).with_name("fake_train.py")


def rollouts_of(step: int, problems: list[str]) -> list[dict[str, object]]:
    """What the recipe samples of a step's problems."""
    paths: list[tuple[int, ...]] = [(k,) for k in range(ATTEMPTS)]
    paths += [(k, j) for k in range(ATTEMPTS) for j in range(CORRECTIONS)]
    return [
        node(CompletionId(step, slot, path), problem, "d").to_json()
        for slot, problem in enumerate(problems)
        for path in paths
    ]


def supervised(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kinds: list[str],
    *,
    leaves_child: bool = False,
    lost: int | None = None,
) -> dict[str, Any]:
    """The record of a stand-in's run under faults of these kinds.

    Args:
        lost: a step whose first problem is missing from the records.
    """
    prepared = tmp_path / "prepared.json"
    run_dir = tmp_path / "part" / "runs" / "chaos"

    def command(recipe: Path) -> list[str]:
        if not prepared.exists():
            steps = [rollouts_of(*one) for one in enumerate(drawn_by(recipe))]
            if lost is not None:
                steps[lost] = steps[lost][1:]
            prepared.write_text(
                json.dumps({"leaves_child": leaves_child, "rollouts": steps, "waits_at": waits_at})
            )
        return [sys.executable, str(FAKE), str(run_dir), str(prepared)]

    monkeypatch.setattr(supervise, "train_command", command)
    monkeypatch.setattr(supervise, "POLL_S", 0.01)
    monkeypatch.setattr(supervise, "ORPHANS_S", 0.0)
    monkeypatch.setitem(TITLES, "driver", ("fake_train.py",))
    waits_at = [2 + 3 * place for place, kind in enumerate(kinds) if kind.startswith("driver")]
    faults = [Fault(kind, 2 + 3 * place, moment=0.1, choice=1) for place, kind in enumerate(kinds)]
    part = Part("part", "streamed", num_steps=3 * len(kinds) + 4, faults=faults)
    (tmp_path / "part").mkdir()
    (tmp_path / "t").mkdir()
    supervisor = Supervisor(part, tmp_path / "part", tmp_path / "t", Proxy(1), seed=0)
    return supervisor.record(is_finished=supervisor.supervise())


def test_a_run_that_is_killed_is_started_again_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = supervised(tmp_path, monkeypatch, ["driver killed", "driver told to stop"])
    assert [one["code"] for one in record["exits"]] == [-9, 143, 0]
    killed, told = record["events"]
    assert (killed["ends"], told["ends"]) == ([-9], [143])
    assert killed["seconds"] > 0 and told["seconds"] > 0
    assert violations(record, record) == []


def test_lost_problems_and_processes_left_behind_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = supervised(tmp_path, monkeypatch, [], leaves_child=True, lost=1)
    first, second = violations(record, record)
    assert first == "1 problems or groups: wrong_groups"
    assert second == "left behind: start 1, 0: sleep sleep 60"


def test_a_fault_whose_step_was_short_comes_with_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = Part("part", "streamed", num_steps=9, faults=[Fault("GCS killed", 3, 0.9, 1)])
    supervisor = Supervisor(part, tmp_path, tmp_path, Proxy(1), seed=0)
    given: list[int] = []
    monkeypatch.setattr(supervisor, "inject", lambda fault: given.append(supervisor.num_steps))
    for supervisor.num_steps in (2, 3, 4, 5):
        supervisor.step_at = time.monotonic()
        supervisor.inject_due()
    assert given == [4]


def test_the_time_of_a_start_is_no_steps_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = Part("part", "streamed", num_steps=9)
    supervisor = Supervisor(part, tmp_path, tmp_path, Proxy(1), seed=0)
    life = Life(process=subprocess.Popen(["true"]), log=tmp_path / "log")
    life.process.wait(timeout=10)
    for num_steps, seconds_ago in ((1, 40.0), (2, 1.0), (4, 3.0)):  # two at once: not one's time
        monkeypatch.setattr(supervise, "steps_in", lambda run_dir, found=num_steps: found)
        supervisor.step_at = time.monotonic() - seconds_ago
        supervisor.note_steps(life)
    assert supervisor.step_times == pytest.approx([1.0], abs=0.5)
