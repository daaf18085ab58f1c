import pytest

from mgrpo.report.chart import Chart, Series, smoothing_window

LINE = Series(label="Layer 1", values=[0.25, None, 0.5], color=0)


def a_chart(*series: Series, **options: object) -> Chart:
    names = ["3", "4", "5 to 6"]
    options = {"title": "Accuracy", "unit": "%", **options}
    return Chart(steps=[3, 4, 5], step_names=names, series=series or [LINE], **options)


def test_the_table_holds_every_point_as_people_read_it():
    assert a_chart().rows == [["3", "25.0\u00a0%"], ["4", "\u2013"], ["5 to 6", "50.0\u00a0%"]]


def test_the_drawing_keeps_gaps_and_six_digits():
    third = Series(label="Gap", values=[None, 1 / 3, 12_345.678], color=1, kind="dash")
    (drawn,) = a_chart(third, unit="nats").drawing["series"]
    assert drawn == {"kind": "dash", "color": 1, "values": [None, 0.333333, 12_345.7]}


def test_an_evaluation_after_the_training_is_not_its_last_step():
    mark = Series(label="held-out", values=[0.1, None, 0.6], color=0, kind="mark")
    line = Series(label="Layer 1", values=[0.25, 0.5, None], color=0)
    assert a_chart(line, mark).last == 1


@pytest.mark.parametrize(
    ("values", "is_log"),
    [([0.001, None, 1.0], True), ([0.0, 0.5, 1.0], False), ([0.5, 0.7, 1.0], False)],
)
def test_a_log_axis_needs_values_above_zero_and_a_wide_spread(values, is_log):
    chart = a_chart(Series(label="Mean", values=values, color=0), may_use_log=True, unit="nats")
    assert chart.axis == ("nats, logarithmic" if is_log else "nats")
    assert chart.drawing["log"] is is_log


def test_a_chart_is_told_in_a_sentence():
    assert a_chart().summary.replace("\u00a0", " ") == (
        "Accuracy, steps 3 to 5: Layer 1 from 25.0 % to 50.0 %. Arrow keys read single steps."
    )
    seconds = a_chart(Series(label="Update", values=[1.0, 1.0, 2.5], color=0), unit="seconds")
    assert "Update from 1 to 2.5 seconds." in seconds.summary


@pytest.mark.parametrize(("num_points", "window"), [(23, 1), (24, 3), (60, 5), (300, 25)])
def test_long_runs_are_smoothed_over_about_a_twelfth_of_them(num_points, window):
    assert smoothing_window(num_points) == window
