"""`mgrpo submit`, `status`, `stop` and `logs` up to the server: what is sent, said and returned."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.jobs import job_log
from mgrpo.cli import main
from mgrpo.commands import jobs as jobs_command
from mgrpo.commands.submit import named_variables, read_runtime_env, stop_deadline_s
from mgrpo.config.load import load_recipe
from mgrpo.errors import JobError
from mgrpo.plan import arithmetic
from mgrpo.report.words import MISSING
from tests.cluster.job_server import ScriptedJobServer, serving


@pytest.fixture(autouse=True)
def no_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_AUTH_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(job_log, "PAUSE_S", 0.05)
    monkeypatch.setattr(jobs_command, "POLL_S", 0.05)


@pytest.fixture
def server() -> Iterator[ScriptedJobServer]:
    with serving(ScriptedJobServer()) as it:
        yield it


@pytest.fixture
def recipe(tree: dict[str, Any], tmp_path: Path) -> str:
    file = tmp_path / "small.yaml"
    file.write_text(yaml.safe_dump(tree))
    return str(file)


def submit(server: ScriptedJobServer, recipe: str, *more: str) -> int:
    return main(["submit", recipe, *more, "--skip-check", "--address", server.url])


def test_a_submission_carries_the_run_s_name_the_command_and_the_variables_named(
    server: ScriptedJobServer, recipe: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "t")
    monkeypatch.setenv("OTHER_SECRET", "s")
    code = submit(
        server, recipe, "steps=3", "--run", "wide", "--env", "HF_TOKEN", "--env", "A=b", "--detach"
    )
    assert code == 0
    (sent,) = server.submitted
    assert sent["submission_id"] == "mgrpo-wide-1"
    assert sent["entrypoint"] == "python -m mgrpo train recipe.yaml"
    assert sent["metadata"]["overrides"] == "steps=3"
    variables = sent["runtime_env"]["env_vars"]
    assert (variables["HF_TOKEN"], variables["A"]) == ("t", "b")
    assert "s" not in variables.values()
    assert variables["MGRPO_RUNS_ROOT"] == "${HOME}/mgrpo"  # of cluster/runtime_env.yaml
    assert int(variables["RAY_JOB_STOP_WAIT_TIME_S"]) == 600 + 300 + 60 + 3 * 20


def test_following_shows_the_driver_s_lines_and_ends_with_its_exit_code(
    server: ScriptedJobServer, recipe: str, capsys: pytest.CaptureFixture[str]
) -> None:
    server.tails = [["step 0  Acc@t1 0.5\n"]]
    server.logs["mgrpo-small-1"] = "step 0  Acc@t1 0.5\npolicy saved\n"
    assert submit(server, recipe) == 0
    said = capsys.readouterr().out
    assert "step 0  Acc@t1 0.5\npolicy saved\n" in said and "has succeeded" in said

    server.add_run("small", 2, "FAILED", driver_exit_code=7)
    server.logs["mgrpo-small-2"] = "error: an alarm\n"
    assert main(["logs", "small", "--follow", "--address", server.url]) == 7
    shown = capsys.readouterr()
    assert "error: an alarm" in shown.out and "failed with exit code 7" in shown.err


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["cluster.address=local"], "cluster.address = local: a submitted run trains on"),
        (["--env", "NOT_SET_HERE"], "--env NOT_SET_HERE: this variable is not set here"),
        (["--runtime-env", "/nowhere.yaml"], "The runtime environment /nowhere.yaml cannot be"),
    ],
)
def test_what_cannot_be_submitted_says_why(
    server: ScriptedJobServer,
    recipe: str,
    capsys: pytest.CaptureFixture[str],
    changes: list[str],
    said: str,
) -> None:
    assert submit(server, recipe, *changes) > 0
    assert said in capsys.readouterr().err
    assert server.submitted == []


def test_a_recipe_that_fails_its_check_is_not_submitted(
    server: ScriptedJobServer, recipe: str, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = "data.train.path=nowhere.jsonl"
    assert main(["submit", recipe, missing, "--address", server.url]) > 0
    assert "Nothing was submitted." in capsys.readouterr().err
    assert server.submitted == []


def test_what_is_installed_here_does_not_matter_to_a_cluster(
    server: ScriptedJobServer, recipe: str, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A laptop with vLLM's CPU build submits a run that wants GPUs."""
    monkeypatch.setattr(arithmetic, "installed_build", lambda: "cpu")
    wants = [f"model.path={tiny_model}", "cluster.device=cuda"]
    assert main(["submit", recipe, *wants, "--detach", "--address", server.url]) == 0
    assert len(server.submitted) == 1


def test_stopping_tells_a_clean_end_from_a_kill(
    server: ScriptedJobServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.add_run("wide", 1, "RUNNING")
    server.logs["mgrpo-wide-1"] = "checkpoint: x/step-000004\nStopped by SIGTERM. What was\n"
    assert main(["stop", "wide", "--address", server.url]) == 0
    assert "checkpoint: x/step-000004" in capsys.readouterr().out

    server.add_run("narrow", 1, "RUNNING")
    server.logs["mgrpo-narrow-1"] = "step 3\n"
    assert main(["stop", "narrow", "--address", server.url]) == 4
    assert "killed before it could write a checkpoint" in capsys.readouterr().err


def test_stopping_what_is_over_is_no_error(server: ScriptedJobServer) -> None:
    server.add_run("wide", 1, "SUCCEEDED")
    assert main(["stop", "wide", "--address", server.url]) == 0


def test_status_lists_every_job_and_shows_the_end_of_one_run_s_log(
    server: ScriptedJobServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["status", "--address", server.url]) == 0
    assert "No job was submitted" in capsys.readouterr().out
    server.add_run("wide", 1, "FAILED", driver_exit_code=5, end_time=61_000)
    server.add_run("wide", 2, "RUNNING")
    server.logs["mgrpo-wide-2"] = "\n".join(f"step {step}" for step in range(9))
    assert main(["status", "wide", "--address", server.url]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[:4] == ["wide", "1", "failed", "5"]
    assert lines[2].split()[:4] == ["wide", "2", "running", MISSING]
    assert lines[-5:] == [f"step {step}" for step in (4, 5, 6, 7, 8)]


def test_a_variable_without_a_value_is_this_environment_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOUND", "here")
    assert named_variables(["FOUND", "GIVEN=a=b", "EMPTY="]) == {
        "FOUND": "here",
        "GIVEN": "a=b",
        "EMPTY": "",
    }
    with pytest.raises(JobError):
        named_variables(["NOT_FOUND_ANYWHERE"])


def test_a_runtime_environment_loses_what_is_about_the_folder_to_send(tmp_path: Path) -> None:
    file = tmp_path / "env.yaml"
    file.write_text(json.dumps({"working_dir": ".", "excludes": ["/x/"], "env_vars": {"A": "1"}}))
    assert read_runtime_env(file) == {"env_vars": {"A": "1"}}
    file.write_text("[1]")
    with pytest.raises(JobError, match="is not a map"):
        read_runtime_env(file)


def test_the_time_to_stop_is_what_the_recipe_s_deadlines_add_up_to() -> None:
    changes = [
        "cluster.deadlines.update_s=100",
        "cluster.deadlines.weight_sync_s=30.5",
        "cluster.deadlines.shutdown_s=10",
        "checkpoints.on_signal_s=20",
    ]
    config = load_recipe("quickstart", changes)
    longest_s = stop_deadline_s(config.cluster.deadlines, config.checkpoints.on_signal_s)
    assert longest_s == 181  # 100 + 30.5 + 20 + 30
