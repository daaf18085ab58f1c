"""What stays behind, by our rules and by those that Ray packs by."""

from __future__ import annotations

from pathlib import Path
from zipfile import ZipFile

import pytest
import yaml
from ray._private.runtime_env.packaging import create_package

from cluster import runtime
from cluster.jobs.left_behind import SECRET_NAMES, copy_folder, may_hold_secret
from cluster.runtime import RUNTIME_ENV_FILE, code_for_actors
from tests.repository import REPOSITORY

PEOPLE_HAVE = [
    *(".env", ".env.local", "prod.env", ".envrc", ".netrc", ".git-credentials", "server.pem"),
    *("tls.key", "id_rsa", "id_rsa_work", "id_ed25519", "id_ed25519.pub", "kubeconfig.yaml"),
    *(".aws/config", ".kube/config", ".config/gcloud/x.json", ".azure/azureProfile.json"),
    *(".ssh/known_hosts", ".gnupg/x", ".huggingface/x", "huggingface/token", "kaggle.json"),
    *("application_default_credentials.json", "my-service-account.json", "credentials"),
    *("client_secret_1.apps.googleusercontent.com.json", "serviceAccountKey.json", "secrets/a"),
]
ORDINARY = [
    *("train.jsonl", "environment.py", "env/gym.py", "tokens.json", "token/bpe.py", "key.py"),
    *("keys.json", "answer-key.json", "secrets.py", "credentials.py", "tokenizer.json"),
    *("monkey.txt", "config/a.yaml", "service/account.json", "huggingface/hub/model.bin"),
]
FOUND = "found-it"


def write(root: Path, names: list[str]) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(FOUND)


def files_of(folder: Path) -> set[str]:
    return {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}


def sent_by_ray(root: Path, package: Path, excludes: list[str]) -> set[str]:
    """The files of the package that Ray makes of a folder."""
    create_package(str(root), package, include_gitignore=True, excludes=excludes)
    with ZipFile(package) as made:
        return set(made.namelist())


def excludes_of_a_clone() -> list[str]:
    found: list[str] = yaml.safe_load(RUNTIME_ENV_FILE.read_text())["excludes"]
    return found


@pytest.mark.parametrize("below", ["", "deep/er/"])
def test_names_that_people_have_tell_what_may_be_secret(below: str) -> None:
    assert [name for name in PEOPLE_HAVE if not may_hold_secret(Path(below + name))] == []
    assert [name for name in ORDINARY if may_hold_secret(Path(below + name))] == []


def test_ray_s_list_for_a_clone_holds_every_name_of_ours() -> None:
    not_hidden = [name for name in SECRET_NAMES if not name.startswith(".")]
    wanted = {f"**/{name}" if "/" in name else name for name in not_hidden}
    excludes = excludes_of_a_clone()
    assert wanted <= set(excludes) and ".?*" in excludes
    ours = {".?*", "__pycache__/", "*.egg-info/"}
    assert {name for name in excludes if not name.startswith("/")} == wanted | ours


def test_a_clone_s_variables_are_not_committed_either() -> None:
    lines = (REPOSITORY / ".gitignore").read_text().splitlines()
    assert {".env", ".env.*", ".envrc"} <= set(lines)


def test_ray_packs_a_clone_without_the_same_files(tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    secret = [*PEOPLE_HAVE, *(f"mgrpo/{name.replace('*', 'x')}" for name in SECRET_NAMES)]
    ordinary = [*ORDINARY, *(f"mgrpo/{name}" for name in ORDINARY)]
    write(clone, [*secret, *ordinary])
    sent = sent_by_ray(clone, tmp_path / "package.zip", excludes_of_a_clone())
    assert sent == set(ordinary)


def test_a_folder_is_copied_without_secrets_hidden_and_derived_files(tmp_path: Path) -> None:
    here, target = tmp_path / "here", tmp_path / "package"
    derived = ["__pycache__/a.pyc", "my.egg-info/PKG-INFO"]
    write(here / "own", [*PEOPLE_HAVE, *ORDINARY, ".cache/x", *derived])
    left_out = copy_folder(here / "own", target, here)
    assert files_of(target) == set(ORDINARY)
    assert left_out[Path("own/.env")] == left_out[Path("own/.aws")] == "may hold a secret"
    assert left_out[Path("own/.cache")] == "is hidden"
    assert not {Path("own/__pycache__"), Path("own/my.egg-info")} & left_out.keys()


def test_links_are_followed_within_the_folder_and_nowhere_else(tmp_path: Path) -> None:
    here, target = tmp_path / "here", tmp_path / "package"
    write(here, ["own/data/a.txt", "own/secrets/b.txt", "own/server.pem", "beside/c.txt"])
    write(tmp_path, ["outside/d.txt"])
    links = {
        "inside.txt": here / "own" / "data" / "a.txt",
        "folder": Path("data"),
        "out.txt": Path("../../outside/d.txt"),
        "out": tmp_path / "outside",
        "beside": Path("../beside"),
        "deep/out.txt": tmp_path / "outside" / "d.txt",
        "notes.txt": Path("server.pem"),
        "notes": Path("secrets"),
        "gone": Path("nowhere"),
        "itself": Path("itself"),
        "above": Path(),
    }
    (here / "own" / "deep").mkdir()
    for name, end in links.items():
        (here / "own" / name).symlink_to(end)
    left_out = copy_folder(here / "own", target, here)
    assert files_of(target) == {"data/a.txt", "inside.txt", "folder/a.txt"}
    assert not any(path.is_symlink() for path in target.rglob("*"))
    reasons = {path.relative_to("own").as_posix(): reason for path, reason in left_out.items()}
    out = "is a link that leads out of own"
    assert [reasons[name] for name in ("out.txt", "out", "beside", "deep/out.txt")] == [out] * 4
    hides = "is a link to what may hold a secret"
    assert reasons["notes.txt"] == reasons["notes"] == hides
    assert reasons["gone"] == reasons["itself"] == "is a link to nothing"
    assert reasons["above"] == "is a link to a folder that it lies in"


def test_a_driver_sends_its_clone_without_secrets_and_links_out_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clone = tmp_path / "clone"
    write(clone, ["pyproject.toml", "mgrpo/loop.py", ".env", "mgrpo/server.pem", "runs/a/policy"])
    write(tmp_path, ["outside/d.txt"])
    (clone / "data [1]").symlink_to(tmp_path / "outside")
    (clone / "mgrpo" / "notes.txt").symlink_to(Path("../.env"))
    (clone / "mgrpo" / "same.py").symlink_to(Path("loop.py"))
    (clone / "runs" / "elsewhere").symlink_to(tmp_path / "outside")  # not sent anyway
    monkeypatch.setattr(runtime, "REPOSITORY_ROOT", clone)
    sending = code_for_actors()
    excludes = sending["excludes"]
    assert isinstance(excludes, list) and sending["working_dir"] == str(clone)
    sent = sent_by_ray(clone, tmp_path / "package.zip", excludes)
    assert sent == {"pyproject.toml", "mgrpo/loop.py", "mgrpo/same.py"}
    said = capsys.readouterr().err.splitlines()
    assert said == [
        "note: not sent to the cluster: data [1] is a link that leads out of clone",
        "note: not sent to the cluster: mgrpo/notes.txt is a link to what may hold a secret",
    ]
