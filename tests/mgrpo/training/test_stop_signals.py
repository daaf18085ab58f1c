"""Signals end a run at once, or as soon as what they would cut through is whole."""

from __future__ import annotations

import os
import signal
import time

import pytest

from mgrpo.errors import RunInterrupted
from mgrpo.training.stop_signals import signals_as_errors


def send(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)
    time.sleep(0.01)  # the handler runs between two instructions of this thread


def test_a_signal_is_an_error_with_the_exit_code_that_shells_use() -> None:
    with pytest.raises(RunInterrupted) as stop, signals_as_errors():
        send(signal.SIGTERM)
    assert stop.value.exit_code == 143


def test_a_signal_that_comes_while_held_waits_for_the_release(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with signals_as_errors() as signals:
        signals.hold(at_most_s=30)
        send(signal.SIGINT)
        with pytest.raises(RunInterrupted) as stop:
            signals.release()
    assert stop.value.exit_code == 130
    assert "SIGINT: finishing this step first, for at most 30 s" in capfd.readouterr().err
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_a_hold_that_lasts_too_long_is_cut() -> None:
    with signals_as_errors() as signals:
        signals.hold(at_most_s=0.05)
        with pytest.raises(RunInterrupted):
            send(signal.SIGTERM)
            time.sleep(5)
        assert signals.hold_s is None


def test_a_release_without_a_signal_does_nothing_and_the_next_signal_is_raised() -> None:
    with signals_as_errors() as signals:
        signals.hold(at_most_s=30)
        signals.release()
        with pytest.raises(RunInterrupted):
            send(signal.SIGTERM)


def test_a_second_signal_is_ignored_on_the_way_down() -> None:
    with signals_as_errors():
        with pytest.raises(RunInterrupted):
            send(signal.SIGINT)
        send(signal.SIGINT)


def test_the_handlers_of_before_are_put_back() -> None:
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)]
    with signals_as_errors():
        assert signal.getsignal(signal.SIGTERM) != before[1]
    after = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)]
    assert after == before
