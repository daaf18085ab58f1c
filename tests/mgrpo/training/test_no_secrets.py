"""Secrets reach no file that a run's start and end write."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, NoReturn

import pytest

from mgrpo.config.load import load_recipe
from mgrpo.errors import ClusterError
from mgrpo.training import run

CANARY = "canary-of-this-test"
TOKEN = "hf_" + "c4Na" * 8
OF_VARIABLE = "variable-canary-0123"
SECRETS = (CANARY, TOKEN, OF_VARIABLE)


def test_a_secret_is_in_no_file_of_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("JUDGE_KEY", OF_VARIABLE)
    arguments = ["train", "quickstart", "steps=3", f"--env=OTHER_TOKEN={CANARY}"]
    arguments += ["--password", CANARY, f"--from=s3://me:{CANARY}@host/run", TOKEN, OF_VARIABLE]
    monkeypatch.setattr(sys, "argv", ["/bin/mgrpo", *arguments])

    def start_system(config: Any, **others: Any) -> NoReturn:
        raise ClusterError(f"The head said: {TOKEN} and {OF_VARIABLE} are not known.")

    monkeypatch.setattr(run, "start_system", start_system)
    auth = "{http: 'http://127.0.0.1:9/', correct_at: 1, auth: {from_env: JUDGE_KEY}}"
    config = load_recipe("quickstart", ["steps=3", f"rewards.terms=[{auth}]"])
    with pytest.raises(ClusterError) as caught:
        run.run_training(config, tmp_path / "run")

    files = [file for file in (tmp_path / "run").rglob("*") if file.is_file()]
    names = {file.name for file in files}
    assert {"config.yaml", "environment.json", "report.html"} <= names
    shown = capsys.readouterr()
    texts = {file.name: file.read_text(errors="replace") for file in files}
    texts |= {"error": str(caught.value), "stdout": shown.out, "stderr": shown.err}
    assert [name for name, text in texts.items() if any(one in text for one in SECRETS)] == []
    assert "JUDGE_KEY" in texts["config.yaml"]
    command = json.loads(texts["environment.json"])["command"]
    assert command[:4] == ["mgrpo", *arguments[:3]]
    assert load_recipe(tmp_path / "run" / "config.yaml") == config
