"""cluster/slurm.sh and cluster/ssh.sh, run with stand-ins for what they call.

The stand-ins write down what they were asked; `srun` goes on like a node's Ray until it is ended.
"""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = [*sorted(ROOT.glob("cluster/*.sh")), *sorted(ROOT.glob("scripts/*.sh"))]
each_script = pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
RECORD = 'echo "$(basename "$0") $*" >>"$RECORD"\n'


@each_script
def test_bash_can_read_the_script(script: Path) -> None:
    subprocess.run(["bash", "-n", str(script)], check=True, timeout=20)
    assert script.stat().st_mode & stat.S_IXUSR


@pytest.mark.cluster
@each_script
def test_shellcheck_finds_nothing(script: Path) -> None:
    beside = Path(sys.executable).parent / "shellcheck"
    program = shutil.which("shellcheck") or (str(beside) if beside.exists() else None)
    if program is None:
        pytest.skip("shellcheck is not installed: tests/cluster/requirements.txt has it")
    done = subprocess.run([program, str(script)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout


def program(path: Path, body: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/usr/bin/env bash\n{body}")
    path.chmod(0o755)


class Slurm:
    """A job on two nodes, and what its script asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.record = folder, folder / "record"
        self.record.touch()
        programs = folder / "programs"
        program(programs / "scontrol", RECORD + '[ "$1" = show ] && printf "n1\\nn2\\n"; exit 0\n')
        program(
            programs / "srun",
            RECORD + 'case "$*" in *hostname*) echo "$ADDRESSES"; exit;; *"rm -rf"*) exit;; esac\n'
            "exec sleep 60\n",
        )
        program(folder / "clone/.venv/bin/ray", "exit 0\n")
        program(
            folder / "clone/.venv/bin/python",
            f'[ "$1" = -c ] && exec {sys.executable} "$@"\n'
            + RECORD
            + 'echo "token $(stat -c %a "$RAY_AUTH_TOKEN_PATH") $RAY_AUTH_MODE" >>"$RECORD"\n'
            'case "$3" in\n'
            # As the real one does, `check` waits until the nodes are there.
            '    check) until [ "$(grep -c -- --labels= "$RECORD")" -ge "$NODES" ]\n'
            "    do sleep 0.05; done ;;\n"
            '    submit) while [ -f "$HOLD" ]; do sleep 0.1; done; exit "$SUBMIT_CODE" ;;\n'
            '    stop) rm -f "$HOLD" ;;\n'
            "esac\n",
        )
        self.environment = {
            "PATH": f"{programs}:{os.environ['PATH']}",
            "HOME": str(folder),
            "RECORD": str(self.record),
            "HOLD": str(folder / "hold"),
            "ADDRESSES": "10.0.0.1",
            "SUBMIT_CODE": "0",
            "NODES": "2",
            "SLURM_JOB_ID": "12345",
            "SLURM_JOB_NODELIST": "n[1-2]",
            "SLURM_SUBMIT_DIR": str(folder / "clone"),
            "SLURM_GPUS_ON_NODE": "4",
            "SLURM_CPUS_PER_TASK": "16",
            "MGRPO_TEMP": str(folder),
        }

    def start(self, *arguments: str, **changes: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["bash", str(ROOT / "cluster/slurm.sh"), *arguments],
            env={**self.environment, **changes},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def asked(self, beginning: str) -> list[str]:
        return [line for line in self.record.read_text().splitlines() if line.startswith(beginning)]

    def wait_for(self, beginning: str) -> None:
        end = time.monotonic() + 30
        while not self.asked(beginning) and time.monotonic() < end:
            time.sleep(0.05)
        assert self.asked(beginning), self.record.read_text()


@pytest.fixture
def slurm(tmp_path: Path) -> Slurm:
    return Slurm(tmp_path)


def test_slurm_starts_a_ray_per_node_by_role_and_submits_the_run(slurm: Slurm) -> None:
    job = slurm.start("qwen2.5_math_7b", "steps=5")
    said, _ = job.communicate(timeout=60)
    assert job.returncode == 0, said
    rays = [line for line in slurm.asked("srun") if "ray start" in line]
    head, worker = sorted(rays, key=lambda line: "--head" not in line)
    assert "--nodelist=n1" in head and "--labels=role=learner" in head
    assert "--head --node-ip-address=10.0.0.1 --port=22345" in head
    assert "--dashboard-host=127.0.0.1 --dashboard-port=28345" in head
    assert "--nodelist=n2" in worker and "--labels=role=rollout --address=10.0.0.1:22345" in worker
    assert all("--cpus-per-task=16 --cpu-bind=none" in line for line in (head, worker))
    assert all("--num-gpus=4" in line and "--num-cpus=16" in line for line in (head, worker))
    roles = "cluster.engine_nodes.labels.role=rollout cluster.learner_nodes.labels.role=learner"
    roles = f"cluster.device=cuda {roles}"
    (check,) = slurm.asked("python -m mgrpo check")
    assert f"check qwen2.5_math_7b steps=5 {roles}" in check
    assert "--address http://127.0.0.1:28345 --wait-s 300" in check
    (submit,) = slurm.asked("python -m mgrpo submit")
    assert f"submit qwen2.5_math_7b steps=5 {roles}" in submit and "--run qwen2.5_math_7b" in submit
    assert f"--env MGRPO_RUNS_ROOT={slurm.folder / 'clone'}" in submit


def test_slurm_makes_a_token_that_only_its_user_reads_and_takes_it_away(slurm: Slurm) -> None:
    slurm.start("recipe.yaml").communicate(timeout=60)
    assert set(slurm.asked("token")) == {"token 600 token"}
    assert list((slurm.folder / "clone").glob(".token-*")) == []


def test_slurm_leaves_nothing_running_and_passes_on_the_runs_exit_code(slurm: Slurm) -> None:
    job = slurm.start("recipe.yaml", SUBMIT_CODE="7")
    began = time.monotonic()
    job.communicate(timeout=60)  # also waits for whoever holds its output: the nodes' Rays
    assert job.returncode == 7
    assert time.monotonic() - began < 30
    assert slurm.asked("scontrol requeue") == []


def test_slurms_signal_stops_the_run_with_a_checkpoint_and_requeues_the_job(slurm: Slurm) -> None:
    (slurm.folder / "hold").touch()
    job = slurm.start("recipes/wide.yaml", SUBMIT_CODE="143")
    slurm.wait_for("python -m mgrpo submit")
    time.sleep(0.3)
    job.send_signal(signal.SIGTERM)
    said, _ = job.communicate(timeout=60)
    assert slurm.asked("python -m mgrpo stop wide --address http://127.0.0.1:28345"), said
    assert slurm.asked("scontrol requeue 12345")
    assert job.returncode == 143


def test_on_one_node_learner_and_engines_share_it(slurm: Slurm) -> None:
    program(slurm.folder / "programs/scontrol", RECORD + "echo n1\n")
    slurm.start("recipe.yaml", NODES="1").communicate(timeout=60)
    (submit,) = slurm.asked("python -m mgrpo submit")
    assert "labels.role" not in submit


def test_slurm_takes_an_address_that_other_nodes_reach(slurm: Slurm) -> None:
    job = slurm.start("recipe.yaml", ADDRESSES="127.0.1.1\nfe80::1 10.0.0.7 10.1.0.7")
    job.communicate(timeout=60)
    assert any("--node-ip-address=10.0.0.7" in line for line in slurm.asked("srun"))
    away = f"srun --ntasks-per-node=1 --overlap rm -rf {slurm.folder}/mgrpo-12345"
    assert len(slurm.asked(away)) == 1
    failed = slurm.start("recipe.yaml", SUBMIT_CODE="4")
    said, _ = failed.communicate(timeout=60)
    assert failed.returncode == 4 and f"logs are in {slurm.folder}/mgrpo-12345" in said
    assert len(slurm.asked(away)) == 1, "what may explain the failure stays"

    alone = slurm.start("recipe.yaml", ADDRESSES="127.0.1.1")
    said, _ = alone.communicate(timeout=60)
    assert alone.returncode == 1 and "n1 has no IPv4 address" in said


def test_slurm_without_a_recipe_says_how(slurm: Slurm) -> None:
    job = slurm.start()
    said, _ = job.communicate(timeout=20)
    assert job.returncode == 2 and "usage: sbatch cluster/slurm.sh RECIPE" in said


class Hosts:
    """Two hosts behind a stand-in for ssh."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.record = folder, folder / "record"
        self.record.touch()
        self.file = folder / "hosts.txt"
        self.file.write_text("# head first\nann@gpu1 learner 10.0.0.1\n\ngpu2 rollout\n")
        for name in ("ssh", "rsync"):
            program(
                folder / "programs" / name,
                RECORD + 'case "$*" in *auth_token*) echo "token $(cat)" >>"$RECORD" ;; esac\n'
                '[ -z "${BROKEN:-}" ] || case "$*" in *"$BROKEN"*) exit 255 ;; esac\n',
            )
        program(folder / "clone/.venv/bin/ray", RECORD)
        (folder / ".ray").mkdir()
        (folder / ".ray/auth_token").write_text("secret")
        shutil.copytree(ROOT / "cluster", folder / "clone/cluster", dirs_exist_ok=True)

    def run(self, action: str, **changes: str) -> tuple[int, list[str], str]:
        done = subprocess.run(
            ["bash", str(self.folder / "clone/cluster/ssh.sh"), action, str(self.file)],
            env={
                "PATH": f"{self.folder / 'programs'}:{os.environ['PATH']}",
                "HOME": str(self.folder),
                "RECORD": str(self.record),
                **changes,
            },
            capture_output=True,
            text=True,
            timeout=60,
        )
        return done.returncode, self.record.read_text().splitlines(), done.stdout + done.stderr


@pytest.fixture
def hosts(tmp_path: Path) -> Hosts:
    return Hosts(tmp_path)


def test_ssh_up_brings_the_token_and_starts_the_head_before_the_others(hosts: Hosts) -> None:
    code, asked, said = hosts.run("up")
    assert code == 0, said
    assert asked[0] == "ray get-auth-token --generate"
    starts = [line for line in asked if "ray start" in line]
    assert "ann@gpu1 cd mgrpo-code &&" in starts[0]
    assert "--head --node-ip-address=10.0.0.1 --port=6379" in starts[0]
    assert "--dashboard-host=127.0.0.1 --labels=role=learner" in starts[0]
    assert "--node-ip-address=gpu2 --address=10.0.0.1:6379 --labels=role=rollout" in starts[1]
    assert all("RAY_AUTH_MODE=token" in line for line in starts)
    assert asked.count("token secret") == 2
    assert not any("secret" in line for line in asked if not line.startswith("token "))


def test_ssh_setup_copies_and_installs_on_every_host(hosts: Hosts) -> None:
    code, asked, said = hosts.run("setup", MGRPO_EXTRA="cpu")
    assert code == 0, said
    assert [line.rsplit(" ", 1)[1] for line in asked if line.startswith("rsync")] == [
        "ann@gpu1:mgrpo-code/",
        "gpu2:mgrpo-code/",
    ]
    assert sum("scripts/setup.sh --extra cpu" in line for line in asked) == 2


def test_ssh_down_ends_the_head_last_and_goes_on_past_a_host_that_is_gone(hosts: Hosts) -> None:
    code, asked, said = hosts.run("down", BROKEN="gpu2")
    assert code == 1 and "gpu2 did not answer" in said
    stops = [line for line in asked if "ray stop" in line]
    assert "gpu2" in stops[0] and "ann@gpu1" in stops[1]


def test_ssh_stops_at_the_first_host_that_fails_to_start(hosts: Hosts) -> None:
    code, asked, _ = hosts.run("up", BROKEN="--head")
    assert code != 0
    assert not any("gpu2" in line for line in asked)


def test_ssh_tunnel_stays_on_this_machine(hosts: Hosts) -> None:
    code, asked, _ = hosts.run("tunnel")
    assert code == 0
    assert "-N -L 127.0.0.1:8265:127.0.0.1:8265 ann@gpu1" in asked[0]


@pytest.mark.parametrize(
    ("line", "expected"), [("gpu1 boss\n", "must be learner, rollout or any"), ("#\n", "no host")]
)
def test_ssh_says_what_is_wrong_with_the_hosts(hosts: Hosts, line: str, expected: str) -> None:
    hosts.file.write_text(line)
    code, asked, said = hosts.run("up")
    assert code == 2 and expected in said and asked == []
