"""What the page of the learner's update says of measured updates."""

from __future__ import annotations

from benchmarks.learner_update import Update, page_lines, summary


def update(cpu_s: float, peak_mib: float = 10.0) -> Update:
    return Update(
        seconds=cpu_s / 2,
        cpu_s=cpu_s,
        distinct_tokens=1_000,
        row_tokens=3_000,
        peak_mib=peak_mib,
    )


def test_a_row_has_tokens_peak_memory_and_the_ratio_of_each_round() -> None:
    rounds = {"here": [update(2.0), update(4.0, peak_mib=12.0)], "old": [update(3.0), update(8.0)]}
    growth = {"vocabulary": {"259": {"here": [update(1.0, peak_mib=7.4)]}}}
    lines = "\n".join(page_lines(summary({"plain": rounds}, growth, ["old"])))
    own = "| plain | 1,000 | 3,000 | 12 | 1.50 | 3.00 (2.00 to 4.00) | 3000 |"
    assert f"{own} 5.50 (3.00 to 8.00) | 1.75 (1.50, 2.00) |" in lines
    assert "| 259 | 1,000 | 3,000 | 7 | 0.50 | 1.00 (1.00 to 1.00) | 1000 |" in lines
