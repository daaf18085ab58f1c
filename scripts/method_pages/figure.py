"""A method's short curve as a small SVG, beside plain GRPO's; and how our SVGs look.

The drawings are matplotlib's. Their colours become CSS variables that differ on dark pages.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from io import StringIO
from math import nan
from statistics import fmean
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from matplotlib.typing import RcKeyType

from scripts.method_pages.curves import Curve, by_step

COLORS = {  # name -> on a light and on a dark page
    "page": ("#ffffff", "#13161a"),
    "ink": ("#1b2027", "#e8eaed"),
    "soft": ("#5a6472", "#a2abb8"),
    "grid": ("#dfe1dd", "#323841"),
    "c0": ("#0072b2", "#56b4e9"),
    "c1": ("#c94f00", "#ff8f57"),
    "c2": ("#00805d", "#45c9a1"),
    "c3": ("#b0508a", "#e39bc6"),
    "c4": ("#b07a00", "#edbd4b"),
    "c5": ("#6b7280", "#a2abb9"),
}
LIGHT = {name: light for name, (light, _) in COLORS.items()}
FONTS = 'system-ui, -apple-system, "Segoe UI", Roboto, sans-serif'
LOOK: dict[RcKeyType, Any] = {
    "font.size": 8.5,
    "text.color": LIGHT["ink"],
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.spines.bottom": False,
    "axes.labelcolor": LIGHT["soft"],
    "axes.labelsize": 8,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.xmargin": 0.02,
    "grid.color": LIGHT["grid"],
    "xtick.color": LIGHT["soft"],
    "ytick.color": LIGHT["soft"],
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "figure.facecolor": LIGHT["page"],
    "axes.facecolor": LIGHT["page"],
    "figure.constrained_layout.use": True,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "mgrpo",
}


@rc_context(LOOK)
def curve_figure(label: str, runs: Sequence[Curve], plain: Sequence[Curve]) -> str:
    """Mean reward of first attempts by step: the mean of all seeds, in a band from the lowest to
    the highest.

    Args:
        plain: of GRPO with the same settings, drawn thin; none leaves it out.
    """
    figure = Figure(figsize=(4.2, 2.45))
    axes = figure.subplots()
    longest = max(len(one.reward) for one in (*runs, *plain))
    share_axes(axes, top=100)
    found = by_step(runs)
    steps = range(1, len(found) + 1)
    if len(runs) > 1:
        low, high = ([100 * end(values, default=nan) for values in found] for end in (min, max))
        axes.fill_between(steps, low, high, color=LIGHT["c0"], alpha=0.18, linewidth=0)
    line(axes, steps, means(found), color="c0", width=1.9, label=label)
    if plain:
        other = means(by_step(plain))
        steps = range(1, len(other) + 1)
        line(axes, steps, other, color="c5", width=1.1, dash=(0, (4, 3)), label="GRPO")
    figure.legend(loc="outside upper left", ncols=2)
    return svg_of(figure, f"{label}: mean reward of first attempts over {longest} steps")


def means(found: Sequence[Sequence[float]]) -> list[float | None]:
    return [fmean(values) if values else None for values in found]


def share_axes(axes: Axes, *, top: float | None = None) -> None:
    """Axes of a share from 0 on, in percent, by step."""
    axes.set_ylim(0, top)
    axes.set_xlabel("step", loc="right")
    axes.set_ylabel("share, %", loc="top")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def line(
    axes: Axes,
    steps: Sequence[int],
    shares: Sequence[float | None],
    *,
    color: str,
    width: float,
    dash: Any = "solid",
    **options: Any,
) -> None:
    """A line of shares from 0 to 1. One that is None interrupts it; one alone is a dot."""
    percents = [float("nan") if share is None else 100 * share for share in shares]
    gaps = [True, *(share is None for share in shares), True]
    alone = [
        index
        for index, (before, here, after) in enumerate(zip(gaps, gaps[1:], gaps[2:], strict=False))
        if before and after and not here
    ]
    look: dict[str, Any] = {"color": LIGHT[color], "linewidth": width, "linestyle": dash}
    if alone:
        look |= {"marker": ".", "markevery": alone}
    axes.plot(steps, percents, **look, **options)


def svg_of(figure: Figure, label: str) -> str:
    """The drawing, with a name for screen readers and with colours of both kinds of pages."""
    stream = StringIO()
    figure.savefig(
        stream, format="svg", metadata=dict.fromkeys(["Creator", "Date", "Format", "Type"])
    )
    svg = re.sub(r"font-family: [^;]*; |^ +", "", stream.getvalue(), flags=re.MULTILINE)
    svg = re.sub(r"\n(?!<)", " ", svg)  # an element a line
    for name, (light, _) in COLORS.items():
        svg = svg.replace(light, f"var(--{name})")
    light, dark = (
        " ".join(f"--{name}: {both[page]};" for name, both in COLORS.items()) for page in (0, 1)
    )
    style = (
        f"svg {{ {light} }} text {{ font-family: {FONTS}; }}\n"
        f"@media (prefers-color-scheme: dark) {{ svg {{ {dark} }} }}"
    )
    head = f'<svg role="img" aria-label="{escape(label)}"'
    return svg[svg.index("<svg") :].replace("<svg", head, 1).replace("*{", f"{style}\n*{{", 1)
