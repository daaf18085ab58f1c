import asyncio
import gc
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from mgrpo.config.rewards import CheckTerm, RewardsConfig
from mgrpo.errors import RewardError
from mgrpo.types import Problem
from rewards.pool import RewardPool, discard

CHECKS = "tests.rewards.example_checks"
SEVEN = Problem(problem_id="seven", question="What is 3 + 4?", answer="7")


def config_of(*terms, deadline_s=1.0, num_processes=2):
    return RewardsConfig(terms=list(terms), deadline_s=deadline_s, num_processes=num_processes)


def worker_pids():
    """Processes of this one's reward pools that are alive, zombies left out."""
    return {child.pid for child in psutil.Process().children() if is_worker(child)}


def is_worker(child):
    try:
        return child.status() != psutil.STATUS_ZOMBIE and "spawn_main" in " ".join(child.cmdline())
    except psutil.NoSuchProcess:  # it ended while it was looked at
        return False


def settled_worker_pids(quiet_s=0.5):
    """Once none has come or gone for a while: another test's killed process may be replaced now."""
    pids, since = worker_pids(), time.monotonic()
    while time.monotonic() - since < quiet_s:
        time.sleep(0.05)
        if worker_pids() != pids:
            pids, since = worker_pids(), time.monotonic()
    return pids


def wait_until(claim, timeout_s=5.0):
    deadline = time.monotonic() + timeout_s
    while not claim() and time.monotonic() < deadline:
        time.sleep(0.02)
    return claim()


@pytest.fixture(scope="module")
def obedient():
    """A pool whose check does what the completion says; its deadline is one second."""
    with RewardPool(config_of(CheckTerm(check=f"{CHECKS}:by_command"))) as pool:
        yield pool


@pytest.fixture(scope="module")
def mathematician():
    terms = [
        CheckTerm(check="math_answer"),
        CheckTerm(check="format", weight=0.5),
        CheckTerm(check=f"{CHECKS}:imported_heavy_modules", weight=100),
    ]
    with RewardPool(config_of(*terms, deadline_s=2.0)) as pool:
        yield pool


def test_right_wrong_and_unparsable_answers_with_two_terms(mathematician):
    texts = ["\\boxed{7}", "\\boxed{7} it is", "\\boxed{8}", "seven"]
    rewards = mathematician.score_blocking(SEVEN, texts)
    assert [reward.value for reward in rewards] == [1.5, 1.0, 0.5, 0.0]
    assert [reward.status for reward in rewards] == ["scored", "scored", "scored", "unparsable"]
    assert [reward.correct for reward in rewards] == [True, True, False, False]
    assert [reward.extracted_answer for reward in rewards] == ["7", "7", "8", None]
    assert "8 is not 7" in rewards[2].detail


def test_reward_processes_import_nothing_that_starts_slowly(mathematician):
    reward = mathematician.score_blocking(SEVEN, ["\\boxed{7}"])[0]
    assert reward.parts[f"{CHECKS}:imported_heavy_modules"] == 0.0, reward.detail


def test_unicode_and_huge_completions_are_scored_within_the_deadline(mathematician):
    texts = [
        "\u7b54\u3048\u306f \\boxed{\uff17}\u3002 \U0001f600",
        "\\boxed{" * 14_000,
        "{" * 100_000 + "\\boxed{7}",
        "\\boxed{" + "{}" * 50_000 + "}",
        "<think>" * 15_000 + "\\boxed{7}",
    ]
    rewards = mathematician.score_blocking(SEVEN, texts)
    assert [reward.is_usable for reward in rewards] == [True] * 5, rewards
    assert [reward.correct for reward in rewards] == [True, False, True, False, True]


