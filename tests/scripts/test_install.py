"""scripts/install.py and its state file: what is installed, and when it is done again."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from scripts import install
from scripts.venv_state import (
    VenvState,
    fingerprint,
    must_start_afresh,
    read_state,
    wanted_state,
    write_state,
)
from tests.contracts.sources import ROOT

DONE = VenvState(status="done", extra="cpu", python="3.11", inputs="abc")


def lock_lines(name: str) -> list[str]:
    text = (ROOT / "requirements" / name).read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def test_a_state_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    write_state(tmp_path, DONE)
    assert read_state(tmp_path) == DONE


@pytest.mark.parametrize("content", ["", "[]", '{"status": "done"}', "no JSON"])
def test_a_state_that_cannot_be_read_is_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "mgrpo-setup.json").write_text(content)
    assert read_state(tmp_path) is None


@pytest.mark.parametrize(
    ("change", "afresh"),
    [
        ({}, False),
        ({"inputs": "older"}, False),
        ({"status": "installing"}, True),
        ({"extra": "gpu"}, True),
        ({"python": "3.12"}, True),
    ],
)
def test_a_mixture_is_never_installed(change: dict[str, str], afresh: bool) -> None:
    assert must_start_afresh(dataclasses.replace(DONE, **change), DONE) is afresh


def test_a_venv_made_by_hand_is_kept() -> None:
    assert must_start_afresh(None, DONE) is False


def test_a_changed_lock_changes_the_fingerprint(tmp_path: Path) -> None:
    (tmp_path / "requirements").mkdir()
    lock = tmp_path / "requirements" / "cpu.txt"
    lock.write_text("torch==1\n")
    before = fingerprint(tmp_path)
    assert fingerprint(tmp_path) == before
    lock.write_text("torch==2\n")
    assert fingerprint(tmp_path) != before


def test_a_discarded_folder_is_gone_with_what_an_interrupted_discard_left(tmp_path: Path) -> None:
    (tmp_path / "env" / "lib").mkdir(parents=True)
    (tmp_path / "env-removed").mkdir()
    install.discard(tmp_path / "env")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_installation_is_marked_as_half_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(install, "VENV", tmp_path / "env")
    monkeypatch.setattr(install, "LOG", tmp_path / "env" / "setup.log")
    monkeypatch.setattr(install, "steps", lambda extra: [install.Step("failing", ["false"])])
    wanted = wanted_state(ROOT, extra="cpu")
    with pytest.raises(install.StepFailed):
        install.install(wanted, afresh=False)
    found = read_state(tmp_path / "env")
    assert found is not None
    assert must_start_afresh(found, wanted)


def test_a_complete_installation_is_recognised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(install, "VENV", tmp_path / "env")
    monkeypatch.setattr(install, "LOG", tmp_path / "env" / "setup.log")
    monkeypatch.setattr(install, "steps", lambda extra: [install.Step("working", ["true"])])
    wanted = wanted_state(ROOT, extra="cpu")
    install.install(wanted, afresh=False)
    assert read_state(tmp_path / "env") == wanted


def test_the_cpu_installation_never_resolves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    commands = [step.command for step in install.steps("cpu") if "install" in step.command]
    assert len(commands) >= 4
    assert all("--no-deps" in command for command in commands)


def test_torch_is_looked_for_at_pytorch_s_index_only_after_pip_s_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(ROOT)
    (step,) = [step for step in install.steps("cpu") if step.otherwise]
    assert install.TORCH_CPU_INDEX not in step.command
    assert step.otherwise is not None
    assert install.TORCH_CPU_INDEX in step.otherwise


@pytest.mark.parametrize(
    "name", ["cpu.txt", "dev.txt", "gpu.txt", "gpu-constraints.txt", "gpu-no-deps.txt"]
)
def test_every_requirement_is_an_exact_version(name: str) -> None:
    lines = lock_lines(name)
    assert lines
    assert [
        line for line in lines if not re.match(r"^[\w.-]+(\[\w+\])?===?[^\s;=]+( ; .+)?$", line)
    ] == []


def test_the_lock_leaves_out_what_does_not_import_or_is_not_needed() -> None:
    names = {line.split("==")[0].lower() for line in lock_lines("cpu.txt")}
    unwanted = {"torchvision", "torchaudio", "torchcodec", "triton", "llama_cpp_python"}
    assert names & unwanted == set()


def test_the_locks_agree_with_pyproject() -> None:
    """A version is written in several files; it must be the same one, whatever the build."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    found = re.findall(r'"([\w-]+)(?:\[\w+\])?==([^"\s]+)"', text)
    pins = {package.lower(): version for package, version in found}
    names = [path.name for path in (ROOT / "requirements").glob("*.txt")]
    wrong = []
    for name in names:
        for line in lock_lines(name):
            package, version = re.split("===?", line.split(" ;")[0])
            package = package.split("[")[0].replace("_", "-").lower()
            if pins.get(package, version).removesuffix("+cpu") != version.removesuffix("+cpu"):
                wrong.append(f"{name}: {line}, pyproject.toml: {pins[package]}")
    assert len(pins) > 10
    assert wrong == []


@pytest.mark.parametrize("extra", ["trackers.txt", "storage.txt"])
def test_what_is_installed_beside_the_locks_changes_none_of_their_versions(extra: str) -> None:
    pinned = {line.split("==")[0].lower() for line in lock_lines("cpu.txt")}
    assert pinned & {line.split("==")[0].lower() for line in lock_lines(extra)} == set()
