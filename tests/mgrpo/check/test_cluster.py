"""`mgrpo check --address` up to the server; against a real one: tests/end_to_end."""

from __future__ import annotations

import time
from typing import Any

import pytest

from mgrpo.check import cluster
from mgrpo.errors import JobError, NoServerError


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the server does each time that it is asked for its nodes; the last one goes on."""
    script: list[Any] = []

    def nodes(server: Any) -> list[Any]:
        answer = script.pop(0) if len(script) > 1 else script[0]
        if isinstance(answer, Exception):
            raise answer
        return [answer]

    monkeypatch.setattr(cluster, "JobServer", lambda address: f"server at {address}")
    monkeypatch.setattr(cluster, "live_nodes", nodes)
    monkeypatch.setattr(cluster, "POLL_S", 0.01)
    return script


def test_a_server_that_is_still_starting_is_waited_for(answers: list[Any]) -> None:
    answers += [NoServerError("refused"), NoServerError("503"), "a node"]
    found: Any = cluster.reach("http://head:8265", end=time.monotonic() + 30)
    assert found == "server at http://head:8265"
    assert answers == ["a node"]


@pytest.mark.parametrize(
    ("error", "wait_s"), [(NoServerError("refused"), 0.05), (JobError("wrong token"), 600)]
)
def test_one_that_never_answers_or_refuses_is_an_error(
    answers: list[Any], error: JobError, wait_s: float
) -> None:
    answers.append(error)
    began = time.monotonic()
    with pytest.raises(type(error), match=str(error)):
        cluster.reach("http://head:8265", end=began + wait_s)
    assert time.monotonic() - began < 30