def test_a_tower_of_powers_is_graded_without_waiting_for_the_deadline(mathematician):
    tower = "\\boxed{9^{9^{9^{9}}}}"
    problem = Problem(problem_id="tower", question="", answer="\\sqrt{2}")
    started = time.monotonic()
    rewards = mathematician.score_blocking(problem, ["\\boxed{\\sqrt2}", tower, "\\boxed{3}"])
    assert [reward.correct for reward in rewards] == [True, False, False]
    assert [reward.status for reward in rewards] == ["scored", "scored", "scored"]
    assert time.monotonic() - started < 5


def test_each_failure_costs_one_completion_and_the_order_is_kept(obedient):
    texts = ["fine", "hang", "fine", "exit 1", "raise", "exit 0", "fine", "nan"] + ["fine"] * 32
    texts += ["infinite reward", "nothing", "system exit", "unreadable", "hang in C"]
    rewards = obedient.score_blocking(SEVEN, texts)
    expected = {
        "fine": ("scored", ""),
        "hang": ("timeout", "rewards.deadline_s = 1 s"),
        "hang in C": ("timeout", "by_command: took longer"),
        "exit 0": ("error", "exit code 70"),
        "exit 1": ("error", "exit code 1"),
        "raise": ("error", "ValueError: bad luck (example_checks.py:"),
        "nan": ("error", "nan"),
        "infinite reward": ("error", "inf"),
        "nothing": ("error", "NoneType"),
        "system exit": ("error", "SystemExit"),
        "unreadable": ("unparsable", "no answer"),
    }
    for text, reward in zip(texts, rewards, strict=True):
        status, detail = expected[text]
        assert reward.status == status, (text, reward)
        assert detail in reward.detail
        assert reward.value == (1.0 if text == "fine" else 0.0)


def test_slow_checks_in_one_chunk_each_get_the_whole_deadline():
    term = CheckTerm(check=f"{CHECKS}:by_command", settings={"pause_s": 0.3})
    with RewardPool(config_of(term, deadline_s=0.5)) as pool:
        rewards = pool.score_blocking(SEVEN, ["fine"] * 12)  # chunks of three, 0.9 s each
    assert [reward.status for reward in rewards] == ["scored"] * 12


def test_an_idle_process_that_is_killed_from_outside_is_replaced(obedient):
    pids = {int(r.value) for r in obedient.score_blocking(SEVEN, ["pid"] * 64)}
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not pids & worker_pids())
    time.sleep(0.3)  # the pool looks after its processes every 0.1 s
    again = {int(r.value) for r in obedient.score_blocking(SEVEN, ["pid"] * 8)}
    assert again and not again & pids


def test_the_signal_that_stops_a_job_does_not_disturb_a_check():
    term = CheckTerm(check=f"{CHECKS}:by_command", settings={"pause_s": 0.5})
    with RewardPool(config_of(term, deadline_s=2.0)) as pool:
        scoring = pool.submit(SEVEN, ["fine", "pid"])
        time.sleep(0.2)  # within the first check
        pids = worker_pids()
        assert len(pids) >= 2
        for pid in pids:
            os.kill(pid, signal.SIGTERM)
        assert [reward.status for reward in scoring.result(timeout=10)] == ["scored", "scored"]


def test_processes_that_keep_dying_without_a_cause_stop_the_run(monkeypatch):
    monkeypatch.setattr("rewards.pool.MAX_REPLACED_POOLS", 0)
    with RewardPool(config_of(CheckTerm(check=f"{CHECKS}:by_command"), num_processes=1)) as pool:
        pid = int(pool.score_blocking(SEVEN, ["pid"])[0].value)
        os.kill(pid, signal.SIGKILL)
        time.sleep(0.4)  # the pool looks after its processes every 0.1 s
        with pytest.raises(RewardError, match="out-of-memory"):
            pool.score_blocking(SEVEN, ["fine"])


def test_many_groups_at_once_from_one_event_loop(mathematician):
    async def score_all():
        problems = [Problem(problem_id=str(n), question="", answer=str(n % 10)) for n in range(100)]
        texts = [f"\\boxed{{{digit}}}" for digit in range(10)]
        return await asyncio.gather(*(mathematician.score(p, texts) for p in problems))

    groups = asyncio.run(score_all())
    for number, rewards in enumerate(groups):
        assert [reward.correct for reward in rewards] == [d == number % 10 for d in range(10)]


