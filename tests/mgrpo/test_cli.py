"""Through the command line: what a user types, and what comes back within seconds."""

from __future__ import annotations

import errno
import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from mgrpo.cli import main
from mgrpo.config.yaml_core import dump_yaml
from mgrpo.errors import LearnerError, RunInterrupted
from tests.repository import REPOSITORY

HEAVY = ("torch", "transformers", "ray", "vllm", "datasets", "deepspeed", "reasoning_gym", "rich")


@pytest.fixture
def recipe(tree: dict[str, Any], tiny_model: Path, tmp_path: Path, monkeypatch) -> Path:
    """A sound recipe in an empty folder that the commands run in."""
    monkeypatch.chdir(tmp_path)
    tree["model"]["path"] = str(tiny_model)
    tree["cluster"] = {"device": "cpu"}
    path = tmp_path / "small.yaml"
    path.write_text(dump_yaml(tree))
    return path


@pytest.fixture
def loop(monkeypatch) -> list[tuple[Any, Path]]:
    """Stands in for mgrpo.training.run and records what it is asked to run."""
    calls: list[tuple[Any, Path]] = []

    def run_training(config: Any, run_dir: Path, *, resume_from: Path | None = None) -> None:
        calls.append((config, run_dir))
        (run_dir / "metrics.jsonl").write_text("{}\n")

    module = ModuleType("mgrpo.training.run")
    module.run_training = run_training  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mgrpo.training.run", module)
    return calls


