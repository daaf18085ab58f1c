"""Checks such as users write, well and badly."""

import os
import time

from mgrpo.types import Problem, Reward


def says_yes(completion: str, problem: Problem) -> bool:
    return completion == "yes"


def length(completion: str, problem: Problem, *, scale: float = 1.0) -> float:
    return len(completion) * scale


def by_command(completion: str, problem: Problem, *, pause_s: float = 0.0) -> object:
    """Does what the completion says; "fine" is worth 1."""
    time.sleep(pause_s)
    if completion == "hang":
        while True:
            time.sleep(1)
    if completion == "hang in C":
        return float(len(str(9**9**9)))
    if completion.startswith("exit "):
        os._exit(int(completion.split()[1]))
    if completion == "system exit":
        raise SystemExit(0)
    if completion == "raise":
        raise ValueError("bad luck")
    if completion == "nan":
        return float("nan")
    if completion == "infinite reward":
        return Reward(value=float("inf"))
    if completion == "nothing":
        return None
    if completion == "unreadable":
        return Reward(value=0.0, status="unparsable", detail="no answer")
    if completion == "pid":
        return Reward(value=float(os.getpid()))
    return 1.0


def imported_heavy_modules(completion: str, problem: Problem) -> Reward:
    """Which modules that start slowly are in this process?"""
    from rewards.worker import loaded_modules

    heavy = {"torch", "vllm", "ray", "deepspeed", "transformers"} & set(loaded_modules())
    return Reward(value=float(len(heavy)), detail=", ".join(sorted(heavy)))


async def waits(completion: str, problem: Problem) -> float:
    return 1.0