def test_the_event_loop_runs_between_groups_that_come_at_once(mathematician, monkeypatch):
    begun, seen = [], []  # groups; how many there were at each turn of the loop
    submit = mathematician.submit
    monkeypatch.setattr(
        mathematician,
        "submit",
        lambda problem, *rest: begun.append(problem) or submit(problem, *rest),
    )

    async def score_all():
        groups = [asyncio.ensure_future(mathematician.score(SEVEN, ["7"])) for _ in range(50)]
        while not all(group.done() for group in groups):
            seen.append(len(begun))
            await asyncio.sleep(0)

    for _ in range(2):  # each has a loop of its own
        begun.clear(), seen.clear()
        asyncio.run(score_all())
        assert sorted(set(seen)) == list(range(51))


def test_groups_that_were_scored_leave_no_circles_of_references(mathematician):
    """Collecting those of 625 groups kept the event loop waiting for 40 to 90 ms."""

    async def score_groups():
        groups = (mathematician.score(SEVEN, ["\\boxed{7}"] * 8) for _ in range(20))
        return len(await asyncio.gather(*groups))

    gc.collect()
    gc.disable()
    try:
        assert asyncio.run(score_groups()) == 20
        assert gc.collect() < 20  # objects; the event loop has some of its own
    finally:
        gc.enable()


