from __future__ import annotations

import time
from dataclasses import replace

import psutil
import pytest

from mgrpo.config.rewards import CheckTerm, RewardsConfig
from mgrpo.types import Problem, Reward
from rewards.pool import RewardPool
from rewards.score import TermReward, combine

CHECK = CheckTerm(check="tests.rewards.hostile_checks:attack")
MARK = "a child of the pool under attack"
PROBLEM = Problem(problem_id="p", question=MARK, answer="")


def config(**changes) -> RewardsConfig:
    return RewardsConfig(terms=[CHECK], deadline_s=2.0, num_processes=2, memory_gib=4.0, **changes)


@pytest.fixture(scope="module")
def pool():
    with RewardPool(config()) as pool:
        yield pool


def marked() -> list[int]:
    """Processes that checks have started and that still run; forks of a reward process, whose
    command line they have, once they have lost their parent."""
    found = []
    for process in psutil.process_iter(["cmdline", "status", "ppid"]):
        command = process.info["cmdline"] or []
        is_fork = process.info["ppid"] == 1 and any("spawn_main" in word for word in command)
        if (MARK in command or is_fork) and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(process.pid)
    return found


def wait_until(claim, timeout_s=30.0):
    deadline = time.monotonic() + timeout_s
    while not (held := claim()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return held


ATTACKS = {
    "hang": ("timeout", "was killed"),
    "regular_expression": ("timeout", "was killed"),
    "stops_itself": ("timeout", "was killed"),
    "children_and_hang": ("timeout", "was killed"),
    "fork_bomb": ("timeout", "was killed"),
    "exits": ("error", "exit code 70"),
    "segfault": ("error", "exit code -11"),
    "aborts": ("error", "exit code -6"),
    "children_and_exit": ("error", "exit code 1"),
    "memory": ("error", "MemoryError"),
    "breaks_the_program": ("error", "exit code 71"),
    "removed": ("error", "unknown status 'removed'"),
    "text_raises": ("error", "Unreadable: its text raises KeyboardInterrupt (hostile_checks.py:"),
    "unpicklable": ("scored", "z"),
    "prints": ("scored", ""),
    "long_texts": ("scored", "yyy"),
    "many_parts": ("scored", ""),
    "threads": ("scored", ""),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_costs_its_own_completion_and_the_pool_stays_healthy(pool, attack):
    rewards = pool.score_blocking(PROBLEM, ["fine", attack, "fine"])
    status, detail = ATTACKS[attack]
    assert [one.status for one in rewards] == ["scored", status, "scored"], rewards[1].detail[:200]
    assert detail in rewards[1].detail
    assert [one.value for one in rewards] == [1.0, float(status == "scored"), 1.0]
    assert max(len(rewards[1].detail), len(rewards[1].feedback)) < 10_000
    assert len(rewards[1].parts) < 100 and all(len(name) < 300 for name in rewards[1].parts)
    assert wait_until(lambda: not marked()), "a check's children outlive its process"


def test_a_process_in_which_threads_pile_up_is_replaced_at_no_completions_cost(pool):
    rewards = pool.score_blocking(PROBLEM, ["threads", "process_id"] * 8)
    assert {one.status for one in rewards} == {"scored"}
    assert len({one.value for one in rewards[1::2]}) > 2


def test_memory_of_the_pools_own_process_stays_flat(pool):
    own = psutil.Process()
    pool.score_blocking(PROBLEM, ["long_texts"] * 2)
    before = own.memory_info().rss
    pool.score_blocking(PROBLEM, ["long_texts", "many_parts", "prints"] * 2)
    assert own.memory_info().rss - before < 64 * 2**20


SURVIVED = ("removed", "text_raises", "unpicklable", "prints", "long_texts", "many_parts")
"""Attacks after which their process goes on; what others take ends with theirs."""


def test_memory_of_processes_that_live_through_attacks_stays_flat():
    others = set(psutil.Process().children())
    with RewardPool(config()) as pool:
        workers = set(psutil.Process().children()) - others

        def attack(num_rounds: int) -> dict[psutil.Process, int]:
            """Resident bytes of each process afterwards; two texts of each kind are a round."""
            for _ in range(num_rounds):
                pool.score_blocking(PROBLEM, SURVIVED * 2)
            return {one: one.memory_info().rss for one in workers if one.is_running()}

        before = attack(2)
        after = attack(9)  # 108 attacks
    assert len(after) >= 2 and after.keys() == before.keys() == workers
    grown = {one.pid: after[one] - rss for one, rss in before.items()}
    assert max(grown.values()) < 16 * 2**20, grown


def test_what_checks_started_ends_with_the_pool():
    with RewardPool(config(timeout_is="zero").model_copy(update={"deadline_s": 60.0})) as pool:
        pool.submit(PROBLEM, ["children_and_hang"])
        assert wait_until(lambda: len(marked()) == 5)
    assert wait_until(lambda: not marked())


def test_a_timeout_is_worth_0_where_the_recipe_says_so():
    with RewardPool(config(timeout_is="zero")) as pool:
        late, fine, crashed = pool.score_blocking(PROBLEM, ["hang", "fine", "exits"])
    assert (late.status, late.value, late.is_usable) == ("unparsable", 0.0, True)
    assert "took longer than rewards.deadline_s" in late.detail
    assert (fine.status, crashed.status) == ("scored", "error")


def test_a_sum_that_no_float_holds_is_an_error():
    huge = TermReward(name="huge", weight=10.0, reward=Reward(value=1e308))
    for others in ([], [replace(huge, weight=-10.0)], [huge]):
        assert combine([huge, *others]).status == "error"
