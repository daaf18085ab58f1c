"""What a submitted run takes along, and what it refuses to."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from mgrpo.commands import job_package
from mgrpo.commands.job_package import RECIPE_FILE, pack
from mgrpo.config import RunConfig
from mgrpo.config.load import load_recipe
from mgrpo.errors import ConfigError, JobError


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's folder, which is the current one."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def package(tmp_path: Path) -> Path:
    folder = tmp_path / "package"
    folder.mkdir()
    return folder


def recipe(tree: dict[str, Any], **changes: Any) -> RunConfig:
    return RunConfig.model_validate({**tree, **changes})


def files_of(folder: Path) -> set[str]:
    return {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}


def test_the_program_and_the_recipe_as_it_was_checked_are_packed(
    tree: dict[str, Any], here: Path, package: Path
) -> None:
    config = recipe(tree, steps=7)
    packed = pack(config, package)
    files = files_of(package)
    assert {"mgrpo/training/loop.py", "learner/rank.py", "cluster/runtime_env.yaml"} <= files
    assert "mgrpo/models/default/model.safetensors" in files
    assert {Path(file).parts[0] for file in files} == {
        *("mgrpo", "actors", "learner", "rewards", "cluster"),
        RECIPE_FILE,
    }
    assert not any("__pycache__" in file for file in files)
    assert load_recipe(package / RECIPE_FILE) == config
    assert 2**20 < packed.size_bytes < 20 * 2**20
    assert set(packed.left_out.values()) <= {"is hidden"}  # an editor's files in a clone


def test_relative_data_and_own_modules_are_packed_under_their_paths(
    tree: dict[str, Any], here: Path, package: Path
) -> None:
    (here / "data").mkdir()
    (here / "data" / "sums.jsonl").write_text("{}\n")
    (here / "data" / "more.jsonl").write_text("{}\n")
    (here / "data" / "other.jsonl").write_text("{}\n")
    (here / "my_checks").mkdir()
    (here / "my_checks" / "digits.py").write_text("def check(completion, problem): return 1.0\n")
    (here / "notes.txt").write_text("mine")
    config = recipe(
        tree,
        data={"train": [{"path": "data/sums.jsonl"}, {"path": "data/m*.jsonl", "name": "more"}]},
        rewards={"terms": [{"check": "my_checks.digits:check"}, {"check": "math_answer"}]},
    )
    pack(config, package, include=["notes.txt"])
    files = files_of(package)
    assert {"data/sums.jsonl", "data/more.jsonl", "my_checks/digits.py", "notes.txt"} <= files
    assert "data/other.jsonl" not in files


def test_own_files_are_packed_whatever_they_are_called(
    tree: dict[str, Any], here: Path, package: Path
) -> None:
    for name in ("rewards.py", "parts/learner.py", "theirs.py", "unnamed.py"):
        (here / name).parent.mkdir(exist_ok=True)
        (here / name).write_text("def check(completion, problem): return 1.0\n")
    own = [{"check": "rewards:check"}, {"check": "./parts/learner.py:check"}]
    terms = [*own, {"verl": "./theirs.py"}]
    pack(recipe(tree, rewards={"terms": terms}), package)
    files = files_of(package)
    assert {"rewards.py", "rewards/pool.py", "parts/learner.py", "theirs.py"} <= files
    assert "unnamed.py" not in files


def test_a_model_s_folder_of_this_machine_is_refused(
    tree: dict[str, Any], here: Path, package: Path
) -> None:
    (here / "policy").mkdir()
    with pytest.raises(ConfigError, match=r"model\.path = policy: a folder of this machine"):
        pack(recipe(tree, model={"path": "policy"}), package)


def test_what_lies_outside_of_the_current_folder_cannot_be_included(
    tree: dict[str, Any], here: Path, package: Path
) -> None:
    (here.parent / "outside.txt").write_text("x")
    with pytest.raises(JobError, match=r"\.\./outside\.txt does not lie below the current folder"):
        pack(recipe(tree), package, include=["../outside.txt"])


@pytest.mark.parametrize(
    "secret", [".env", "config/prod.env", "server.pem", "id_ed25519", ".aws/config", ".kube"]
)
def test_a_secret_that_is_named_is_refused(
    tree: dict[str, Any], here: Path, package: Path, secret: str
) -> None:
    file = here / (f"{secret}/config" if secret == ".kube" else secret)
    file.parent.mkdir(exist_ok=True)
    file.write_text("found-it")
    said = rf"{re.escape(secret)} is not sent: by its name it may hold a secret.*on the cluster's"
    with pytest.raises(JobError, match=said):
        pack(recipe(tree), package, include=[secret])


def test_a_secret_is_refused_under_the_name_of_a_link_or_of_what_it_leads_to(
    tree: dict[str, Any], here: Path, package: Path
) -> None:
    (here / ".aws").mkdir()
    (here / ".aws" / "config").write_text("found-it")
    (here / "plain.txt").write_text("found-it")
    (here / "notes.txt").symlink_to(".aws/config")
    (here / "cloud").symlink_to(".aws")
    (here / ".env").symlink_to("plain.txt")
    for name in ("notes.txt", "cloud", "cloud/config", ".env"):
        with pytest.raises(JobError, match=f"{re.escape(name)} is not sent"):
            pack(recipe(tree), package, include=[name])


def test_data_of_the_recipe_that_may_be_a_secret_is_refused(
    tree: dict[str, Any], here: Path, package: Path
) -> None:
    (here / "credentials.csv").write_text("question,answer\n")
    config = recipe(tree, data={"train": {"path": "credentials.csv"}})
    with pytest.raises(JobError, match=r"credentials\.csv is not sent.*rename a file that holds"):
        pack(config, package)


def test_what_stays_behind_of_a_folder_is_told(
    tree: dict[str, Any], here: Path, package: Path
) -> None:
    (here / "data" / ".ssh").mkdir(parents=True)
    (here.parent / "outside.txt").write_text("found-it")
    for name in (".env", "tls.key", ".ssh/id_rsa", "client_secret_1.json"):
        (here / "data" / name).write_text("found-it")
    (here / "data" / "sums.jsonl").write_text("{}\n")
    (here / "data" / "out.txt").symlink_to("../../outside.txt")
    packed = pack(recipe(tree), package, include=["data"])
    assert {file for file in files_of(package) if file.startswith("data")} == {"data/sums.jsonl"}
    secret = ("data/.env", "data/.ssh", "data/client_secret_1.json", "data/tls.key")
    assert packed.left_out == {
        **{Path(name): "may hold a secret" for name in secret},
        Path("data/out.txt"): "is a link that leads out of data",
    }


def test_a_path_that_is_not_there_is_an_error(
    tree: dict[str, Any], here: Path, package: Path
) -> None:
    with pytest.raises(JobError, match=r"There is no nothing\.txt to include"):
        pack(recipe(tree), package, include=["nothing.txt"])


def test_a_package_that_is_too_large_names_its_largest_files(
    tree: dict[str, Any], here: Path, package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_package, "MAX_PACKAGE_BYTES", 6 * 2**20)
    (here / "weights.bin").write_bytes(bytes(8 * 2**20))
    with pytest.raises(JobError, match=r"more than the 6 MiB(?s:.*)8\.0 MiB  weights\.bin"):
        pack(recipe(tree), package, include=["weights.bin"])
