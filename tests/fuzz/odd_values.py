"""Python values that a reward function may return, by mistake or on purpose, from bytes."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np

from mgrpo.types import Reward

warnings.filterwarnings("ignore", message="coroutine 'never_awaited'")


class Hostile:
    """Raises at every question."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)

    def refuse(self, *_: object) -> Any:
        raise ValueError("no")

    __repr__ = __str__ = __float__ = __len__ = __iter__ = __bool__ = refuse
    __eq__ = __lt__ = __getitem__ = __reduce__ = refuse
    __hash__ = None  # type: ignore[assignment]


class LyingFloat(float):
    """A number that calls itself something else."""

    def __float__(self) -> float:
        return float("nan")

    def __repr__(self) -> str:
        return "x" * 10_000


class Unpicklable(str):
    __slots__ = ()

    def __reduce__(self) -> Any:
        raise TypeError("cannot be sent")


async def never_awaited() -> float:
    return 1.0


Maker = Callable[[random.Random], Any]
LEAVES: tuple[Maker, ...] = (
    lambda rng: rng.choice((0, 1, -1, 10**400, -(10**5000), 2**63, True, False, None, ...)),
    lambda rng: rng.choice((0.0, -0.0, 0.5, 1e308, 5e-324, float("nan"), float("inf"))),
    lambda rng: rng.choice(("", "1", "nan", "\0", "\ud800", "x" * 100_000, b"1", bytearray(b"1"))),
    lambda rng: rng.choice((Decimal("NaN"), Decimal("sNaN"), Decimal("1e9999"), Fraction(1, 3))),
    lambda rng: rng.choice((1j, range(2), slice(1), object(), int, len, lambda: 1)),
    lambda rng: rng.choice((np.float32(0.5), np.float64("nan"), np.int64(3), np.bool_(True))),
    lambda rng: rng.choice((np.array(0.5), np.array([1.0, 2.0]), np.array([[1.0], [2.0]]))),
    lambda rng: rng.choice((np.array(["a", "b"]), np.array([None, 1], dtype=object))),
    lambda rng: rng.choice((Hostile, lambda: LyingFloat(1.0), lambda: Unpicklable("x")))(),
    lambda rng: rng.choice((never_awaited, lambda: (n for n in range(2)), lambda: {1, 2}))(),
    lambda rng: ValueError("x"),
    lambda rng: 1.0,
    lambda rng: 1.0,
)


def odd_return(data: bytes) -> Any:
    """The value that these bytes stand for: the same for the same ones."""
    return odd_value(random.Random(data), depth=0)


def odd_value(rng: random.Random, depth: int) -> Any:
    if depth > 2 or rng.random() < 0.4:
        return rng.choice(LEAVES)(rng)
    count = rng.choice((0, 1, 2, 2, 2, 2, 3))
    inner = [odd_value(rng, depth + 1) for _ in range(count)]
    names = ["score", "rewards", "feedback", "extra_logs", "x", "", 1, None]
    match rng.randrange(4):
        case 0:
            return tuple(inner)
        case 1:
            return {rng.choice(names): value for value in inner}
        case 2:
            return odd_reward(rng, depth)
        case _:
            return inner


def odd_reward(rng: random.Random, depth: int) -> Reward:
    given: dict[str, Any] = {"value": odd_value(rng, depth + 1)}
    names = ("status", "correct", "parts", "extracted_answer", "detail", "feedback")
    for name in rng.sample(names, rng.randrange(3)):
        given[name] = odd_value(rng, depth + 1)
    if rng.random() < 0.2:
        given["status"] = rng.choice(("removed", "timeout", "unparsable", "scored"))
    return Reward(**given)
