"""How many checks a minute the reward processes make, and whether the event loop stays free.

    python -m benchmarks.checks           # 3 rounds of 10,000 answers and 240 programs of each form
    python -m benchmarks.checks --quick   # one round of 2,000 and 80
    python -m benchmarks.checks --write   # docs/benchmarks/checks.md and .json

`math`: right and wrong boxed answers in many forms, in groups of sixteen, graded by `math_answer`.
`stdin` and `function`: a program and five tests of it, graded by `code_answer`; right, wrong, and
failing programs in turn, each test in a process of its own, in the strongest sandbox that the
machine has; groups of eight. All groups of a round come at once, on one event loop, to a pool of as
many reward processes as there are cores; the pause is the longest time in which that loop ran
nothing else. The process has imported what a run's has, and leaves it out of garbage collection as
a run does. The last line of the output is one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from benchmarks.machine import REPOSITORY, Result, machine, origin_lines
from benchmarks.measured_page import publish
from mgrpo.config import RewardsConfig
from mgrpo.training.frozen_heap import frozen_heap
from mgrpo.types import Problem
from rewards.code.sandbox import kind_for, weaknesses
from rewards.pool import RewardPool

PAGE = REPOSITORY / "docs" / "benchmarks" / "checks.md"
NUM_TESTS = 5
PAUSE_GOAL_S = 0.05
PROGRAM_DEADLINE_S = 120.0
ANSWERS = ("{}", "{}.0", "x = {}", "{}\\text{{ cm}}", "\\text{{{}}}", "-{}", "{}1", "\\pi")
NUM_RIGHT = 5  # of the answers' forms, the first ones
BODIES = (
    "    return sum(n for n in numbers if n % 2 == 0)",
    "    return sum(numbers)",
    "    return sorted(numbers)[10**6]",
    "    import collections\n    return sum(n for n in collections.deque(numbers) if not n & 1)",
)
INPUT = "numbers = list(map(int, input().split()))\nprint(total(numbers))"


@dataclass
class Form:
    """One kind of check, and what was measured of it."""

    check: dict[str, Any]  # the reward term
    problem: Callable[[int], Problem]
    completion: Callable[[Problem, int], str]
    is_right: Callable[[int], bool]
    group: int
    num_checks: int  # in a round
    goal: int  # checks a minute
    rates: list[float] = field(default_factory=list)  # of each round
    pauses: list[float] = field(default_factory=list)  # of the event loop, in seconds


def main() -> int:
    args = parse()
    importlib.import_module("mgrpo.training.run")  # the objects that a run's process has
    forms = {"math": answers(args.answers), **programs(args.programs)}
    for name, form in forms.items():
        settings = RewardsConfig.model_validate(
            {
                "num_processes": os.cpu_count(),
                "deadline_s": PROGRAM_DEADLINE_S,
                "terms": [form.check],
            }
        )
        with RewardPool(settings) as pool, frozen_heap():
            asyncio.run(score(pool, form, 1))
            for number in range(1, args.rounds + 1):
                rate, pause = asyncio.run(score(pool, form, form.num_checks // form.group))
                form.rates.append(rate)
                form.pauses.append(pause)
                said = f"{rate:,.0f} checks/min, event loop away for {1000 * pause:.0f} ms"
                print(f"round {number} {name}: {said}", file=sys.stderr)
    kind = kind_for("auto")
    result = {
        "benchmark": "checks",
        "sandbox": kind,
        "weaknesses": weaknesses(kind),
        "processes": os.cpu_count(),
        "tests": NUM_TESTS,
        "checks_per_minute": {name: statistics.median(one.rates) for name, one in forms.items()},
        "rounds": {name: one.rates for name, one in forms.items()},
        "checks_at_once": {name: one.num_checks for name, one in forms.items()},
        "longest_pause_s": {name: max(one.pauses) for name, one in forms.items()},
        "goals": {name: one.goal for name, one in forms.items()},
        "load": os.getloadavg()[0],
        "command": " ".join(["python -m benchmarks.checks", *sys.argv[1:]]),
        "date": time.strftime("%Y-%m-%d"),
        **machine(),
    }
    page = PAGE if args.write else None
    publish(result, "\n".join(page_lines(result)), page, title="Checks in the reward processes")
    return 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Time checks, and the pauses of the event loop.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--answers", type=int, default=10_000, help="of each round")
    parser.add_argument("--programs", type=int, default=240, help="of each round and form")
    parser.add_argument("--quick", action="store_true", help="one round of 2,000 and 80")
    parser.add_argument("--write", action="store_true", help=f"update {PAGE.name} and its .json")
    args = parser.parse_args()
    if args.quick:
        args.rounds, args.answers, args.programs = 1, 2000, 80
    if args.rounds < 1 or args.answers < 16 or args.programs < 8:
        parser.error("needs a round or more of 16 answers and 8 programs or more")
    return args


async def score(pool: RewardPool, form: Form, num_groups: int) -> tuple[float, float]:
    """Checks a minute, and the event loop's longest pause in seconds.

    Raises:
        SystemExit: a check failed, or graded wrongly.
    """
    problems = [form.problem(number) for number in range(num_groups)]
    texts = [[form.completion(one, n) for n in range(form.group)] for one in problems]
    right = [form.is_right(n) for n in range(form.group)]
    pauses: list[float] = []
    watch = asyncio.create_task(note_pauses(pauses))
    began = time.perf_counter()
    groups = await asyncio.gather(
        *(pool.score(problem, own) for problem, own in zip(problems, texts, strict=True))
    )
    took = time.perf_counter() - began
    watch.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await watch
    for rewards in groups:
        if [reward.correct for reward in rewards] != right:
            raise SystemExit(f"a check went wrong: {rewards}")
    return num_groups * form.group / took * 60, max(pauses)


async def note_pauses(pauses: list[float]) -> None:
    """Seconds between two turns of the event loop, until it is cancelled."""
    pauses.append(0.0)
    last = time.perf_counter()
    while True:
        await asyncio.sleep(0)
        now = time.perf_counter()
        pauses[0] = max(pauses[0], now - last)
        last = now
        await asyncio.sleep(0.001)
        now = time.perf_counter()
        pauses[0] = max(pauses[0], now - last - 0.001)
        last = now


def answers(num_checks: int) -> Form:
    return Form(
        check={"check": "math_answer"},
        problem=lambda number: Problem(
            problem_id=f"math/{number}", question="?", answer=str(number + 2)
        ),
        completion=lambda problem, number: (
            "Adding both sides gives the result, as was to be shown.\nThe answer is "
            f"$\\boxed{{{ANSWERS[number % len(ANSWERS)].format(problem.answer)}}}$."
        ),
        is_right=lambda number: number % len(ANSWERS) < NUM_RIGHT,
        group=16,
        num_checks=num_checks,
        goal=10_000,
    )


def programs(num_checks: int) -> dict[str, Form]:
    return {
        form: Form(
            check={"check": "code_answer", "settings": {"seconds": 30, "total_s": 90}},
            problem=lambda number, form=form: program_problem(form, number),  # type: ignore[misc]
            completion=lambda _, number, form=form: program(form, number),  # type: ignore[misc]
            is_right=lambda number: number % len(BODIES) in (0, 3),
            group=8,
            num_checks=num_checks,
            goal=500,
        )
        for form in ("stdin", "function")
    }


def program(form: str, number: int) -> str:
    body = BODIES[number % len(BODIES)]
    ending = f"\n{INPUT}" if form == "stdin" else ""
    return f"Here it is.\n```python\ndef total(numbers):\n{body}\n{ending}\n```"


def program_problem(form: str, number: int) -> Problem:
    lists = [[number + test + step for step in range(1 + test)] for test in range(NUM_TESTS)]
    rights = [sum(one for one in numbers if one % 2 == 0) for numbers in lists]
    tests: list[dict[str, object]] = [
        {"input": " ".join(map(str, numbers)) + "\n", "output": f"{right}\n"}
        if form == "stdin"
        else {"function": "total", "arguments": [numbers], "output": right}
        for numbers, right in zip(lists, rights, strict=True)
    ]
    return Problem(
        problem_id=f"{form}/{number}", question="?", answer="?", metadata={"tests": tests}
    )


def page_lines(result: Result) -> Iterator[str]:
    yield "| Checks | a minute (each round) | goal | event loop's longest pause, ms |"
    yield "| --- | --- | --- | ---: |"
    for form, rate in result["checks_per_minute"].items():
        rounds = ", ".join(f"{one:,.0f}" for one in result["rounds"][form])
        goal = result["goals"][form]
        outcome = "met" if rate >= goal else "not met"
        pause = 1000 * result["longest_pause_s"][form]
        yield f"| {form} | {rate:,.0f} ({rounds}) | {goal:,}: {outcome} | {pause:.0f} |"
    yield ""
    yield f"The goal of the pause is {1000 * PAUSE_GOAL_S:.0f} ms."
    yield f"{result['tests']} tests a program, {result['processes']} reward processes, sandbox"
    yield f"{result['sandbox']}, load average {result['load']:.1f} afterwards."
    yield from origin_lines(result)


if __name__ == "__main__":
    sys.exit(main())
