"""Where a cluster's token comes from."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.jobs.job_token import find_token
from mgrpo.errors import JobError


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_without_a_token_there_is_none() -> None:
    assert find_token({}) is None


def test_the_variable_comes_before_the_named_file_and_that_before_the_one_at_home(
    home: Path,
) -> None:
    (home / ".ray").mkdir()
    (home / ".ray" / "auth_token").write_text("of-home\n")
    named = home / "token"
    named.write_text(" of-file \n")
    every = {"RAY_AUTH_TOKEN": "of-variable", "RAY_AUTH_TOKEN_PATH": str(named)}
    found = [
        find_token(every),
        find_token({"RAY_AUTH_TOKEN_PATH": str(named)}),
        find_token({}),
    ]
    assert [token.value for token in found] == ["of-variable", "of-file", "of-home"]


def test_disabled_authentication_holds_the_token_back() -> None:
    assert find_token({"RAY_AUTH_TOKEN": "x", "RAY_AUTH_MODE": "disabled"}) is None


@pytest.mark.parametrize(("content", "said"), [(None, "cannot be read"), ("\n", "is empty")])
def test_a_named_file_without_a_token_is_an_error(
    home: Path, content: str | None, said: str
) -> None:
    file = home / "token"
    if content is not None:
        file.write_text(content)
    with pytest.raises(JobError, match=f"RAY_AUTH_TOKEN_PATH names {file}, which {said}"):
        find_token({"RAY_AUTH_TOKEN_PATH": str(file)})


def test_a_token_does_not_show_itself() -> None:
    token = find_token({"RAY_AUTH_TOKEN": "secret-words"})
    assert "secret-words" not in f"{token} {token!r}"
