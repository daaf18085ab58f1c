"""A policy goes to a hub by the hub's own client."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from mgrpo.cli import main
from mgrpo.config.load import load_recipe, save_recipe
from tests.mgrpo.commands.hub_stub import SECRET, Hub, hub

WEIGHTS = b"\x00weights" * 100


@pytest.fixture
def policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The policy of a run under runs/, with its card."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    folder = tmp_path / "runs" / "wide" / "policy"
    folder.mkdir(parents=True)
    save_recipe(load_recipe("quickstart"), folder.parent / "config.yaml")
    (folder / "config.json").write_text("{}")
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# wide\n")
    (folder / "model.safetensors").write_bytes(WEIGHTS)
    return folder


@pytest.fixture
def server(policy: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with hub(lfs=("model.safetensors",)) as started:
        monkeypatch.setenv("HF_ENDPOINT", started.url)
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", started.url)  # read at its import
        yield started


def test_every_file_arrives_in_one_commit(policy, server, monkeypatch, capsys):
    monkeypatch.setenv("HF_TOKEN", SECRET)
    assert main(["push", "wide", "somebody/wide", "--private"]) == 0
    assert server.unknown == []
    assert server.repos["somebody/wide"]["visibility"] == "private"
    assert server.files == {file.name: file.read_bytes() for file in policy.iterdir()}
    assert server.messages == ["mgrpo: wide, policy"]
    shown = capsys.readouterr()
    assert f"pushed: {server.url}/somebody/wide/commit/" in shown.out
    assert SECRET not in shown.out + shown.err


def test_a_dry_run_lists_the_files_and_sends_nothing(policy, server, capsys):
    assert main(["push", str(policy), "somebody/wide", "--dry-run", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["files"] == {file.name: file.stat().st_size for file in policy.iterdir()}
    assert (found["endpoint"], found["url"]) == (server.url, None)
    assert not server.repos


def test_a_missing_token_is_said_before_anything_is_sent(policy, server, capsys):
    assert main(["push", "wide", "somebody/wide"]) != 0
    assert "There is no token of the hub" in capsys.readouterr().err
    assert not server.repos


def test_a_refused_token_is_said_and_not_shown(policy, server, monkeypatch, capsys):
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert main(["push", "wide", "somebody/wide"]) != 0
    shown = capsys.readouterr().err
    assert "did not take somebody/wide" in shown and "hf_wrong" not in shown


def test_a_hub_that_is_away_is_an_error_of_ours(policy, server, monkeypatch, capsys):
    server.shutdown()
    server.server_close()
    monkeypatch.setenv("HF_TOKEN", SECRET)
    assert main(["push", "wide", "somebody/wide"]) != 0
    assert "did not take somebody/wide" in capsys.readouterr().err


def test_a_name_that_no_hub_takes_is_refused(policy, server, monkeypatch, capsys):
    monkeypatch.setenv("HF_TOKEN", SECRET)
    assert main(["push", "wide", "some body/wide/x"]) != 0
    assert "is no name of a repository" in capsys.readouterr().err
