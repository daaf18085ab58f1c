"""`mgrpo keys`: keys by words of their paths, of their meanings, and of other systems."""

from __future__ import annotations

import json

import pytest

from mgrpo.cli import main
from mgrpo.commands.keys import all_keys


def output_of(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["keys", *words]) == 0
    return capsys.readouterr().out


def test_a_key_is_found_by_words_of_its_path_before_those_of_meanings(
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = output_of(capsys, "Learning", "rate")
    assert "learner.learning_rate: number, ≥ 0, default 1e-06\n" in text
    assert output_of(capsys, "learning_rate") == text
    found = json.loads(output_of(capsys, "stop", "text", "--json"))["keys"]
    assert found[0]["key"] == "layers.N.stop.texts"
    assert found[0]["meaning"].startswith("A completion ends with the token")
    assert "model.stop_tokens" in [one["key"] for one in found]


def test_a_key_is_found_by_the_name_that_another_system_gives_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert output_of(capsys, "beta").startswith("beta of other systems: objective.kl.weight\n")
    assert json.loads(output_of(capsys, "lr", "--json"))["elsewhere"] == {
        "lr": "learner.learning_rate"
    }


def test_words_of_no_key_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys", "xyzzy"]) == 2
    assert "no key's path or meaning has these words" in capsys.readouterr().err


def test_all_keys_are_listed_once_with_what_they_take() -> None:
    keys = all_keys()
    assert {"steps", "data.train.path", "layers.N.group_size", "output.trackers"} <= {
        one["key"] for one in keys
    }
    assert len({tuple(one.values()) for one in keys}) == len(keys)
    assert all(one["values"] for one in keys)
