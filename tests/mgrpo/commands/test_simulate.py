"""`mgrpo simulate`: what it prints, the files that it reads, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from mgrpo.cli import main
from mgrpo.config.load import load_recipe

GPUS = ["--gpus", "8xH100-80GB", "--parameters", "7.6B"]
RATES = """\
engine: {step_s: 0.01, sequence_s: 0.0003, max_running: 64}
learner: {token_s: 2.0e-4}
weights_s: 0.2
layers:
  solve: {lengths: {type: fixed, tokens: 20}}
  correct: {lengths: {type: empirical, tokens: [10, 30]}}
"""


@pytest.fixture
def rates(tmp_path: Path) -> str:
    file = tmp_path / "rates.yaml"
    file.write_text(RATES)
    return str(file)


def test_it_prints_seconds_shares_a_bound_and_a_timeline(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["simulate", "qwen2.5_math_7b", *GPUS, "--steps", "4"]) == 0
    printed = capsys.readouterr().out
    for text in ("seconds a step", "learner busy", "GPUs busy", "time: ", "█", "by the data sheet"):
        assert text in printed


def test_rates_of_a_file_need_no_gpus_and_are_said(
    rates: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "steps.svg"
    arguments = ["simulate", "quickstart", "--rates", rates, "--picture", str(picture), "--json"]
    assert main([*arguments, "--steps", "3"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["seconds_per_step"] > 0 and set(told["busy"]) == {"layer1", "layer2", "learner"}
    assert sum(told["shares"].values()) == pytest.approx(1.0)
    assert ElementTree.parse(picture).getroot().tag.endswith("svg")


def test_a_file_replaces_what_the_data_sheet_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "slow.yaml"
    file.write_text("learner: {token_s: 1.0}\n")
    assert main(["simulate", "qwen2.5_math_7b", *GPUS, "--rates", str(file), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["busy"]["learner"] > 0.9


def test_a_search_prints_a_command(rates: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["simulate", "quickstart", "--rates", rates, "--gpus", "2xH100-80GB", "--search"]
    assert main([*arguments, "--steps", "3", "--on-policy"]) == 0
    assert "mgrpo check quickstart" in capsys.readouterr().out


def test_a_search_prints_overrides_that_a_recipe_takes(
    rates: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["simulate", "quickstart", "--rates", rates, "--gpus", "3xH100-80GB", "--search"]
    assert main([*arguments, "--json", "--steps", "3"]) == 0
    told = json.loads(capsys.readouterr().out)
    config = load_recipe("quickstart", told["overrides"])
    assert config.cluster.colocate is not None and told["search"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "a plan needs GPUs"),
        (["--steps", "0"], "must be 1 or more"),
        (["--max-prompts", "-1"], "must be 0 or more"),
        (["--target-busy", "90"], "must be a share"),
        (["--search"], "a search needs GPUs"),
        (["--rates", "none.yaml"], "cannot be read"),
        (["--measured", "none"], "none"),
        (["--gpus", "4xNEW-96GB", "--parameters", "7B"], "their speed is not known"),
        (["--gpus", "2xL4", "--parameters", "72B"], "does not fit"),
    ],
)
def test_what_it_cannot_use_is_said(
    arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["simulate", "qwen2.5_math_7b", *arguments]) != 0
    assert expected in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("engine: {step_s: 0}\n", "engine.step_s"),
        ("engines: {}\n", "there is no such key"),
        ("- 1\n", "must be a map"),
        ("learner: {token_s: 1}\n", "engine"),
    ],
)
def test_what_is_wrong_with_a_rates_file_is_said(
    content: str, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "rates.yaml"
    file.write_text(content)
    assert main(["simulate", "quickstart", "--rates", str(file)]) == 2
    assert expected in capsys.readouterr().err


def test_the_help_has_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["simulate", "--help"])
    printed = capsys.readouterr().out
    assert "--search" in printed and "mgrpo simulate qwen2.5_math_7b" in printed
