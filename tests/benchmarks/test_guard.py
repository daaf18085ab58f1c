"""The comparison of a step's CPU seconds, without a run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import guard

RECORDED = {"engines": 6.0, "learner": 3.0, "driver": 0.4, "sum": 9.4}


def test_a_step_s_seconds_are_medians_of_differences(monkeypatch: pytest.MonkeyPatch) -> None:
    totals = [{"engines": e, "learner": e / 2} for e in (50.0, 60.0, 62.0, 65.0, 67.0, 69.0)]
    monkeypatch.setattr(guard, "totals_by_step", lambda folder, source: iter(totals))
    assert guard.step_seconds(guard.REPOSITORY) == {"engines": 2.0, "learner": 1.0, "sum": 3.0}


@pytest.mark.parametrize(
    ("factors", "slowdown", "code"),
    [
        ({}, 1.0, 0),
        ({"learner": 1.09}, 1.0, 0),
        ({"learner": 1.2}, 1.0, 1),
        ({"driver": 1.9}, 1.0, 0),  # 4 % of a step: in the sum, which it makes no tenth larger
        ({}, 2.0, 0),  # every core at half its speed
        ({"engines": 0.5}, 1.0, 0),
    ],
)
def test_a_part_that_became_more_expensive_fails_and_a_slower_machine_does_not(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    factors: dict[str, float],
    slowdown: float,
    code: int,
) -> None:
    rate = 50.0
    record = {"here": {"normalised": {part: value * rate for part, value in RECORDED.items()}}}
    file = tmp_path / "guard.json"
    file.write_text(json.dumps(record))
    seconds = {part: value * slowdown * factors.get(part, 1) for part, value in RECORDED.items()}
    monkeypatch.setattr(guard, "RECORD", file)
    monkeypatch.setattr(guard, "processor", lambda: "here")
    monkeypatch.setattr(guard, "matmul_rate", lambda: rate / slowdown)
    monkeypatch.setattr(guard, "step_seconds", lambda source: seconds)
    assert guard.main([]) == code
    assert ("more expensive" in capsys.readouterr().out) == bool(code)


@pytest.mark.parametrize(("factor", "code"), [(1.05, 0), (1.2, 1)])
def test_another_revision_is_measured_here_and_needs_no_record(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    factor: float,
    code: int,
) -> None:
    def seconds(source: Path) -> dict[str, float]:
        assert source == guard.REPOSITORY or (source / "mgrpo" / "version.py").is_file()
        own = factor if source == guard.REPOSITORY else 1.0
        return {part: value * own for part, value in RECORDED.items()}

    monkeypatch.setattr(guard, "RECORD", tmp_path / "guard.json")
    monkeypatch.setattr(guard, "matmul_rate", lambda: 50.0)
    monkeypatch.setattr(guard, "step_seconds", seconds)
    assert guard.main(["--against", "HEAD"]) == code
    assert f"engines  {factor:.3f} of HEAD" in capsys.readouterr().out


def test_another_processor_is_refused_until_its_figures_are_recorded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(guard, "RECORD", tmp_path / "guard.json")
    monkeypatch.setattr(guard, "processor", lambda: "there")
    monkeypatch.setattr(guard, "matmul_rate", lambda: 50.0)
    monkeypatch.setattr(guard, "step_seconds", lambda source: dict(RECORDED))
    assert guard.main([]) == 2
    assert "nothing to compare with" in capsys.readouterr().out
    assert guard.main(["--write"]) == 0
    assert guard.main([]) == 0
    assert "1.000 of the recorded figure" in capsys.readouterr().out
