"""Jobs over HTTP: ids, exit codes, messages, and a log that comes in pieces."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.jobs import job_log
from cluster.jobs.client import DEFAULT_ADDRESS, JobServer, resolve_address
from cluster.jobs.job_log import stream_log
from mgrpo.cli import main
from mgrpo.errors import JobError
from tests.cluster.job_server import ScriptedJobServer, serving


@pytest.fixture(autouse=True)
def nobody_s_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_AUTH_TOKEN", "RAY_AUTH_MODE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server() -> Iterator[ScriptedJobServer]:
    with serving(ScriptedJobServer()) as it:
        yield it


@pytest.mark.parametrize(
    ("given", "environment", "expected"),
    [
        ("http://head:8265/", {}, "http://head:8265"),
        ("head:8265", {}, "http://head:8265"),
        ("http://head:1", {"RAY_ADDRESS": "http://other:2"}, "http://head:1"),
        (None, {"RAY_ADDRESS": "http://other:2"}, "http://other:2"),
        (None, {"RAY_ADDRESS": "10.0.0.1:6379"}, DEFAULT_ADDRESS),  # of the cluster, not of jobs
        (None, {"RAY_API_SERVER_ADDRESS": "https://a", "RAY_ADDRESS": "http://b"}, "https://a"),
        (None, {}, DEFAULT_ADDRESS),
    ],
)
def test_the_address_is_the_one_given_else_ray_s_variables_else_this_machine(
    given: str | None, environment: dict[str, str], expected: str
) -> None:
    assert resolve_address(given, environment) == expected


def test_the_address_of_a_ray_client_is_refused() -> None:
    with pytest.raises(JobError, match="ray://head:10001 is not the address of a job server"):
        resolve_address("ray://head:10001", {})


def test_ray_s_own_variable_does_not_win_over_the_address_given(
    server: ScriptedJobServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:9")
    assert JobServer(server.url).jobs() == []


def test_where_nothing_listens_the_message_says_how_to_get_there() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(JobError, match=rf"No Ray job server answers at {address}.*ssh -L"):
            JobServer(address)


def test_a_missing_and_a_wrong_token_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(ScriptedJobServer(token="right")) as server:
        with pytest.raises(JobError, match=r"requires a token, and none was found\. Set RAY_"):
            JobServer(server.url)
        monkeypatch.setenv("RAY_AUTH_TOKEN", "wrong")
        with pytest.raises(JobError, match="refuses the token from RAY_AUTH_TOKEN") as refused:
            JobServer(server.url)
        assert "wrong" not in str(refused.value)
        monkeypatch.setenv("RAY_AUTH_TOKEN", "right")
        assert JobServer(server.url).jobs() == []


def test_status_as_json_has_every_attempt_with_what_a_script_asks_for(
    server: ScriptedJobServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.add_run("wide", 1, "FAILED", driver_exit_code=3, end_time=61_000, message="no GPU")
    server.add_run("wide", 2, "RUNNING")
    server.add("somebody-else", "PENDING")
    assert main(["status", "wide", "--json", "--address", server.url]) == 0
    first, second = json.loads(capsys.readouterr().out)
    assert (first["attempt"], first["state"], first["exit_code"]) == (1, "failed", 3)
    assert first["took_s"] == 60.0 and first["message"] == "no GPU"
    assert (second["state"], second["is_over"], second["exit_code"]) == ("running", False, None)
    assert second["submission_id"] == "mgrpo-wide-2" and second["took_s"] > 0
    assert main(["status", "--json", "--address", server.url]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 3
    assert main(["status", "narrow", "--json", "--address", server.url]) != 0
    assert "has no run 'narrow'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("status", "recorded", "expected"),
    [
        ("SUCCEEDED", 0, 0),
        ("FAILED", 7, 7),
        ("FAILED", -9, 137),  # killed by a signal: 128 + 9, as shells have it
        ("FAILED", None, 4),  # the driver never ran
        ("STOPPED", None, 143),
    ],
)
def test_every_end_but_success_has_an_exit_code_above_zero(
    server: ScriptedJobServer, status: str, recorded: int | None, expected: int
) -> None:
    server.add_run("wide", 1, status, driver_exit_code=recorded)
    assert JobServer(server.url).latest("wide").process_exit_code == expected


def submit(server: ScriptedJobServer, run: str, folder: Path) -> str:
    (folder / "recipe.yaml").write_text("steps: 1\n")
    job = JobServer(server.url).submit(
        run, "python x", runtime_env={"working_dir": str(folder)}, metadata={"method": "GRPO"}
    )
    return job.submission_id


def test_ids_count_the_attempts_of_each_run(server: ScriptedJobServer, tmp_path: Path) -> None:
    server.add_run("wide", 1, "FAILED")
    server.add_run("wide", 2, "STOPPED")
    server.add("raysubmit_x", "RUNNING")  # somebody else's
    assert submit(server, "wide", tmp_path) == "mgrpo-wide-3"
    assert submit(server, "narrow", tmp_path) == "mgrpo-narrow-1"
    assert server.submitted[0]["metadata"] == {
        "mgrpo_run": "wide",
        "mgrpo_attempt": "3",
        "method": "GRPO",
    }
    (package,) = server.packages
    assert server.submitted[0]["runtime_env"]["working_dir"] == f"gcs://{package}"


def test_a_run_that_is_running_is_not_started_twice(
    server: ScriptedJobServer, tmp_path: Path
) -> None:
    server.add_run("wide", 4, "RUNNING")
    with pytest.raises(JobError, match=r"wide is running already, as job mgrpo-wide-4.*--run NAME"):
        submit(server, "wide", tmp_path)
    assert server.submitted == []


def test_an_unknown_run_is_answered_with_those_that_are_known(server: ScriptedJobServer) -> None:
    server.add_run("wide", 1, "RUNNING")
    server.add_run("narrow", 1, "RUNNING")
    with pytest.raises(JobError, match=r"has no run 'wyde'. Its runs.*: narrow, wide\."):
        JobServer(server.url).latest("wyde")


def test_a_job_that_was_not_submitted_by_us_goes_by_its_id(server: ScriptedJobServer) -> None:
    server.add("raysubmit_x", "RUNNING")
    assert JobServer(server.url).latest("raysubmit_x").run == "raysubmit_x"


def test_a_log_is_written_once_although_its_stream_broke_twice(
    server: ScriptedJobServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_log, "PAUSE_S", 0.05)
    server.add_run("wide", 1, "RUNNING")
    server.tails = [["step 0\n", "step"], [], ["step 0\n", "step 1\n"]]
    server.logs["mgrpo-wide-1"] = "step 0\nstep 1\npolicy saved\n"
    written: list[str] = []
    jobs = JobServer(server.url)
    job = stream_log(jobs, jobs.latest("wide"), written.append)
    assert "".join(written) == "step 0\nstep 1\npolicy saved\n"
    assert job.status == "SUCCEEDED"


def test_a_stream_that_stays_silent_does_not_hide_that_the_job_is_over(
    server: ScriptedJobServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The node of the driver may be gone: its stream neither says anything nor ends."""
    monkeypatch.setattr(job_log, "STREAM_S", 0.2)
    monkeypatch.setattr(job_log, "PAUSE_S", 0.05)
    server.add_run("wide", 1, "RUNNING")
    server.silent_streams_until_over.append("mgrpo-wide-1")
    server.logs["mgrpo-wide-1"] = "step 0\n"
    written: list[str] = []
    jobs = JobServer(server.url)
    job = stream_log(jobs, jobs.latest("wide"), written.append)
    assert (job.status, written) == ("FAILED", ["step 0\n"])


def test_following_ends_when_the_server_stays_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_log, "PAUSE_S", 0.05)
    with serving(ScriptedJobServer()) as server:
        server.add_run("wide", 1, "RUNNING")
        jobs = JobServer(server.url)
        job = jobs.latest("wide")
    with pytest.raises(JobError, match=r"No connection to the job mgrpo-wide-1 for 0.3 s; it may"):
        stream_log(jobs, job, lambda text: None, lost_deadline_s=0.3)
