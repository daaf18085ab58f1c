"""The study's answer as one SVG: each arm's difference to the reference with its interval."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.second_look.analysis import MARGIN, Test, first_turn_tests
from benchmarks.second_look.design import ARMS, REFERENCE, TOKEN_REFERENCE
from benchmarks.second_look.page import title
from benchmarks.second_look.rows import Results
from scripts.method_pages.figure import LIGHT, LOOK, svg_of


@rc_context(LOOK)
def differences_figure(results: Results) -> str:
    """First turns against the reference, in points, a panel for each family."""
    tests = first_turn_tests(results)
    figure = Figure(figsize=(8.6, 3.2))
    families = results.scale.families
    panels = figure.subplots(1, len(families), sharey=True)
    arms = [arm for arm in ARMS if arm not in (REFERENCE, TOKEN_REFERENCE)]
    for family, axes in zip(families, panels, strict=True):
        axes.set_title(family)
        draw(axes, arms, [one for one in tests if one.family == family])
    panels[0].set_yticks(range(len(arms)), [title(arm) for arm in arms])
    panels[0].invert_yaxis()
    return svg_of(figure, summary(tests))


def draw(axes: Axes, arms: Sequence[str], tests: Sequence[Test]) -> None:
    """A dot and a line for each test; the band is what counts as equivalent."""
    axes.axvspan(-100 * MARGIN, 100 * MARGIN, color=LIGHT["grid"], linewidth=0)
    axes.axvline(0, color=LIGHT["soft"], linewidth=0.8)
    axes.grid(visible=False)
    axes.set_xlabel(f"first turn against {title(REFERENCE)}, points, 95 % interval", loc="right")
    for one in tests:
        decided = one.decision in ("above", "below")
        axes.errorbar(
            100 * one.difference.mean,
            arms.index(one.arm),
            xerr=100 * one.difference.half_width,
            color=LIGHT["c1" if decided else "c0"],
            marker="o",
            markersize=4,
            linewidth=1.6,
        )
    axes.set_ylim(-0.5, len(arms) - 0.5)


def summary(tests: Sequence[Test]) -> str:
    """The drawing in a sentence, for screen readers."""
    parts = [
        f"{one.family}, {title(one.arm)}: {100 * one.difference.mean:+.1f} ({one.decision})"
        for one in tests
    ]
    return f"First turns against {title(REFERENCE)}: {'; '.join(parts) or 'no runs yet'}."
