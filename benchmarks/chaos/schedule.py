"""Which fault comes when: the same for the same seed. Pure."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Order = Literal["streamed", "overlapped"]
ORDERS: tuple[Order, ...] = ("streamed", "overlapped")
PART_FAULTS = 34
"""Of a run of 108 steps."""
FIRST_STEP = 2
GAP_STEPS = 2
"""From a fault to the next one, at least."""
FAULT_STEPS = 3
"""From a fault to the next one, on average."""
LAST_STEPS = 4
"""After the last fault."""
KINDS = (
    *("engine actor killed", "engine actor stopped", "engine actor paused"),
    *("EngineCore killed", "EngineCore stopped", "EngineCore paused"),
    *("learner rank killed", "learner rank stopped", "learner rank paused"),
    *("reward process killed", "reward process stopped"),
    *("driver killed", "driver told to stop", "driver paused"),
    *("raylet killed", "GCS killed"),
    *("HTTP reward slow", "HTTP reward cut", "HTTP reward refused"),
    *("checkpoints read-only", "checkpoints full", "newest checkpoint damaged"),
    *("clock set an hour ahead", "clock set an hour back"),
    *("weights spoiled on the way", "weights spoiled in the engine"),
    *("log-probabilities not finite", "log-probabilities shifted"),
)
"""Every kind of fault, as tables show it."""
HOUR_S = 3600
NEED_ROOT = ("checkpoints read-only", "checkpoints full")
NEED_COMPILER = ("clock set an hour ahead", "clock set an hour back")


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of a run."""

    kind: str
    step: int  # it comes while this one is under way
    moment: float  # where in the step, as a share of a step's usual time
    choice: int  # which of several processes or bytes, modulo their number


@dataclass(frozen=True, slots=True)
class Part:
    """One run of the campaign, and its faults in their order."""

    name: str  # of its record
    order: Order
    num_steps: int
    faults: Sequence[Fault] = ()


def steps_of(num_faults: int) -> int:
    """Steps of a run with so many faults."""
    return FIRST_STEP + FAULT_STEPS * num_faults + LAST_STEPS


def campaign(num_faults: int, seed: int, kinds: Sequence[str] = KINDS) -> list[Part]:
    """Runs of PART_FAULTS faults each, the last of what is left; orders take turns.

    Fewer faults are shared by two runs, so that both orders are among them.
    """
    drawn = drawn_kinds(num_faults, seed, kinds)
    size = min(PART_FAULTS, -(-num_faults // len(ORDERS)))
    starts = range(0, num_faults, size)
    return [part(number, seed, drawn[start : start + size]) for number, start in enumerate(starts)]


def undisturbed(parts: Sequence[Part]) -> list[Part]:
    """A run without faults for each order and length of the parts."""
    kinds = dict.fromkeys((one.order, one.num_steps) for one in parts)
    return [Part(f"undisturbed-{order}-{steps}", order, steps) for order, steps in kinds]


def drawn_kinds(num_faults: int, seed: int, kinds: Sequence[str]) -> list[str]:
    """Every kind once in an order of its own, then every kind again in another, and so on."""
    drawn: list[str] = []
    for deal in range(-(-num_faults // len(kinds))):
        drawn += random.Random(f"{seed}/kinds/{deal}").sample(kinds, len(kinds))
    return drawn[:num_faults]


def part(number: int, seed: int, kinds: Sequence[str]) -> Part:
    rng = random.Random(f"{seed}/part/{number}")
    slack = (FAULT_STEPS - GAP_STEPS) * len(kinds)
    later = sorted(rng.randrange(slack) for _ in kinds)
    faults = [
        Fault(
            kind,
            FIRST_STEP + GAP_STEPS * place + later[place],
            moment=rng.random(),
            choice=rng.randrange(2**31),
        )
        for place, kind in enumerate(kinds)
    ]
    return Part(
        name=f"part-{number}-{len(kinds)}",
        order=ORDERS[number % len(ORDERS)],
        num_steps=steps_of(len(kinds)),
        faults=faults,
    )
