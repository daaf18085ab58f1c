"""Actors' log lines: level, step and actor in each, on standard output."""

from __future__ import annotations

import logging
import re

import pytest

from cluster.actor_log import LOGGER, ActorLog, actor_logger


@pytest.fixture
def fresh_logger(capsys: pytest.CaptureFixture[str]) -> None:
    """A logger whose handler writes to the output that this test captures."""
    logging.getLogger(LOGGER).handlers.clear()
    actor_logger.cache_clear()


def test_a_line_names_level_step_and_actor(fresh_logger, capsys):
    log = ActorLog("engine-0")
    log.step = 3
    log.info("weights of policy version %d", 3)
    line = capsys.readouterr().out
    stamp = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"
    assert re.fullmatch(rf"{stamp} INFO step=3 engine-0 · weights of policy version 3\n", line)


def test_a_handler_can_filter_by_actor_and_step(fresh_logger):
    seen = []

    class Keeps(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append((record.actor, record.step, record.levelname))

    actor_logger().addHandler(Keeps())
    first, second = ActorLog("engine-0"), ActorLog("learner-rank-1")
    second.step = 7
    first.info("asleep")
    second.warning("slow")
    assert seen == [("engine-0", 0, "INFO"), ("learner-rank-1", 7, "WARNING")]


def test_actors_of_one_process_share_one_handler(fresh_logger, capsys):
    ActorLog("a").info("once")
    ActorLog("b")
    ActorLog("a").info("twice")
    assert len(capsys.readouterr().out.splitlines()) == 2
