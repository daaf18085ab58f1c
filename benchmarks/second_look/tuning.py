"""Which learning rate an arm gets: the one whose policies attempt best on the tuning problems."""

from __future__ import annotations

from statistics import fmean

from benchmarks.second_look.design import Trial, trials_at
from benchmarks.second_look.rows import Results

MAX_RATES = 10


def tried_rates(results: Results, family: str, arm: str) -> list[float]:
    """Rates that are tried, rising: those to begin with, and further ones by factors of two while
    the best of those that are done is an outer one."""
    rates = sorted(results.scale.rates)
    while 1 < len(rates) < MAX_RATES and is_done(results, family, arm, rates):
        best = best_rate(results, family, arm, rates)
        if best == rates[0]:
            rates = [best / 2, *rates]
        elif best == rates[-1]:
            rates = [*rates, best * 2]
        else:
            break
    return rates


def tuning_trials(results: Results, family: str, arm: str) -> list[Trial]:
    rates = tried_rates(results, family, arm)
    return [trial for rate in rates for trial in trials_at("tuning", family, arm, rate)]


def chosen_rate(results: Results, family: str, arm: str) -> float | None:
    """The best of those tried, the lower of two equal ones; None while one is left to try. A
    single one needs no trial."""
    rates = tried_rates(results, family, arm)
    if len(rates) == 1:
        return rates[0]
    if not is_done(results, family, arm, rates):
        return None
    return best_rate(results, family, arm, rates)


def is_done(results: Results, family: str, arm: str, rates: list[float]) -> bool:
    trials = [trial for rate in rates for trial in trials_at("tuning", family, arm, rate)]
    return len(results.of(trials)) == len(trials)


def best_rate(results: Results, family: str, arm: str, rates: list[float]) -> float:
    return max(sorted(rates), key=lambda rate: tuned_accuracy(results, family, arm, rate))


def tuned_accuracy(results: Results, family: str, arm: str, rate: float) -> float:
    """Mean over the tuning seeds of the accuracy of first attempts."""
    return fmean(row.t1 for row in results.of(trials_at("tuning", family, arm, rate)))
