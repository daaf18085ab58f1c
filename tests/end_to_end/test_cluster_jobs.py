"""Runs as jobs of a real Ray cluster: two nodes, its job server, token authentication on.

Everything goes through the command line, as a user has it.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from mgrpo.config.load import load_recipe
from mgrpo.metrics.log import read_metrics
from tests.end_to_end.local_cluster import ROOT, LocalCluster, local_cluster
from tests.end_to_end.test_resume import NOT_COMPARED

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

COMMAND_DEADLINE_S = 300
TOKEN = "hf_" + "of-the-nodes"  # set where the nodes are started, and nowhere else
STEPS = 7
OVERRIDES = [
    f"steps={STEPS}",
    "prompts_per_step=24",  # seconds a step: the run still runs after some commands have asked
    "data.train.size=200",
    "data.heldout=null",
    "learner.warmup_steps=1",
    "output.report=false",
    "checkpoints.every_steps=0",  # the only one is the one that stopping leaves
    "objective.importance=none",  # see test_resume.py: batching must not reach the numbers
    "cluster.engine_nodes.labels.role=rollout",
    "cluster.learner_nodes.labels.role=learner",
]
# What a driver of ours does to the environment of an actor, seen from the actor on another node.
LOOK_FROM_AN_ACTOR = """
import json, os, ray
from cluster.runtime import ray_runtime
from mgrpo.config import ClusterConfig

os.environ.update(NCCL_DEBUG="WARN", SECRET_OF_THE_DRIVER="x", HF_HOME="of-the-driver")
@ray.remote(num_cpus=0, label_selector={"role": "rollout"})
def look():
    import learner.losses
    names = ("NCCL_DEBUG", "SECRET_OF_THE_DRIVER", "HF_HOME", "OF_THE_JOB", "PYTHONPATH")
    return {"node": ray.get_runtime_context().get_node_id(), "code": learner.losses.__file__,
            "variables": {name: os.environ.get(name) for name in names},
            "token_length": len(os.environ["HF_TOKEN"])}
with ray_runtime(ClusterConfig(), num_cpus=1, logs_to=None) as runtime:
    print("SEEN", json.dumps({"local": runtime.is_local, **ray.get(look.remote(), timeout=120)}))
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    nodes = [
        {"num_cpus": 4, "labels": {"role": "learner"}},
        {"num_cpus": 4, "labels": {"role": "rollout"}},
    ]
    with local_cluster(nodes, {"HF_TOKEN": TOKEN}) as running:
        yield running


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plain clone: the tracked kind of files, and an environment that must stay behind."""
    folder = tmp_path_factory.mktemp("clone")
    for name in ("mgrpo", "actors", "learner", "rewards", "cluster", "docs"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    for large in (".venv/lib/large.so", "runs/old/policy.bin", ".git/objects/pack"):
        (folder / large).parent.mkdir(parents=True)
        (folder / large).write_bytes(os.urandom(20 * 2**20))
    for secret in (".env", "server.pem", "learner/.env", "learner/id_ed25519"):
        (folder / secret).write_text("found-it")
    return folder


def mgrpo(
    cluster: LocalCluster, *arguments: str, cwd: Path = ROOT, **environment: str | None
) -> subprocess.CompletedProcess[str]:
    """Run one of our commands against the cluster."""
    return subprocess.run(
        [sys.executable, "-m", "mgrpo", *arguments, "--address", cluster.url],
        cwd=cwd,
        env=cluster.environment(**environment),
        capture_output=True,
        text=True,
        timeout=COMMAND_DEADLINE_S,
        check=False,
    )


def ray_submit(
    cluster: LocalCluster, folder: Path, *command: str
) -> subprocess.CompletedProcess[str]:
    """Submit with Ray's own command, as its documentation has it."""
    ray = str(Path(sys.executable).parent / "ray")
    local = ["--working-dir", ".", "--runtime-env", "cluster/runtime_env.yaml"]
    return subprocess.run(
        [ray, "job", "submit", "--address", cluster.url, *local, "--", *command],
        cwd=folder,
        env=cluster.environment(RAY_AUTH_MODE="token"),
        capture_output=True,
        text=True,
        timeout=COMMAND_DEADLINE_S,
        check=False,
    )


def wait_until(condition: Callable[[], Any], what: str, deadline_s: float = 240) -> None:
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end, f"not within {deadline_s} s: {what}"
        time.sleep(0.2)


def num_steps(run_dir: Path) -> int:
    file = run_dir / "metrics.jsonl"
    return len(file.read_text().splitlines()) if file.is_file() else 0


def status(cluster: LocalCluster, submission_id: str) -> str:
    return str(cluster.get(f"/api/jobs/{submission_id}")["status"])


