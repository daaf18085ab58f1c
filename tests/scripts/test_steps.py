"""scripts/steps.py: commands run to a log, with a deadline, and fail with what they said."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from scripts.steps import Step, StepFailed, run_logged, run_step


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_a_step_s_output_goes_to_the_log_and_its_title_to_the_person(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "setup.log"
    run_step(Step("doing it", python("print('inner words')")), log=log)
    assert "inner words" in log.read_text()
    shown = capsys.readouterr().out
    assert "doing it" in shown
    assert "inner words" not in shown


def test_a_failed_step_shows_the_end_of_its_output(tmp_path: Path) -> None:
    step = Step("doing it", python("print('the reason'); raise SystemExit(3)"), hint="Do that.")
    with pytest.raises(StepFailed) as caught:
        run_step(step, log=tmp_path / "setup.log")
    message = str(caught.value)
    assert "doing it: failed with exit code 3" in message
    assert "the reason" in message
    assert "Do that." in message


def test_the_other_way_is_tried_after_a_failure_and_only_then(tmp_path: Path) -> None:
    log = tmp_path / "setup.log"
    other = python("print('the ' + 'other way ran')")
    run_step(Step("good", python("pass"), otherwise=other), log=log)
    assert "the other way ran" not in log.read_text()
    run_step(Step("bad", python("raise SystemExit(1)"), otherwise=other), log=log)
    assert "the other way ran" in log.read_text()


def test_a_step_past_its_deadline_is_ended(tmp_path: Path) -> None:
    reason = run_logged(python("import time; time.sleep(60)"), log=tmp_path / "l", deadline_s=0.5)
    assert reason == "not done after 0.5 s"
