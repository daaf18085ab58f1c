"""What is a secret, and what is shown in its place."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest

from mgrpo.errors import ConfigFault, DeadlineError, StorageError
from mgrpo.findings import CheckLine
from mgrpo.records.secret_values import (
    HIDDEN,
    is_secret_key,
    is_secret_name,
    redacted,
    redacted_arguments,
    redacted_value,
)

VALUE = "hunter2-of-this-test"


@pytest.mark.parametrize(
    "name", ["HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "aws_access_key_id", "redisPassword", "--api-key"]
)
def test_names_that_are_secret(name: str) -> None:
    assert is_secret_name(name)


@pytest.mark.parametrize("name", ["TOKENIZERS_PARALLELISM", "max_tokens", "HF_HOME", "keys"])
def test_names_that_are_not_secret(name: str) -> None:
    assert not is_secret_name(name)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("plugins.0.settings.api_key", True),
        ("engines.extra_args.hf_token", True),
        ("rewards.terms.0.settings.db-password", True),
        ("plugins.0.settings.aws_access_key_id", True),
        ("output.storage.options.key", True),
        ("output.storage.options.client_kwargs.aws_session_token", True),
        ("output.storage.options.endpoint_url", False),
        ("plugins.0.settings.key", False),  # of a column
        ("plugins.0.settings.stop_token", False),
        ("plugins.0.settings.api_key_env", False),
        ("layers.0.max_completion_tokens", False),
    ],
)
def test_keys_of_a_recipe(path: str, expected: bool) -> None:
    assert is_secret_key(path) is expected


@pytest.mark.parametrize(
    "token",
    [
        "hf_" + "a1B2" * 8,
        "sk-" + "proj-a1B2" * 4,
        "AKIA" + "ABCD" * 4,
        "ghp_" + "a1B2" * 9,
        "github_pat_" + "a1B2" * 9,
        "glpat-" + "a1B2" * 5,
        "xoxb-" + "1234567890-abc",
        "AIza" + "a1B2c" * 7,
        "eyJ" + "a" * 12 + ".eyJ" + "b" * 12 + "." + "c" * 9,
        "-----BEGIN " + "RSA PRIVATE KEY-----\nabc\n-----END " + "RSA PRIVATE KEY-----",
    ],
)
def test_tokens_are_known_by_their_form(token: str) -> None:
    text = f"the server said: {token}, no"
    assert redacted(text, {}) == f"the server said: {HIDDEN}, no"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("s3://me:p@ss:w@host/b", f"s3://me:{HIDDEN}@host/b"),
        ("https://:pw@host", f"https://:{HIDDEN}@host"),
        ("https://h/x?a=1&token=abc&b=2", f"https://h/x?a=1&token={HIDDEN}&b=2"),
        ("https://h/x?X-Amz-Signature=ab%2F", f"https://h/x?X-Amz-Signature={HIDDEN}"),
        ("sftp://me@host:22/x", "sftp://me@host:22/x"),
        ("http://[::1]:8000/v1?max_tokens=3#a@b:c", "http://[::1]:8000/v1?max_tokens=3#a@b:c"),
    ],
)
def test_addresses(url: str, expected: str) -> None:
    assert redacted(url, {}) == expected
    assert redacted(expected, {}) == expected


@pytest.mark.parametrize(
    "text", ["task-sk-learn-random-forest", "a key is a token", "hf_hub", "http://h:80/a@b:c"]
)
def test_what_only_looks_like_a_secret_is_shown(text: str) -> None:
    assert redacted(text, {}) == text


def test_values_of_secret_variables_are_hidden(tmp_path: Path) -> None:
    environment = {
        "JUDGE_KEY": VALUE,
        "SHORT_KEY": "EMPTY",
        "PLAIN": "in the clear",
        "GOOGLE_APPLICATION_CREDENTIALS": str(tmp_path),
    }
    text = f"{VALUE}, EMPTY, in the clear, {tmp_path}"
    assert redacted(text, environment) == f"{HIDDEN}, EMPTY, in the clear, {tmp_path}"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--api-key", "abc", "--steps", "5"], ["--api-key", HIDDEN, "--steps", "5"]),
        (["--api-key=abc", "x"], [f"--api-key={HIDDEN}", "x"]),
        (["--env=JUDGE_KEY=abc"], [f"--env=JUDGE_KEY={HIDDEN}"]),
        (["--vllm=--api-key abc --x 1"], [f"--vllm=--api-key {HIDDEN}"]),
        (['--options={"secret": "abc"}'], [f'--options={{"secret": {HIDDEN}']),
        (["output.storage.options.token=abc"], [f"output.storage.options.token={HIDDEN}"]),
        (["--from", "s3://me:abc@h/x"], ["--from", f"s3://me:{HIDDEN}@h/x"]),
        (
            ["train", "quickstart", "layers.0.max_completion_tokens=5", "--run", "key"],
            ["train", "quickstart", "layers.0.max_completion_tokens=5", "--run", "key"],
        ),
    ],
)
def test_arguments(arguments: list[str], expected: list[str]) -> None:
    assert redacted_arguments(arguments) == expected


def test_a_fault_shows_no_secret_value() -> None:
    assert redacted_value("a.password", "abc") == HIDDEN
    assert redacted_value("a", "{'password': 'abc'}") == f"{{'password': {HIDDEN}"
    assert redacted_value("output.storage.options", "{key: abc}") == f"{{key: {HIDDEN}"
    assert redacted_value("a", "{key: abc}") == "{key: abc}"
    fault = ConfigFault("a.password", "abc", "is not https://me:abc@host.")
    assert "abc" not in f"{fault} {fault!r}"


def test_errors_and_findings_show_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "JUDGE_KEY", VALUE)
    error = StorageError(f"The server said: {VALUE} is no key.")
    assert str(error) == f"The server said: {HIDDEN} is no key."
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    line = CheckLine("warn", "trackers", f"The server said: {VALUE} is no key.")
    assert line.detail == str(error)
    late = DeadlineError(f"https://me:{VALUE}@host", deadline_s=1, setting="a.b")
    assert VALUE not in str(late) and "https://me:" in str(late)