def test_ray_s_own_command_trains_from_a_plain_clone_and_ours_stops_and_resumes_the_same_run(
    cluster: LocalCluster, clone: Path
) -> None:
    runs = cluster.folder / "mgrpo" / "runs"  # the nodes' home is the cluster's folder
    whole = ray_submit(
        cluster, clone, "python", "-m", "mgrpo", "train", "quickstart", *OVERRIDES, "--run", "whole"
    )
    assert whole.returncode == 0, whole.stdout + whole.stderr
    assert num_steps(runs / "whole") == STEPS

    submit = ["submit", "quickstart", *OVERRIDES, "--run", "cut", "--skip-check"]
    following = subprocess.Popen(
        [sys.executable, "-m", "mgrpo", *submit, "--address", cluster.url],
        cwd=ROOT,
        env=cluster.environment(),
        stdout=subprocess.PIPE,
        text=True,
        # A shell lets what it starts in the background ignore Ctrl-C, and that is inherited.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    wait_until(lambda: num_steps(runs / "cut") >= 2, "two steps of the submitted run")
    following.send_signal(signal.SIGINT)
    said, _ = following.communicate(timeout=60)
    assert following.returncode == 130
    assert "step 0  Acc@t1" in said and f"mgrpo stop cut --address {cluster.url}" in said
    assert status(cluster, "mgrpo-cut-1") == "RUNNING"

    learner_node, engine_node = cluster.node_ids
    places = {one["name"]: one["node_id"] for one in cluster.actors() if one["state"] == "ALIVE"}
    assert places["layer1-engine-0"] == places["layer2-engine-0"] == engine_node
    assert places["learner-rank-0"] == learner_node != engine_node

    twice = mgrpo(cluster, *submit)
    assert twice.returncode == 4 and "cut is running already, as job mgrpo-cut-1" in twice.stderr

    stopped = mgrpo(cluster, "stop", "cut")
    assert stopped.returncode == 0, stopped.stdout + stopped.stderr
    (checkpoint,) = (runs / "cut" / "checkpoints").iterdir()
    num_done = int(checkpoint.name.removeprefix("step-"))
    assert 2 <= num_done < STEPS
    assert f"checkpoint: {checkpoint}" in stopped.stdout

    again = mgrpo(cluster, *submit)
    assert again.returncode == 0, again.stdout + again.stderr
    assert f"resuming from {checkpoint}" in again.stdout
    assert (
        f"step {STEPS - 1}  Acc@t1" in again.stdout and "mgrpo-cut-2 has succeeded" in again.stdout
    )
    known = mgrpo(cluster, "status", "cut")
    rows = [line.split()[:4] for line in known.stdout.splitlines() if line.startswith("cut ")]
    assert rows == [["cut", "1", "stopped", "143"], ["cut", "2", "succeeded", "0"]]

    expect_same_run(runs / "whole", runs / "cut")
    environment = json.loads((runs / "cut" / "environment.json").read_text())
    assert environment["git_revision"] == git_revision()


def expect_same_run(one: Path, other: Path) -> None:
    """The same numbers in each step, and the same policy."""
    for expected, found in zip(read_metrics(one), read_metrics(other), strict=True):
        same = {name for name in expected if not name.startswith(NOT_COMPARED)}
        assert {name: found[name] for name in same} == pytest.approx(
            {name: expected[name] for name in same}, rel=1e-4, abs=1e-6
        )
    weights, others = (load_file(run / "policy" / "model.safetensors") for run in (one, other))
    for name, expected in weights.items():
        torch.testing.assert_close(others[name], expected, rtol=0, atol=1e-4)


def git_revision() -> str | None:
    from mgrpo.storage.provenance import git_revision as revision

    return revision()


def test_actors_elsewhere_get_the_job_s_code_and_the_variables_that_are_allowed(
    cluster: LocalCluster, clone: Path
) -> None:
    done = ray_submit(cluster, clone, "python", "-c", LOOK_FROM_AN_ACTOR)
    assert done.returncode == 0, done.stdout + done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("SEEN ")]
    seen = json.loads(line.removeprefix("SEEN "))
    assert not seen["local"] and seen["node"] == cluster.node_ids[1]
    package = Path(seen["code"]).parents[1]
    assert package.is_relative_to(cluster.folder), "the job's own code, not this repository's"
    assert seen["variables"]["NCCL_DEBUG"] == "WARN"
    assert seen["variables"]["SECRET_OF_THE_DRIVER"] is None
    assert str(ROOT) not in (seen["variables"]["PYTHONPATH"] or "")
    assert sum(file.stat().st_size for file in package.rglob("*")) < 12 * 2**20  # two policies
    left = {path.name for path in package.rglob("*")}
    assert not left & {".venv", ".git", "runs", "docs", ".env", "server.pem", "id_ed25519"}
    assert seen["token_length"] == len(TOKEN)
    logs = [file for file in cluster.folder.rglob("logs/**/*") if file.is_file()]
    assert any(line in log.read_text(errors="replace") for log in logs), "the driver's log"
    assert [log for log in logs if TOKEN in log.read_text(errors="replace")] == []


