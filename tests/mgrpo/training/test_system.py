"""A part of the system that starts while others do."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from mgrpo.errors import ClusterError
from mgrpo.training.system import beside


class Part:
    """Starts once it may, and notes its end."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error, self.may_start = error, threading.Event()
        self.entered_in = self.left_in = ""

    @contextmanager
    def running(self) -> Iterator[str]:
        assert self.may_start.wait(10)
        self.entered_in = threading.current_thread().name
        if self.error is not None:
            raise self.error
        try:
            yield "it runs"
        finally:
            self.left_in = threading.current_thread().name


def test_the_rest_goes_on_until_the_part_is_needed() -> None:
    part = Part()
    with beside(part.running()) as running:
        part.may_start.set()
        assert running() == "it runs"
        assert part.left_in == ""
    here = threading.current_thread().name
    assert part.left_in == here != part.entered_in


def test_an_error_of_its_start_is_raised_where_it_is_needed() -> None:
    part = Part(ClusterError("no room"))
    part.may_start.set()
    with pytest.raises(ClusterError, match="no room"), beside(part.running()) as running:
        running()


def test_it_is_ended_where_others_fail_before_it_is_needed() -> None:
    part = Part()
    with pytest.raises(ValueError, match="bad data"), beside(part.running()):
        threading.Timer(0.1, part.may_start.set).start()
        raise ValueError("bad data")
    assert part.left_in


def test_an_error_of_its_start_does_not_hide_an_earlier_one() -> None:
    part = Part(ClusterError("no room"))
    part.may_start.set()
    with pytest.raises(ValueError, match="bad data"), beside(part.running()):
        raise ValueError("bad data")
