"""An actor's log: lines on its standard output, which Ray keeps and its dashboard shows.

    2026-11-28 14:02:11 INFO step=3 engine-0 · weights of policy version 3

Level, step and actor are attributes of each record, so a handler of the user's can filter by them.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from functools import cache

LOGGER = "mgrpo.actor"
FORM = "%(asctime)s %(levelname)s step=%(step)s %(actor)s · %(message)s"


class ActorLog(logging.LoggerAdapter[logging.Logger]):
    """The log of one actor; `step` is its newest step or policy version."""

    def __init__(self, actor: str) -> None:
        super().__init__(actor_logger())
        self.actor, self.step = actor, 0

    def process(
        self, msg: object, kwargs: MutableMapping[str, object]
    ) -> tuple[object, MutableMapping[str, object]]:
        return msg, {**kwargs, "extra": {"actor": self.actor, "step": self.step}}


@cache
def actor_logger() -> logging.Logger:
    """The logger behind every actor's log: lines on standard output, once per process."""
    logger = logging.getLogger(LOGGER)
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter(FORM, datefmt="%Y-%m-%d %H:%M:%S"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    return logger
