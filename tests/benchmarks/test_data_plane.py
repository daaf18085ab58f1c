"""The page of the data plane, and what of it grows with the number of receivers."""

from __future__ import annotations

from benchmarks.data_plane import COLUMNS, page_lines, ratios
from benchmarks.machine import Result, machine


def row(receivers: int, **values: list[float]) -> Result:
    every = {name: values.get(name, [1.0, 1.0, 1.0]) for name in COLUMNS}
    medians = {name: sorted(found)[1] for name, found in every.items()}
    return {"receivers": receivers, "values": every, **medians}


def test_growth_is_that_of_most_receivers_over_fewest() -> None:
    rows = [row(1), row(4), row(16, driver_cpu_s=[2.0, 3.0, 4.0], driver_peak_gib=[0.5] * 3)]
    assert ratios(rows) == {
        "driver_cpu_s_most_over_fewest": 3.0,
        "handed_over_s_most_over_fewest": 1.0,
        "driver_peak_gib_most_over_fewest": 0.5,
    }


def test_the_page_has_every_column_with_its_spread_where_there_is_one() -> None:
    rows = [row(1), row(16, driver_cpu_s=[2.0, 3.0, 4.0])]
    result = {"completions": 1040, "tokens": 2_084_711, "rounds": 3, "rows": rows}
    lines = list(page_lines(result | {"command": "x", "date": "2026-11-30", **machine()}))
    assert lines[0] == "1,040 completions, 2,084,711 tokens."
    assert "| 16 | 1.00 | 3.00 (2.00 to 4.00) | 1.00 | 1.00 | 1.00 | 1.00 |" in lines
    assert "Medians of 3 rounds (lowest to highest) after one that only warms up." in lines
