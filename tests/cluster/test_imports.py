"""Garbage is not collected while large libraries are imported."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from cluster.imports import importing


@pytest.fixture(autouse=True)
def collecting() -> Iterator[None]:
    was_frozen = gc.get_freeze_count()  # by tests/conftest.py
    gc.unfreeze()
    gc.enable()
    yield
    gc.enable()
    if was_frozen:
        gc.freeze()


def test_nothing_is_collected_meanwhile_and_what_is_new_counts_as_old() -> None:
    before = gc.get_stats()
    with importing():
        kept = [[place] for place in range(20_000)]
        assert gc.get_stats() == before
    young = {id(one) for generation in (0, 1) for one in gc.get_objects(generation)}
    assert not any(id(one) in young for one in kept)
    assert gc.isenabled() and gc.get_freeze_count() == 0


def test_a_failed_import_ends_it_and_who_never_collects_keeps_to_it() -> None:
    with pytest.raises(ImportError), importing():
        raise ImportError("no such library")
    assert gc.isenabled()
    gc.disable()
    with importing():
        pass
    assert not gc.isenabled()


def test_what_is_frozen_stays_frozen() -> None:
    kept: list[object] = []
    gc.freeze()
    with importing():
        pass
    assert not any(one is kept for one in gc.get_objects())
