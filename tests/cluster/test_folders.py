"""HOME, TMPDIR and the folder that Ray's sockets go to, as users' machines have them."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import stat
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cluster import folders
from cluster.folders import (
    FOLDER_BYTES,
    RAY_PREFIX,
    RAY_SOCKET,
    RAY_SUBFOLDER,
    check_current_folder,
    check_tmpdir,
    ray_folder,
    settle_home,
)
from mgrpo.errors import ClusterError

NOWHERE = "/dev/null/home"  # nobody can make it, root neither


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch) -> Path:
    """A TMPDIR of the test's own."""
    folder = tmp_path / "t"
    folder.mkdir()
    use_tmpdir(monkeypatch, str(folder))
    return folder


def use_tmpdir(monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.setenv("TMPDIR", path)
    monkeypatch.setattr(tempfile, "tempdir", None)  # it is remembered


# --- HOME ---


def test_a_home_that_works_stays(tmp_path: Path) -> None:
    environment = {"HOME": str(tmp_path), "USER": "me"}
    assert settle_home(environment) == ""
    assert environment == {"HOME": str(tmp_path), "USER": "me"}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("home", [NOWHERE, "/no/such/home", "", "relative", "/proc"])
def test_a_home_that_cannot_be_used_is_replaced_and_said(temporary: Path, home: str) -> None:
    environment = {"HOME": home}
    said = settle_home(environment)
    folder = temporary / f"mgrpo-home-{os.getuid()}"
    assert environment["HOME"] == str(folder)
    assert f"HOME={home} " in said and str(folder) in said
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    (folder / "model").touch()
    assert settle_home({"HOME": home}) == said  # the same the next time: what is kept stays
    assert (folder / "model").exists()


def test_a_home_that_is_not_set_is_that_of_the_list_of_users(tmp_path: Path, monkeypatch) -> None:
    entry = pwd.struct_passwd(("me", "x", 1, 1, "", str(tmp_path), "/bin/sh"))
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: entry)
    environment: dict[str, str] = {}
    assert settle_home(environment) == ""
    assert environment["HOME"] == str(tmp_path)


def test_a_user_without_an_entry_has_a_home_and_a_name(temporary: Path, monkeypatch) -> None:
    def unknown(uid: int) -> pwd.struct_passwd:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    environment: dict[str, str] = {}
    assert "HOME, which is not set," in settle_home(environment)
    assert environment["HOME"] == str(temporary / f"mgrpo-home-{os.getuid()}")
    assert environment["USER"] == f"uid-{os.getuid()}"


def test_somebody_elses_folder_is_not_taken_for_a_home(temporary: Path, tmp_path: Path) -> None:
    (temporary / f"mgrpo-home-{os.getuid()}").symlink_to(tmp_path)
    with pytest.raises(ClusterError, match="not a folder of this user"):
        settle_home({"HOME": NOWHERE})


# --- TMPDIR ---


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/no/such/folder", "does not exist"),
        ("/proc", "cannot be written to"),
        ("/etc/passwd", "cannot be written to"),
        ("here", "is no absolute path"),
    ],
)
def test_a_tmpdir_that_cannot_be_used_is_an_error(path: str, reason: str, monkeypatch) -> None:
    use_tmpdir(monkeypatch, path)
    for look in (check_tmpdir, ray_folder):
        with pytest.raises(ClusterError) as refused:
            look()
        assert f"TMPDIR={path} {reason}" in str(refused.value)


def test_without_a_tmpdir_nothing_is_said(monkeypatch) -> None:
    for environment in ({}, {"TMPDIR": ""}, {"TMPDIR": "/tmp"}):
        check_tmpdir(environment)


def test_a_short_tmpdir_is_taken(monkeypatch) -> None:
    folder = tempfile.mkdtemp(prefix="m", dir="/tmp")
    try:
        use_tmpdir(monkeypatch, folder)
        assert ray_folder() == (Path(folder), "")
    finally:
        Path(folder).rmdir()


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.text(st.sampled_from("ab-é日"), min_size=1, max_size=60).filter(
        lambda text: len(text.encode()) <= 180
    )
)
def test_sockets_fit_wherever_tmpdir_is(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        use_tmpdir(patch, str(folder))
        parent, said = ray_folder()
    assert bool(said) == (parent != folder)
    if said:
        assert f"TMPDIR ({folder}) has {len(os.fsencode(folder))} bytes" in said
        assert "107" in said and f"in {parent} " in said
    own = Path(tempfile.mkdtemp(prefix=RAY_PREFIX, dir=parent))
    try:
        assert stat.S_IMODE(own.stat().st_mode) == 0o700
        path = f"{own}/{RAY_SUBFOLDER}{RAY_SOCKET}"
        Path(path).parent.mkdir(parents=True)
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path)
    finally:
        shutil.rmtree(own)


def test_where_no_short_place_is_the_error_names_tmpdir_and_the_limit(
    tmp_path: Path, monkeypatch
) -> None:
    use_tmpdir(monkeypatch, str(tmp_path))
    monkeypatch.setattr(folders, "SHORT_FOLDERS", ("/no/such",))
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    with pytest.raises(ClusterError) as refused:
        ray_folder()
    text = str(refused.value)
    assert f"TMPDIR ({tmp_path})" in text and "107" in text and str(FOLDER_BYTES) in text


def test_the_runtime_directory_of_the_session_is_a_last_resort(tmp_path: Path, monkeypatch) -> None:
    short = tempfile.mkdtemp(prefix="m", dir="/tmp")
    try:
        use_tmpdir(monkeypatch, str(tmp_path))
        monkeypatch.setattr(folders, "SHORT_FOLDERS", ("/no/such",))
        monkeypatch.setenv("XDG_RUNTIME_DIR", short)
        assert ray_folder()[0] == Path(short)
    finally:
        Path(short).rmdir()


def test_a_current_folder_that_is_gone_is_said(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(ClusterError, match="current folder"):
        check_current_folder()
