"""What one process of the step-time benchmark measured, and the numbers drawn from several."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, median

WARM_UP_STEPS = 2  # of each process: first allocations, first batch shapes


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """The steady steps of one process, one entry per step in every list."""

    system: str  # "ours" or "TRL"
    round: int
    load_before: float  # the machine's load average (1 minute) as the process was started
    step_seconds: list[float]  # from the end of one step to the end of the next
    tokens: list[int]  # sampled in the step
    phase_seconds: dict[str, list[float]]  # parts of a step, by name; the rest has no name


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """All rounds of one system."""

    median_s: float
    min_s: float
    max_s: float
    num_steps: int
    tokens_per_step: int
    tokens_per_second: float  # at the median
    phase_mean_s: dict[str, float]  # adds up to the mean step, "other" included


def summarise(measurements: Iterable[Measurement]) -> Summary:
    """Pool the steps of one system's rounds."""
    runs = list(measurements)
    seconds = [value for run in runs for value in run.step_seconds]
    tokens = {count for run in runs for count in run.tokens}
    assert len(tokens) == 1, f"the steps differ in tokens: {sorted(tokens)}"
    middle = median(seconds)
    phases = {
        name: fmean(value for run in runs for value in run.phase_seconds[name])
        for name in runs[0].phase_seconds
    }
    return Summary(
        median_s=middle,
        min_s=min(seconds),
        max_s=max(seconds),
        num_steps=len(seconds),
        tokens_per_step=tokens.pop(),
        tokens_per_second=runs[0].tokens[0] / middle,
        phase_mean_s={**phases, "other": fmean(seconds) - sum(phases.values())},
    )


def round_ratios(measurements: Sequence[Measurement]) -> list[float]:
    """Each round's median step of TRL divided by ours: above 1, ours is faster."""
    medians = {(run.system, run.round): median(run.step_seconds) for run in measurements}
    rounds = sorted({run.round for run in measurements})
    return [medians["TRL", number] / medians["ours", number] for number in rounds]
