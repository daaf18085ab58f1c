from __future__ import annotations

from mgrpo.metrics.alarms import Alarm
from mgrpo.metrics.log import MetricsLog
from mgrpo.report import write_report
from tests.mgrpo.report.fake_run import make_run
from tests.mgrpo.report.test_page import HOSTILE, read_page


def an_alarm(step: int, **changes) -> dict[str, object]:
    fields = {
        "step": step,
        "name": "no_signal",
        "layer": 2,
        "action": "warn",
        "first_step": 3,
        "num_steps": step - 2,
        "seen": "the rewards are all equal in 99.0% of layer 2's groups",
        "meaning": "The layer has no training signal.",
        "advice": "Use easier problems (data.train).",
    }
    return Alarm(**{**fields, **changes}).to_json()


def with_alarms(run_dir, *alarms):
    make_run(run_dir, steps=3)
    with MetricsLog(run_dir) as log:
        for alarm in alarms:
            log.write_alarm(alarm)
    return read_page(run_dir)[0]


def test_a_run_without_alarms_has_no_table_of_them(tmp_path):
    html = write_report(make_run(tmp_path / "run", steps=3)).read_text(encoding="utf-8")
    assert 'id="alarms"' not in html


def test_repetitions_of_an_alarm_share_a_line(tmp_path):
    late = an_alarm(32, seen="the rewards are all equal in 100.0% of layer 2's groups")
    html = with_alarms(tmp_path / "run", an_alarm(12), late)
    assert "The run gave 2 alarms." in html
    table = html.split('id="alarms"')[1].split("</section>")[0]
    assert table.count("<tr>") == 2  # the head and one line
    assert "No signal" in table and "Layer 2 (correct)" in table
    assert "3 to 32, 2 times" in table
    assert "<td>The rewards are all equal in 100.0% of" in table and "in 99.0% of" not in table
    assert "Use easier problems (data.train)." in table


def test_layers_have_lines_of_their_own_and_a_stop_is_told(tmp_path):
    first = an_alarm(12, layer=1)
    whole = an_alarm(12, name="mismatch", layer=None, action="stop", first_step=12, num_steps=1)
    html = with_alarms(tmp_path / "run", first, an_alarm(12), whole)
    table = html.split('id="alarms"')[1].split("</section>")[0]
    assert table.count("<tr>") == 4
    assert table.count("stopped the run") == 1
    assert "<td>12</td>" in table


def test_hostile_text_in_an_alarm_stays_text(tmp_path):
    html = with_alarms(tmp_path / "run", an_alarm(12, name=HOSTILE, seen=HOSTILE, advice=HOSTILE))
    assert HOSTILE not in html and "onerror=alert(1)>" not in html
