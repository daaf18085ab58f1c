import json
import re
from html import unescape

import pytest

from mgrpo.report.chart_spec import Chart, Marks, Series
from mgrpo.report.charts import figure
from mgrpo.report.plot import line_path
from mgrpo.report.scales import (
    Scale,
    bucket_edges,
    bucket_means,
    linear_ticks,
    log_ticks,
    running_mean,
    step_ticks,
    wants_log,
)

IDENTITY = Scale(0.0, 1.0, 0.0, 1.0)


def a_chart(*values, steps=None, **options) -> Chart:
    steps = steps or list(range(len(values[0])))
    series = [Series(label=f"line {i}", values=column, color=i) for i, column in enumerate(values)]
    names = [str(step) for step in steps]
    options = {"title": "Chart", "unit": "%", **options}
    return Chart(steps=steps, step_names=names, series=series, **options)


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0.0, 1.0, [0.0, 0.25, 0.5, 0.75, 1.0]),
        (0.42, 0.71, [0.4, 0.5, 0.6, 0.7, 0.8]),
        (-3.0, 8.0, [-5.0, 0.0, 5.0, 10.0]),
        (2.0, 2.0, [2.0, 2.5, 3.0, 3.5, 4.0]),
    ],
)
def test_ticks_are_round_and_enclose_the_values(low, high, ticks):
    assert linear_ticks(low, high, 5) == ticks


def test_log_ticks_are_powers_of_ten_around_the_values():
    assert log_ticks(2e-3, 0.4) == pytest.approx([1e-3, 1e-2, 1e-1, 1.0])


def test_step_ticks_are_whole_numbers_inside_the_run():
    assert step_ticks(0, 2, 6) == [0, 1, 2]
    assert step_ticks(3, 3, 6) == [3]


def test_a_log_axis_needs_values_above_zero_and_a_wide_spread():
    assert wants_log([0.001, None, 1.0])
    assert not wants_log([0.0, 1.0])
    assert not wants_log([0.5, 1.0])


def test_a_log_scale_places_the_geometric_middle_in_the_middle():
    assert Scale(0.01, 1.0, 0.0, 100.0, log=True)(0.1) == pytest.approx(50.0)


def test_the_running_mean_leaves_gaps_as_they_are():
    assert running_mean([1.0, None, 5.0, 3.0], 3) == [1.0, None, 4.0, 4.0]


def test_long_runs_are_shown_as_means_of_near_equal_runs_of_steps():
    edges = bucket_edges(10, max_points=4)
    assert edges == [0, 2, 5, 8, 10]
    values = [float(value) for value in range(10)]
    assert bucket_means(values, edges) == [0.5, 3.0, 6.0, 8.5]
    assert bucket_means([None, None, 4.0, None, None], [0, 2, 5]) == [None, 4.0]


def test_missing_values_interrupt_a_line_and_a_lone_value_is_a_dot():
    path = line_path([0, 1, 2, 3], [0.0, 1.0, None, 1.0], IDENTITY, IDENTITY)
    assert path.startswith("M0.0 0.0L1.0 1.0M3.0 1.0m-2 0a2 2")


def test_a_chart_says_its_title_units_and_values_without_being_seen():
    html = figure(a_chart([0.25, 0.5], title="Accuracy"))
    label = unescape(re.search(r'aria-label="([^"]*)"', html)[1]).replace("\u00a0", " ")
    assert label.startswith("Accuracy, steps 0 to 1: line 0 from 25.0 % to 50.0 %.")
    assert ">share, %</text>" in html and ">step</text>" in html


def test_the_read_out_holds_every_step_as_people_read_it():
    html = figure(a_chart([0.25, None], steps=[3, 4]))
    data = json.loads(unescape(re.search(r'data-chart="([^"]*)"', html)[1]))
    assert data == {
        "steps": [3, 4],
        "names": ["3", "4"],
        "values": [["25.0\u00a0%", "\u2013"]],
    }


def test_stacked_bars_stand_on_each_other():
    html = figure(a_chart([0.25], [0.75], stacked=True, full_share=True))
    bars = re.findall(r'class="bar s\d" d="M[\d.]+ ([\d.]+)h[\d.]+V([\d.]+)', html)
    (low_bottom, low_top), (high_bottom, high_top) = [(float(a), float(b)) for a, b in bars]
    assert low_top == high_bottom  # the second starts where the first ends
    assert (low_bottom - low_top) * 3 == pytest.approx(high_bottom - high_top)


def test_marks_after_the_last_step_widen_the_axis():
    marks = Marks(label="held-out", points=[(0, 0.5), (4, 0.75)], color=0)
    html = figure(a_chart([0.5, 0.5], marks=[marks]))
    assert 'data-last="4"' in html
    assert "<title>held-out, step 4: 75.0\u00a0%</title>" in html


@pytest.mark.parametrize("values", [[0.0], [None], [0.0, 0.0], [-1.0, -1.0], [1e-12, 1e12]])
def test_degenerate_values_still_make_a_chart_of_finite_numbers(values):
    for options in ({}, {"stacked": True}, {"may_use_log": True}, {"unit": "nats"}):
        html = figure(a_chart(values, **options))
        assert "nan" not in html and "inf" not in html


def test_labels_are_escaped():
    html = figure(a_chart([0.5], title="<script>x</script>"))
    assert "<script>" not in html