def test_a_driver_outside_of_a_job_sends_its_clone_along(
    cluster: LocalCluster, clone: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOOK_FROM_AN_ACTOR],
        cwd=clone,
        env=cluster.environment(RAY_ADDRESS=cluster.gcs_address, RAY_AUTH_MODE="token"),
        capture_output=True,
        text=True,
        timeout=COMMAND_DEADLINE_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("SEEN ")]
    seen = json.loads(line.removeprefix("SEEN "))
    assert not seen["local"] and seen["node"] == cluster.node_ids[1]
    assert Path(seen["code"]).is_relative_to(cluster.folder)
    assert seen["variables"]["HF_HOME"] == "of-the-driver"


def test_a_secret_is_not_submitted(cluster: LocalCluster) -> None:
    done = mgrpo(
        *(cluster, "submit", "quickstart", "--run", "told", "--env", "HF_TOKEN", "--skip-check"),
        HF_TOKEN=TOKEN,
    )
    assert done.returncode == 4 and "--env HF_TOKEN: Ray writes" in done.stderr
    assert TOKEN not in done.stdout + done.stderr
    assert mgrpo(cluster, "status", "told").returncode == 4, "no such run"


def test_a_failure_in_the_job_is_the_exit_code_of_the_command(
    cluster: LocalCluster, tmp_path: Path
) -> None:
    recipe = (ROOT / "mgrpo" / "recipes" / "quickstart.yaml").read_text()
    (tmp_path / "missing.yaml").write_text(recipe + "output: {runs_dir: /proc/none}\n")
    done = mgrpo(cluster, "submit", "missing.yaml", "--run", "unwritable", cwd=tmp_path)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "/proc/none" in done.stdout and "failed with exit code 2" in done.stderr


def test_a_driver_that_is_killed_and_one_that_never_starts_are_failures_too(
    cluster: LocalCluster, tmp_path: Path
) -> None:
    killer = tmp_path / "checks.py"
    killer.write_text(
        "import os, signal\n"
        "if os.environ.get('MGRPO_REVISION'):\n"  # in the job, not in the check before it
        "    os.kill(os.getppid(), signal.SIGKILL)\n"
        "def check(completion, problem): return 1.0\n"
    )
    recipe = load_recipe("quickstart").model_dump(mode="json")
    recipe["rewards"]["terms"] = [{"check": "checks:check"}]
    (tmp_path / "own.yaml").write_text(json.dumps(recipe))
    own = ["submit", "own.yaml", "--env", "MGRPO_REVISION=x", "--run"]
    killed = mgrpo(cluster, *own, "killed", "--skip-check", cwd=tmp_path)
    assert killed.returncode == 137, killed.stdout + killed.stderr

    (tmp_path / "broken.yaml").write_text("conda: no-such-environment\n")
    broken = mgrpo(
        cluster, *own, "broken", "--skip-check", "--runtime-env", "broken.yaml", cwd=tmp_path
    )
    assert broken.returncode == 4, broken.stdout + broken.stderr
    assert "mgrpo-broken-1 has failed: runtime_env setup failed" in broken.stderr


def test_a_run_whose_folder_would_be_lost_with_its_job_does_not_start(
    cluster: LocalCluster, tmp_path: Path
) -> None:
    (tmp_path / "bare.yaml").write_text("env_vars: {}\n")
    done = mgrpo(
        cluster, "submit", "quickstart", "--run", "lost", "--runtime-env", "bare.yaml", cwd=tmp_path
    )
    assert done.returncode == 2, done.stdout + done.stderr
    assert "output.runs_dir = runs is relative, and this is a job" in done.stdout


@pytest.mark.parametrize(
    ("token", "said"),
    [
        (None, "requires a token, and none was found"),
        ("wrong", "refuses the token from RAY_AUTH_TOKEN"),
    ],
)
def test_every_command_says_what_is_wrong_with_the_token(
    cluster: LocalCluster, tmp_path: Path, token: str | None, said: str
) -> None:
    for command in (["status"], ["stop", "x"], ["logs", "x"], ["submit", "quickstart"]):
        done = mgrpo(cluster, *command, RAY_AUTH_TOKEN=token, HOME=str(tmp_path))
        assert done.returncode == 4, command
        assert said in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["status", "stop", "logs"])
def test_an_unknown_run_is_an_error(cluster: LocalCluster, command: str) -> None:
    done = mgrpo(cluster, command, "no-such-run")
    assert done.returncode == 4
    assert "has no run 'no-such-run'" in done.stderr
