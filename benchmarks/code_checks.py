"""How many programs a minute the check `code_answer` judges, in the pool of a run.

    python -m benchmarks.code_checks           # 3 rounds of 240 checks
    python -m benchmarks.code_checks --quick   # one round of 80
    python -m benchmarks.code_checks --write   # docs/benchmarks/code_checks.md and .json

A check is a program and five tests of it: right, wrong, and failing programs in turn, each test in
a process of its own, in the strongest sandbox that the machine has. Groups of eight go to a pool of
as many reward processes as there are cores. The last line of the output is one JSON object.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Iterator

from benchmarks.machine import REPOSITORY, Result, machine, origin_lines
from benchmarks.measured_page import publish
from mgrpo.config import RewardsConfig
from mgrpo.types import Problem
from rewards.code.sandbox import kind_for, weaknesses
from rewards.pool import RewardPool

PAGE = REPOSITORY / "docs" / "benchmarks" / "code_checks.md"
GROUP = 8
NUM_TESTS = 5
GOAL = 500
BODIES = (
    "    return sum(n for n in numbers if n % 2 == 0)",
    "    return sum(numbers)",
    "    return sorted(numbers)[10**6]",
    "    import collections\n    return sum(n for n in collections.deque(numbers) if not n & 1)",
)
INPUT = "numbers = list(map(int, input().split()))\nprint(total(numbers))"


def main() -> int:
    args = parse()
    settings = RewardsConfig.model_validate(
        {
            "num_processes": os.cpu_count(),
            "deadline_s": 120,
            "terms": [{"check": "code_answer", "settings": {"seconds": 30, "total_s": 90}}],
        }
    )
    kind = kind_for("auto")
    rounds: dict[str, list[float]] = {"stdin": [], "function": []}
    with RewardPool(settings) as pool:
        for number in range(args.rounds + 1):
            for form, rates in rounds.items():
                count = GROUP if number == 0 else args.checks
                rate = checks_per_minute(pool, form, count)
                if number > 0:
                    rates.append(rate)
                    print(f"round {number} {form}: {rate:.0f} checks/min", file=sys.stderr)
    result = {
        "benchmark": "code_checks",
        "sandbox": kind,
        "weaknesses": weaknesses(kind),
        "processes": os.cpu_count(),
        "tests": NUM_TESTS,
        "checks_per_minute": {form: statistics.median(rates) for form, rates in rounds.items()},
        "rounds": rounds,
        "goal": GOAL,
        "load": os.getloadavg()[0],
        "command": " ".join(["python -m benchmarks.code_checks", *sys.argv[1:]]),
        "date": time.strftime("%Y-%m-%d"),
        **machine(),
    }
    page = PAGE if args.write else None
    publish(result, "\n".join(page_lines(result)), page, title="Checks of programs")
    return 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Time checks of programs in their sandbox.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--checks", type=int, default=240, help="of each round and form")
    parser.add_argument("--quick", action="store_true", help="one round of 80")
    parser.add_argument("--write", action="store_true", help=f"update {PAGE.name} and its .json")
    args = parser.parse_args()
    if args.quick:
        args.rounds, args.checks = 1, 80
    if args.rounds < 1 or args.checks < GROUP:
        parser.error(f"needs a round or more of {GROUP} checks or more")
    return args


def checks_per_minute(pool: RewardPool, form: str, count: int) -> float:
    """Of groups that are all submitted at once, as in a step.

    Raises:
        SystemExit: a check failed, or judged wrongly.
    """
    began = time.perf_counter()
    futures = [
        pool.submit(problem_of(form, number), [completion(form, one) for one in range(GROUP)])
        for number in range(count // GROUP)
    ]
    for future in futures:
        rewards = future.result(timeout=300)
        right = [reward.correct for reward in rewards]
        if right != [body % len(BODIES) in (0, 3) for body in range(GROUP)]:
            raise SystemExit(f"a check went wrong: {rewards}")
    return count // GROUP * GROUP / (time.perf_counter() - began) * 60


def completion(form: str, number: int) -> str:
    body = BODIES[number % len(BODIES)]
    ending = f"\n{INPUT}" if form == "stdin" else ""
    return f"Here it is.\n```python\ndef total(numbers):\n{body}\n{ending}\n```"


def problem_of(form: str, number: int) -> Problem:
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
    yield f"| Tests | checks a minute (each round) | goal {result['goal']} |"
    yield "| --- | --- | --- |"
    for form, rate in result["checks_per_minute"].items():
        rounds = ", ".join(f"{one:,.0f}" for one in result["rounds"][form])
        verdict = "met" if rate >= result["goal"] else "not met"
        yield f"| {form} | {rate:,.0f} ({rounds}) | {verdict} |"
    yield ""
    yield f"{result['tests']} tests a check, {result['processes']} reward processes, sandbox"
    yield f"{result['sandbox']}, load average {result['load']:.1f} afterwards."
    yield from origin_lines(result)


if __name__ == "__main__":
    sys.exit(main())
