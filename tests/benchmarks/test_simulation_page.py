"""The page says which rows are predictions, and how far these are off."""

from __future__ import annotations

import pytest

from benchmarks.simulation import Compared, page_lines, summary


def row(order: str, measured_s: float, simulated_s: float) -> Compared:
    return Compared(
        source="runs",
        order=order,
        prompts=16,
        measured_s=measured_s,
        measured_range_s=(measured_s - 1, measured_s + 1),
        simulated_s=simulated_s,
        measured_busy={"shared": 0.5},
        simulated_busy={"shared": 0.4, "learner": 0.6},
    )


ROWS = [row("synchronous", 10.0, 20.0), row("streamed", 10.0, 9.0), row("one step off", 10.0, 9.7)]


def test_errors_are_those_of_the_predictions() -> None:
    result = summary(ROWS)
    assert result["mean_abs_error"] == pytest.approx(0.065)
    assert result["max_abs_error"] == pytest.approx(0.1)


def test_the_page_tells_fitted_rows_from_predictions() -> None:
    page = "\n".join(page_lines(ROWS, summary(ROWS) | {"command": "python -m this"}))
    assert "+100.0 % (fitted) | 50 / 40 % | not recorded / 60 % |" in page
    assert "| runs | streamed | 16 | 10.00 (9.00 to 11.00) | 9.00 | -10.0 % | " in page
    assert "The 2 predictions are off by 6.5 % on average and by 10.0 % at most" in page
