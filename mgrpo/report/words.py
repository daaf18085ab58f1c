"""Numbers as people read them."""

from __future__ import annotations

import math
from decimal import ROUND_HALF_UP, Decimal

NO_BREAK = "\u00a0"
MINUS = "\u2212"
EN_DASH = "\u2013"
MISSING = EN_DASH


def percent(share: float | None, *, digits: int = 1) -> str:
    """0.425 -> "42.5 %"; None -> a dash. A half is rounded up, as people do: 92.5 is 93."""
    if share is None or not math.isfinite(share):
        return MISSING
    if abs(share) >= 1e9:  # no share: more digits than a decimal number has
        return f"{number(100 * share)}{NO_BREAK}%"
    exact = Decimal(f"{100 * share:.9f}")
    return f"{exact.quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP)}{NO_BREAK}%"


def points(share: float | None, *, digits: int = 1) -> str:
    """A difference of two shares in percentage points: 0.05 -> "+5.0"."""
    if share is None or not math.isfinite(share):
        return MISSING
    text = f"{100 * share:+.{digits}f}"
    return text.replace("-", MINUS) if float(text) != 0 else f"{0:.{digits}f}"


def number(value: float | None) -> str:
    """Three significant digits, without an exponent where that stays short."""
    if value is None:
        return MISSING
    if value == 0:
        return "0"
    if not math.isfinite(value):
        return str(value).replace("-", MINUS)
    if 1e-3 <= abs(value) < 1e6:
        text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    else:
        mantissa, exponent = f"{value:.2e}".split("e")
        text = f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
    return text if "e" in text else text.replace("-", MINUS)


def duration(seconds: float | None) -> str:
    """45 -> "45 s"; 200 -> "3 min 20 s"; 4000 -> "1 h 7 min"."""
    if seconds is None or not math.isfinite(seconds):
        return MISSING
    if seconds < 60:
        digits = 1 if seconds < 10 else 0
        return f"{seconds:.{digits}f}{NO_BREAK}s"
    minutes, rest_s = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}{NO_BREAK}min {rest_s}{NO_BREAK}s"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours}{NO_BREAK}h {minutes}{NO_BREAK}min"
    days, hours = divmod(hours, 24)
    return f"{days}{NO_BREAK}d {hours}{NO_BREAK}h"


def plural(count: int, noun: str) -> str:
    """1 -> "1 step"; 2 -> "2 steps"."""
    return f"{count:,}{NO_BREAK}{noun}" + ("" if count == 1 else "s")