def said(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    return captured.out + captured.err


# --- light ---


def test_help_answers_and_imports_nothing_heavy():
    code = (
        "import sys; from mgrpo.cli import build_parser; build_parser().format_help();"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    shown = subprocess.run(
        [sys.executable, "-m", "mgrpo", "--help"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert shown.returncode == 0
    assert "mgrpo check quickstart" in shown.stdout
    loaded = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, timeout=20
    )
    assert loaded.stdout.strip() == "[]"


def test_version_and_models_list(capsys):
    assert main(["version"]) == 0
    assert main(["models", "list"]) == 0
    text = said(capsys)
    assert "mgrpo 0." in text
    assert "smollm2" in text


# --- check ---


def test_check_of_a_sound_recipe_exits_0(recipe: Path, capsys):
    assert main(["check", "small.yaml"]) == 0
    assert "No fault found" in said(capsys)


@pytest.mark.parametrize(
    ("overrides", "code", "expected"),
    [
        (["data.train.path=empty.jsonl"], 2, ["there are no rows", "Each row is like"]),
        (["data.train.question_field=q"], 2, ["no column 'q'", "question, answer"]),
        (["layers.solve.group_sise=4"], 2, ["layers.0.group_sise", "Did you mean group_size?"]),
        (["layers.solve.group_size=1"], 2, ["one is not enough", "Nearest valid value: 2"]),
        (["engines.max_model_len=100"], 2, ["too few", "max_completion_tokens"]),
        (["model.path=no/such/model"], 2, ["no/such/model"]),
        (["rewards.terms=[{check: 'odd:raises'}]"], 2, ["KeyError", "fix the check"]),
        (["layers.9.group_size=4"], 2, ["Valid: 0 to 1 or solve, correct"]),
        (["seed=[1"], 2, ["not YAML"]),
    ],
    ids=lambda value: value[0][:30] if isinstance(value, list) else None,
)
def test_bad_input_ends_within_seconds_and_says_what_to_do(
    recipe: Path, tmp_path: Path, capsys, overrides: list[str], code: int, expected: list[str]
):
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "odd.py").write_text("def raises(completion, problem):\n    raise KeyError('x')\n")
    began = time.monotonic()
    assert main(["check", "small.yaml", *overrides]) == code
    assert time.monotonic() - began < 15
    text = said(capsys)
    for words in expected:
        assert words in text
    assert "Traceback" not in text


def test_arguments_that_do_not_exist_are_shown_without_secrets(capsys):
    with pytest.raises(SystemExit):
        main(["check", "quickstart", "--api-key", "hunter2"])
    assert "unrecognized arguments: --api-key" in (text := said(capsys))
    assert "hunter2" not in text


def test_an_unknown_recipe_is_an_error_without_a_traceback(tmp_path: Path):
    ended = subprocess.run(
        [sys.executable, "-m", "mgrpo", "check", "quikstart"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: ")
    assert "Traceback" not in ended.stderr


def test_mgrpo_debug_shows_where_an_error_was_raised(recipe: Path, capsys, monkeypatch):
    monkeypatch.setenv("MGRPO_DEBUG", "1")
    assert main(["check", "small.yaml", "stepz=1"]) == 2
    assert "Traceback" in said(capsys)


# --- train ---


def test_train_makes_the_run_directory_and_hands_over(recipe: Path, loop):
    assert main(["train", "small.yaml", "steps=7", "--run", "wide", "seed=3"]) == 0
    ((config, run_dir),) = loop
    assert (config.steps, config.seed, config.name) == (7, 3, "wide")
    assert run_dir == Path("runs/wide")
    assert run_dir.is_dir()


def test_train_starts_nothing_when_the_check_fails(recipe: Path, loop, capsys):
    assert main(["train", "small.yaml", "engines.max_model_len=100"]) == 2
    assert loop == []
    assert not Path("runs").exists()
    assert "the run would not start" in said(capsys)


def test_an_earlier_run_is_not_written_over_unless_asked(recipe: Path, loop, capsys):
    assert main(["train", "small.yaml"]) == 0
    kept = Path("runs/small/old.txt")
    kept.touch()
    assert main(["train", "small.yaml"]) == 2
    text = said(capsys)
    assert "--run NAME" in text
    assert "--overwrite" in text
    assert kept.exists()
    assert main(["train", "small.yaml", "--overwrite"]) == 0
    assert not kept.exists()
    assert len(loop) == 2


def test_overwrite_never_deletes_what_is_no_run(recipe: Path, loop, capsys):
    Path("runs/small").mkdir(parents=True)
    Path("runs/small/thesis.txt").touch()
    assert main(["train", "small.yaml", "--overwrite"]) == 2
    assert Path("runs/small/thesis.txt").exists()
    assert "it is not a run" in said(capsys)


@pytest.mark.parametrize("options", [[], ["--overwrite"], ["steps=1"]])
def test_a_second_run_of_the_name_is_refused_while_the_first_lives(
    recipe: Path, loop, monkeypatch, capsys, options: list[str]
):
    codes = []

    def run_training(config: Any, run_dir: Path, *, resume_from: Path | None = None) -> None:
        (run_dir / "metrics.jsonl").write_text('{"step": 0}\n')
        codes.append(main(["train", "small.yaml", *options]))  # beside this one
        assert (run_dir / "metrics.jsonl").read_text() == '{"step": 0}\n'

    monkeypatch.setattr(sys.modules["mgrpo.training.run"], "run_training", run_training)
    assert main(["train", "small.yaml"]) == 0
    assert codes == [2]
    text = said(capsys)
    assert "A run is active in runs/small" in text
    assert f"process {os.getpid()} on {os.uname().nodename}" in text
    assert main(["train", "small.yaml", "--run", "other"]) == 0  # another name is free


def test_a_run_name_that_is_no_name_is_refused(recipe: Path, loop, capsys):
    assert main(["train", "small.yaml", "--run", "../up"]) == 2
    assert "name = ../up" in said(capsys)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (LearnerError("the loss is not finite"), 6),
        (RunInterrupted("SIGTERM", 143), 143),
        (KeyboardInterrupt(), 130),
    ],
)
def test_errors_become_exit_codes(recipe: Path, loop, monkeypatch, error, code: int):
    def run_training(config: Any, run_dir: Path, *, resume_from: Path | None = None) -> None:
        raise error

    monkeypatch.setattr(sys.modules["mgrpo.training.run"], "run_training", run_training)
    assert main(["train", "small.yaml"]) == code


def test_an_error_of_ours_keeps_its_traceback(recipe: Path, loop, monkeypatch):
    def run_training(config: Any, run_dir: Path, *, resume_from: Path | None = None) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(sys.modules["mgrpo.training.run"], "run_training", run_training)
    with pytest.raises(ZeroDivisionError):
        main(["train", "small.yaml"])


def test_a_python_without_the_packages_says_that_it_is_the_wrong_one() -> None:
    command = [sys.executable, "-S", "-m", "mgrpo", "check", "quickstart"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "has no module 'pydantic'" in done.stderr and "Traceback" not in done.stderr
    assert "start Ray there with that of mgrpo's environment" in done.stderr


def test_a_full_disk_is_an_error_without_a_traceback(recipe: Path, loop, monkeypatch, capsys):
    def run_training(config: Any, run_dir: Path, *, resume_from: Path | None = None) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(run_dir / "checkpoints"))

    monkeypatch.setattr(sys.modules["mgrpo.training.run"], "run_training", run_training)
    assert main(["train", "small.yaml"]) == 1
    assert "No space left on device: 'runs/small/checkpoints'" in said(capsys)


# --- whatever the environment ---


def test_a_terminal_that_cannot_show_a_letter_is_no_error(recipe: Path, monkeypatch):
    shown = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", shown)
    assert main(["check", "small.yaml"]) == 0
    shown.flush()
    assert b"No fault found" in shown.buffer.getvalue()  # type: ignore[attr-defined]


def test_a_home_that_is_not_there_is_said_and_does_not_stop(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", "/dev/null/me")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert main(["version"]) == 0
    assert "note: HOME=/dev/null/me does not exist" in said(capsys)
    assert os.environ["HOME"].startswith(str(tmp_path))


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("TMPDIR", "/no/such/folder", "TMPDIR=/no/such/folder does not exist"),
        ("RAY_ADDRESS", "http://127.0.0.1:8265", "a job server's address"),
        ("MGRPO_RUNS_ROOT", "/dev/null/runs", "/dev/null/runs/runs/small cannot be made"),
    ],
)
def test_what_is_wrong_around_a_run_is_found_by_the_check(
    recipe: Path, monkeypatch, capsys, variable: str, value: str, expected: str
):
    monkeypatch.setenv(variable, value)
    assert main(["check", "small.yaml"]) == 2
    text = said(capsys)
    assert expected in text
    assert "Traceback" not in text


# --- the others ---


def test_eval_hands_over_its_arguments(recipe: Path, monkeypatch):
    calls: list[tuple[str, dict[str, Any]]] = []

    def evaluate_command(target: str, **kwargs: Any) -> int:
        calls.append((target, kwargs))
        return 0

    module = ModuleType("mgrpo.commands.evaluate")
    module.evaluate_command = evaluate_command  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mgrpo.commands.evaluate", module)
    command = ["eval", "default", "--recipe", "small.yaml", "--problems", "5"]
    assert main([*command, "--decoding", "sampled", "--json"]) == 0
    ((target, kwargs),) = calls
    assert target == "default"
    assert kwargs["recipe"] == "small.yaml"
    assert (kwargs["max_problems"], kwargs["decoding"], kwargs["as_json"]) == (5, "sampled", True)


def test_report_of_an_unknown_run_lists_those_that_exist(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "wide").mkdir(parents=True)
    (tmp_path / "runs" / "wide" / "metrics.jsonl").touch()
    assert main(["report", "wild"]) == 2
    assert "wide" in said(capsys)


def test_preparing_an_unknown_model_lists_those_that_exist(capsys):
    assert main(["models", "prepare", "smolm"]) == 2
    assert "smollm2" in said(capsys)


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["trian", "x"],
        ["check"],
        ["check", "small", "--fast"],
        ["report"],
        ["eval", "default", "--problems", "0"],
    ],
)
def test_a_command_that_does_not_exist_exits_2(argv: list[str], capsys):
    with pytest.raises(SystemExit) as ended:
        main(argv)
    assert ended.value.code == 2
    assert "usage:" in said(capsys)


