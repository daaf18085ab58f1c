"""`mgrpo submit`, `status`, `stop` and `logs` up to the server: what is sent, said and returned."""

from __future__ import annotations

import json
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import ZipFile

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

SECRET = "hf_" + "of-the-hub"


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
    monkeypatch.setenv("HF_TOKEN_PATH", "/shared/token")  # a place, not a secret
    monkeypatch.setenv("OTHER_SECRET", "s")
    named = ["--env", "HF_TOKEN_PATH", "--env", "A=b"]
    assert submit(server, recipe, "steps=3", "--run", "wide", *named, "--detach") == 0
    (sent,) = server.submitted
    assert sent["submission_id"] == "mgrpo-wide-1"
    assert sent["entrypoint"] == "python -m mgrpo train recipe.yaml"
    assert sent["metadata"]["overrides"] == "steps=3"
    variables = sent["runtime_env"]["env_vars"]
    assert (variables["HF_TOKEN_PATH"], variables["A"]) == ("/shared/token", "b")
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


@pytest.mark.parametrize("entry", ["HF_TOKEN", "HF_TOKEN={}", "wandb_api_key={}"])
def test_a_secret_is_not_sent_as_a_variable_which_ray_would_log(
    server: ScriptedJobServer,
    recipe: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    entry: str,
) -> None:
    monkeypatch.setenv("HF_TOKEN", SECRET)
    assert submit(server, recipe, "--env", "A=b", "--env", entry.format(SECRET)) == 4
    shown = capsys.readouterr()
    name = entry.partition("=")[0]
    assert f"error: --env {name}: Ray writes a job's variables to its logs" in shown.err
    assert "Set it on the cluster's nodes" in shown.err
    assert SECRET not in shown.out + shown.err
    assert server.submitted == []


def test_nor_is_one_of_a_runtime_environment_of_one_s_own(
    server: ScriptedJobServer, recipe: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "env.yaml"
    file.write_text(yaml.safe_dump({"env_vars": {"A": "b", "HF_TOKEN": SECRET}}))
    assert submit(server, recipe, "--runtime-env", str(file)) == 4
    said = capsys.readouterr().err
    assert f"{file}: HF_TOKEN: Ray writes a job's variables" in said and SECRET not in said
    assert server.submitted == []


def test_the_package_that_arrives_holds_no_secret_and_each_that_stays_is_told_once(
    server: ScriptedJobServer,
    recipe: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    here = tmp_path / "here"
    (here / "own" / ".aws").mkdir(parents=True)
    monkeypatch.chdir(here)
    (here / "own" / "notes.txt").write_text("mine")
    for name in (".env", "own/.env", "own/.aws/credentials", "own/tls.key"):
        (here / name).write_text(SECRET)
    (here / "own" / "linked.txt").symlink_to("../.env")
    assert submit(server, recipe, "--include", "own", "--detach") == 0
    (package,) = server.packages.values()
    with ZipFile(BytesIO(package)) as zipped:
        files = {name: zipped.read(name) for name in zipped.namelist()}
    assert {name for name in files if name.startswith("own")} == {"own/notes.txt"}
    assert {"recipe.yaml", "mgrpo/cli.py"} <= files.keys() and ".env" not in files
    assert [name for name, content in files.items() if SECRET.encode() in content] == []
    said = capsys.readouterr().err.splitlines()
    assert sorted(line for line in said if "left out" in line) == [
        "note: left out: own/.aws may hold a secret",
        "note: left out: own/.env may hold a secret",
        "note: left out: own/linked.txt is a link that leads out of own",
        "note: left out: own/tls.key may hold a secret",
    ]


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
