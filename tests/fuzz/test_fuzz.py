"""Damaged files and replies are read, or refused clearly: a part of what `make fuzz` tries."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies

from rewards.services.service import ServiceFailure
from tests.fuzz.campaign import case_of, run_cases
from tests.fuzz.mutations import mutated
from tests.fuzz.target import MODULES, Seed, Target, target_named

CASES = {
    "recipes": 40,
    "overrides": 300,
    "data files": 150,
    "rollout records": 50,
    "run directories": 30,
    "checkpoints": 50,
    "reward outputs": 300,
    "HTTP replies": 100,
}
"""1,020 in all, more of what is quick."""
SEED = 0


@pytest.mark.filterwarnings("ignore:coroutine")  # one that a reward function returns
@pytest.mark.parametrize("name", MODULES)
def test_valid_files_are_read_and_damaged_ones_read_or_refused(name: str, tmp_path: Path) -> None:
    target = target_named(name)
    for number, valid in enumerate(target.seeds()):
        folder = tmp_path / str(number)
        folder.mkdir()
        if b"503 Busy" in valid.data:
            with pytest.raises(ServiceFailure):
                target.read(folder, valid)
        else:
            target.read(folder, valid)
    outcome = run_cases(target, range(CASES[name]), seed=SEED)
    assert not outcome.findings, outcome.findings
    assert outcome.refused + outcome.read == outcome.cases == CASES[name]


def test_a_case_is_the_same_whenever_it_is_made() -> None:
    target = target_named("recipes")
    cases = [case_of(target, target.seeds(), number, SEED) for number in (1, 1, 2)]
    assert cases[0] == cases[1] != cases[2]


@settings(max_examples=50)
@given(strategies.binary(max_size=200), strategies.integers())
def test_any_bytes_can_be_damaged(data: bytes, seed: int) -> None:
    for name in ("a.json", "a.jsonl", "a.yaml", "a"):
        assert isinstance(mutated(data, name, random.Random(seed)), bytes)


def test_what_a_reader_must_not_do_is_found(tmp_path: Path) -> None:
    outside = tmp_path / "outside"

    def read(folder: Path, given: Seed) -> None:
        (folder / "inside").write_bytes(given.data)
        if len(given.data) % 2:
            raise KeyError("x")
        outside.write_bytes(given.data)

    target = Target("odd", lambda: [Seed("a", b"1"), Seed("b", b"22")], read)
    outcome = run_cases(target, range(30), seed=SEED)
    names = {found.error.partition(" ")[0] for found in outcome.findings.values()}
    assert names == {"KeyError", "Outside"} and outcome.read == 0
    assert not outside.exists() and os.listdir(tmp_path) == []  # noqa: PTH208