def test_a_reader_that_has_enough_is_no_error() -> None:
    command = [sys.executable, "-m", "mgrpo", "plan", "quickstart", "--gpus", "8xH100-80GB"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        errors = process.stderr.read().decode()
        assert (process.wait(timeout=60), errors) == (141, "")


def test_json_and_data_paths_are_relative_to_the_folder_of_the_user(recipe: Path, capsys):
    Path("mine.jsonl").write_text(
        "".join(json.dumps({"question": f"{n}?", "answer": str(n)}) + "\n" for n in range(4))
    )
    assert main(["check", "small.yaml", "data.train.path=mine.jsonl"]) == 0
    assert os.environ.get("MGRPO_DEBUG") is None
    assert "4 problems from mine.jsonl" in said(capsys)


def test_the_version_is_an_option_too(capsys):
    for option in ("--version", "-V"):
        with pytest.raises(SystemExit) as ended:
            main([option])
        assert ended.value.code == 0
    assert capsys.readouterr().out.count("mgrpo 0.") == 2


@pytest.mark.parametrize(
    ("argv", "meant"), [(["trian", "x"], "train"), (["models", "prepar"], "prepare")]
)
def test_a_misspelt_command_is_answered_with_the_nearest(argv: list[str], meant: str, capsys):
    with pytest.raises(SystemExit):
        main(argv)
    assert f"Did you mean {meant}?" in capsys.readouterr().err


def test_an_unknown_recipe_is_answered_shortly(capsys):
    assert main(["check", "nofile.yaml"]) == 2
    text = said(capsys)
    assert "quickstart" in text and "mgrpo methods" in text and len(text) < 300


def test_findings_and_models_are_told_as_json(recipe: Path, capsys):
    assert main(["check", "small.yaml", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["would_start"] is True
    assert {"ok"} <= {one["status"] for one in shown["findings"]}
    assert main(["models", "list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["name"] == "default"


def test_the_schema_is_printed(capsys):
    assert main(["schema"]) == 0
    assert "extends" in json.loads(capsys.readouterr().out)["properties"]
