"""What a run has loaded is left out of garbage collection until the run ends."""

from __future__ import annotations

import gc

import pytest

from mgrpo.training.frozen_heap import frozen_heap


def test_what_exists_is_not_collected_until_the_end() -> None:
    kept = [[place] for place in range(1000)]
    before = gc.get_freeze_count()
    with frozen_heap():
        assert gc.get_freeze_count() > before + len(kept)
        assert not any(one is kept for one in gc.get_objects())
    assert gc.get_freeze_count() == 0
    assert any(one is kept for one in gc.get_objects())


def test_an_error_ends_it_too() -> None:
    with pytest.raises(RuntimeError, match="over"), frozen_heap():
        raise RuntimeError("over")
    assert gc.get_freeze_count() == 0
