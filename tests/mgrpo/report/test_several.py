"""One page about several runs."""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path

import pytest
import yaml

from mgrpo.cli import main
from mgrpo.report.run_data import load_run
from mgrpo.report.several import charts, differences, named, write_comparison
from tests.mgrpo.report.fake_run import make_run


def two_runs(folder: Path) -> list[Path]:
    """Of a different length, and one of them with another key."""
    wide = make_run(folder / "runs" / "wide", steps=40, rollouts_every=0)
    plain = make_run(folder / "runs" / "plain", steps=20, num_layers=1, rollouts_every=0, seed=1)
    config = yaml.safe_load((wide / "config.yaml").read_text())
    config["layers"][0]["group_size"] = 16
    (wide / "config.yaml").write_text(yaml.safe_dump(config))
    return [wide, plain]


def test_the_page_has_every_run_its_outcome_and_what_differs(tmp_path: Path) -> None:
    page = unescape(write_comparison(two_runs(tmp_path), tmp_path / "both.html").read_text())
    assert "wide · plain" in page
    assert "<code>layers.solve.group_size</code>" in page
    assert "42.0" in page and "→" in page
    assert page.count('class="chart"') >= 6
    assert "default-src 'none'" in page and not re.search(r'(?:src|href)="http', page)


def test_a_chart_has_a_line_for_each_run_where_both_have_the_metric(tmp_path: Path) -> None:
    runs = named([load_run(folder) for folder in two_runs(tmp_path)])
    found = {chart.title: chart for chart in charts(runs)}
    accuracy = found["Accuracy in training, sampled, layer 1"]
    assert [one.label for one in accuracy.series] == ["wide", "plain"]
    assert len(accuracy.steps) == 40
    assert list(accuracy.series[1].values[20:]) == [None] * 20  # it has ended: nothing is made up
    assert [one.label for one in found["Held-out accuracy, turn 2"].series] == ["wide"]


def test_runs_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    folders = [make_run(tmp_path / at / "same", steps=2, rollouts_every=0) for at in ("a", "b")]
    assert list(named([load_run(folder) for folder in folders])) == ["a/same", "b/same"]


def test_only_keys_that_differ_are_listed_and_names_do_not_count() -> None:
    one = {"name": "a", "steps": 3, "layers": [{"name": "solve", "group_size": 4}], "seed": 0}
    two = {**one, "name": "b", "layers": [{"name": "solve", "group_size": 8}], "seed": 0}
    assert differences([one, two]) == {"layers.solve.group_size": ["4", "8"]}


def test_the_command_takes_names_and_says_where_the_page_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    two_runs(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert main(["report", "wide", "plain"]) == 0
    assert capsys.readouterr().out.strip() == "report-wide-plain.html"
    assert Path("report-wide-plain.html").is_file()
    assert main(["report", "wide", "--output", "x.html"]) == 2