def test_threads_share_a_pool(mathematician):
    results = {}

    def score(n):
        problem = Problem(problem_id=str(n), question="", answer=str(n))
        results[n] = mathematician.score_blocking(problem, ["\\boxed{1}", "\\boxed{2}"])

    threads = [threading.Thread(target=score, args=(n,)) for n in (1, 2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=10)
    assert {n: [r.correct for r in rewards] for n, rewards in results.items()} == {
        1: [True, False],
        2: [False, True],
        3: [False, False],
    }


def test_no_texts_have_no_rewards(obedient):
    assert obedient.score_blocking(SEVEN, []) == []
    assert asyncio.run(obedient.score(SEVEN, [])) == []


def test_cancelling_frees_the_processes():
    async def give_up_early(pool):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(pool.score(SEVEN, ["hang"] * 20), timeout=0.3)
        # Ten minutes of hangs are before it where they still have the processes.
        return await asyncio.wait_for(pool.score(SEVEN, ["fine"] * 4), timeout=50)

    with RewardPool(config_of(CheckTerm(check=f"{CHECKS}:by_command"), deadline_s=60)) as pool:
        rewards = asyncio.run(give_up_early(pool))
    assert [reward.value for reward in rewards] == [1.0] * 4


def test_of_512_completions_each_is_graded_as_itself(mathematician):
    texts = [f"Step {n}: add.\nSo \\boxed{{{n}}}" for n in range(512)]
    rewards = mathematician.score_blocking(SEVEN, texts)
    assert [n for n, reward in enumerate(rewards) if reward.correct] == [7]


@pytest.mark.parametrize(
    ("check", "message"),
    [
        ("tests.rewards.broken_module:check", "divides by zero"),
        (f"{CHECKS}:no_such_check", "no_such_check"),
    ],
)
def test_a_check_that_cannot_be_loaded_stops_the_start(check, message):
    before = settled_worker_pids()
    with pytest.raises(RewardError, match=message):
        RewardPool(config_of(CheckTerm(check=check), num_processes=1)).start()
    assert wait_until(lambda: worker_pids() == before)


def test_a_module_that_never_finishes_importing_stops_the_start(tmp_path, monkeypatch):
    (tmp_path / "sleepy_module.py").write_text("import time\ntime.sleep(100)\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    config = config_of(CheckTerm(check="sleepy_module:check"), num_processes=1)
    started = time.monotonic()
    with pytest.raises(RewardError, match="0 of 1 reward processes started within 1 s"):
        RewardPool(config, start_deadline_s=1.0).start()
    assert time.monotonic() - started < 4


def test_importing_a_check_has_a_deadline_of_its_own(tmp_path, monkeypatch):
    (tmp_path / "slow_module.py").write_text(
        "import time\ntime.sleep(1.5)\ndef check(completion, problem):\n    return 1.0\n"
    )
    monkeypatch.chdir(tmp_path)
    config = config_of(CheckTerm(check="slow_module:check"), deadline_s=0.5, num_processes=1)
    with RewardPool(config) as pool:
        assert [reward.status for reward in pool.score_blocking(SEVEN, ["fine"])] == ["scored"]
    hasty = config.model_copy(update={"start_deadline_s": 0.5})
    with pytest.raises(RewardError, match=r"within 0\.5 s.*raise rewards\.start_deadline_s"):
        RewardPool(hasty).start()


def test_close_is_quick_leaves_no_process_and_ends_who_waits():
    before = settled_worker_pids()
    pool = RewardPool(config_of(CheckTerm(check=f"{CHECKS}:by_command"), deadline_s=60))
    pool.start()
    waiting = pool.submit(SEVEN, ["hang in C", "hang"] * 50)
    time.sleep(0.5)
    assert len(worker_pids() - before) == 2
    started = time.monotonic()
    pool.close()
    assert time.monotonic() - started < 2
    assert wait_until(lambda: worker_pids() == before)
    with pytest.raises(RewardError, match="closed"):
        waiting.result(timeout=1)
    with pytest.raises(RewardError, match="not running"):
        pool.submit(SEVEN, ["fine"])


DRIVER = f"""
import os, sys, time
from mgrpo.config.rewards import CheckTerm, RewardsConfig
from mgrpo.types import Problem
from rewards.pool import RewardPool

if __name__ == "__main__":
    terms = [CheckTerm(check="{CHECKS}:by_command")]
    pool = RewardPool(RewardsConfig(terms=terms, deadline_s=100))
    pool.start()
    problem = Problem(problem_id="p", question="", answer="")
    pids = {{int(reward.value) for reward in pool.score_blocking(problem, ["pid"] * 64)}}
    pool.submit(problem, ["hang in C"] * 2)
    print(*pids, flush=True)
    time.sleep(float(sys.argv[1]))
"""


@pytest.fixture
def driver(tmp_path):
    """Starts a program that uses a pool, and never closes it; returns it and the pids."""
    path = tmp_path / "driver.py"
    path.write_text(DRIVER)
    started = []

    def start(lifetime_s):
        process = subprocess.Popen(
            [sys.executable, str(path), str(lifetime_s)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(Path.cwd())},
        )
        started.append(process)
        return process, [int(pid) for pid in process.stdout.readline().split()]

    yield start
    for process in started:
        process.kill()
        process.wait()


def is_gone(pid):
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_no_process_outlives_a_driver_that_is_killed(driver):
    process, pids = driver(100)
    assert pids
    time.sleep(0.3)  # let both processes start on their endless power
    process.kill()
    assert wait_until(lambda: all(is_gone(pid) for pid in pids))


def test_a_driver_that_forgets_to_close_still_ends(driver):
    process, pids = driver(0.1)
    assert process.wait(timeout=10) == 0
    assert wait_until(lambda: all(is_gone(pid) for pid in pids))


class HeldByTheKernel:
    """A pool whose killed processes do not end until somebody lets them."""

    def __init__(self):
        self.let_go = threading.Event()
        self.was_stopped = False

    def stop(self):
        self.was_stopped = True

    def join(self):
        self.let_go.wait(30)


def test_processes_that_do_not_end_are_reported_and_not_waited_for():
    pool = HeldByTheKernel()
    with pytest.raises(RewardError, match=r"have not ended 0\.05 s after they were killed"):
        discard(pool, deadline_s=0.05)
    assert pool.was_stopped
    pool.let_go.set()
    discard(pool, deadline_s=5)
