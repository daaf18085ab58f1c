"""A short campaign of chaos: real engines, learner and rewards under twelve faults."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.chaos.__main__ import main


@pytest.mark.alone
@pytest.mark.timeout(3600)
def test_twelve_faults_lose_and_double_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["--faults", "12", "--seed", "1", "--work", str(tmp_path)])
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["violations"] == [] and code == 0
    assert result["faults"] >= 8  # some may find nothing to be done to
    assert result["problems_missing"] == result["problems_doubled"] == result["orphans"] == 0
