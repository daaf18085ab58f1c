"""A run without progress leaves a record, once for each hang."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from cluster import stacks
from cluster.fleet.health import EngineHealth
from cluster.progress_board import Progress, ProgressBoard
from mgrpo.config.cluster import WatchdogConfig
from mgrpo.records.turns import Prompt
from mgrpo.training import watchdog
from mgrpo.training.watchdog import Quiet, Watchdog, hang_sentence, write_dump

SLEEPER = """
import time
def waits_for_ever():
    print("here", flush=True)
    time.sleep(600)
waits_for_ever()
"""


def board(num_done: int) -> Progress:
    return Progress(num_done, "layer 1 · 3/24 groups", 0)


def test_a_hang_is_said_once_and_again_after_progress() -> None:
    quiet = Quiet(board(0))
    said = [quiet.look(board(0), 5.0, 10.0) for _ in range(4)]
    assert said == [False, True, False, False]
    assert not quiet.look(board(1), 5.0, 10.0)
    assert [quiet.look(board(1), 5.0, 10.0) for _ in range(3)] == [False, True, False]


def test_the_thread_says_it_while_the_run_hangs() -> None:
    said, hung = [], threading.Event()

    def on_hang(seconds: float) -> None:
        said.append(seconds)
        hung.set()

    dog = Watchdog(ProgressBoard(), after_s=0.02, on_hang=on_hang)
    dog.thread.start()
    assert hung.wait(20)
    dog.end()
    assert said[0] >= 0.02


def test_the_sentence_names_the_files_and_what_comes() -> None:
    folder = Path("runs/x/hangs/20261128-120000")
    warned = hang_sentence(312.4, folder, WatchdogConfig())
    assert "no progress for 312 s (cluster.watchdog.after_s)" in warned and str(folder) in warned
    stops = WatchdogConfig(action="checkpoint_and_stop")
    assert "checkpoint" in hang_sentence(312.4, folder, stops)


@pytest.mark.parametrize("action", ["warn", "checkpoint_and_stop"])
@pytest.mark.parametrize("fails", [False, True])
def test_a_hang_is_told_and_ends_the_run_where_that_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, action: str, fails: bool
) -> None:
    is_over, said, killed = threading.Event(), [], []

    def dump(*given: Any) -> None:
        if fails:
            raise OSError("No space left on device")

    def warn(text: str) -> None:
        said.append(text)
        if action == "warn":
            is_over.set()

    def kill(*given: int) -> None:
        killed.append(given)
        is_over.set()

    monkeypatch.setattr(watchdog, "write_dump", dump)
    monkeypatch.setattr(watchdog.os, "kill", kill)
    cluster = SimpleNamespace(watchdog=WatchdogConfig(after_s=0.02, action=action))
    system: Any = SimpleNamespace(config=SimpleNamespace(cluster=cluster))
    progress: Any = SimpleNamespace(board=ProgressBoard(), warn=warn)
    with watchdog.watchdog_of(system, tmp_path, progress):
        assert is_over.wait(20)
    assert len(said) == 1 and said[0].startswith("no progress for")
    assert ("No space left" in said[0]) is fails
    assert killed == ([(os.getpid(), signal.SIGTERM)] if action != "warn" else [])


def fleet_with_a_prompt() -> Any:
    watch = SimpleNamespace(requests={"task": Prompt.of(list(range(30)))})
    worker = SimpleNamespace(num_inflight=4, watch=watch)
    engine = SimpleNamespace(
        name="engine-0", state="healthy", health=EngineHealth.starting(0.0), last_words="killed"
    )
    runner = SimpleNamespace(get_loop=closed_loop)
    return SimpleNamespace(
        pools=[SimpleNamespace(name="shared")],
        waiting={"shared": 2},
        engines=[engine],
        workers={"engine-0": worker},
        loop=SimpleNamespace(runner=runner),
    )


def closed_loop() -> None:
    raise RuntimeError("Runner is closed")


def test_a_dump_has_the_stacks_queues_and_prompts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchdog, "stacks_of_run", lambda run: [("127.0.0.2/7-rank", f"of {run}")])
    ranks = SimpleNamespace(said=lambda: "learner-rank-0: a backward pass")
    system: Any = SimpleNamespace(
        fleet=fleet_with_a_prompt(), processes=SimpleNamespace(progress=ranks), run_id="mgrpo-1"
    )
    write_dump(tmp_path / "hang", system, ProgressBoard(), 300.0)
    summary = (tmp_path / "hang" / "summary.txt").read_text()
    assert "shared: 2 requests wait" in summary
    assert re.search(r"^engine-0: healthy for \d+ s, last lost: killed$", summary, re.MULTILINE)
    assert "4 completions in flight" in summary and "a prompt of 30 tokens: [0, 1," in summary
    assert "learner-rank-0: a backward pass" in summary
    assert "write_dump" in (tmp_path / "hang" / "driver.txt").read_text()
    assert (tmp_path / "hang" / "127.0.0.2" / "7-rank.txt").read_text() == "of mgrpo-1"


def test_a_process_that_sleeps_is_found_by_the_run_s_mark_and_its_stack_read() -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", SLEEPER], env={stacks.RUN_VARIABLE: "mgrpo-test-of-stacks"}
    )
    try:
        found = {one.pid: one for one in stacks.processes_of("mgrpo-test-of-stacks")}
        assert child.pid in found
        text = ""
        for _ in range(40):  # until it has begun
            text = stacks.stack_of(found[child.pid])
            if "waits_for_ever" in text:
                break
        assert "waits_for_ever" in text and "state: " in text
    finally:
        child.kill()
        child.wait(timeout=10)


def test_a_dump_has_a_file_of_each_real_process_with_its_stack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A child, one that is stopped, and one with the run's mark that somebody else has started."""
    run_id, node = "mgrpo-test-of-dumps", "127.0.0.3"
    monkeypatch.setattr(stacks.ray.util, "get_node_ip_address", lambda: node)
    monkeypatch.setattr(stacks.ray, "nodes", lambda: [{"Alive": True, "NodeManagerAddress": node}])
    marked = {**os.environ, stacks.RUN_VARIABLE: run_id}
    shell = f'{sys.executable} -c "$1" & echo $!'  # it ends: its child is nobody's then
    commands = {
        "child": [sys.executable, "-c", SLEEPER.replace("for_ever", "as_a_child")],
        "stopped": [sys.executable, "-c", SLEEPER.replace("for_ever", "while_stopped")],
        "orphan": ["sh", "-c", shell, "sh", SLEEPER.replace("for_ever", "as_an_orphan")],
    }
    started, pids = [], {}
    try:
        for name, command in commands.items():
            child = subprocess.Popen(
                command,
                env=marked if name == "orphan" else None,
                stdout=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
            started.append(child)
            assert child.stdout is not None
            told = [child.stdout.readline().strip() for _ in range(1 + (name == "orphan"))]
            assert "here" in told
            pids[name] = next((int(word) for word in told if word.isdecimal()), child.pid)
        os.kill(pids["stopped"], signal.SIGSTOP)
        system: Any = SimpleNamespace(fleet=fleet_with_a_prompt(), processes=None, run_id=run_id)
        write_dump(tmp_path / "hang", system, ProgressBoard(), 300.0)
    finally:
        for child in started:
            os.killpg(child.pid, signal.SIGKILL)
            child.communicate(timeout=10)
    texts = {
        int(file.name.partition("-")[0]): file.read_text()
        for file in (tmp_path / "hang" / node).iterdir()
    }
    assert "waits_as_a_child" in texts[pids["child"]]
    assert "waits_while_stopped" in texts[pids["stopped"]]
    assert "state: stopped" in texts[pids["stopped"]]
    assert "waits_as_an_orphan" in texts[pids["orphan"]]
    assert os.getpid() in texts


def test_a_process_that_cannot_be_read_is_asked_by_a_signal_only_if_it_has_a_handler(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stacks, "spied", lambda pid, is_stopped: None)
    sleeper = subprocess.Popen(["sleep", "600"])
    code = "from mgrpo.rooms import write_stacks_on_signal as write\nwrite()\n"
    ours = subprocess.Popen(
        [sys.executable, "-c", code + SLEEPER], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        assert ours.stdout is not None and ours.stdout.readline()
        assert "no process of ours" in stacks.stack_of(psutil.Process(sleeper.pid))
        assert sleeper.poll() is None
        assert "writes its stacks to its log" in stacks.stack_of(psutil.Process(ours.pid))
        assert ours.stderr is not None
        lines = [ours.stderr.readline().decode() for _ in range(2)]
        assert "most recent call first" in lines[0] and "waits_for_ever" in lines[1]
    finally:
        for child in (sleeper, ours):
            child.kill()
            child.communicate(timeout=10)
