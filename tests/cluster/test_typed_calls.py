"""Calls of actors are checked by mypy: a wrong method, argument or result is an error."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.repository import REPOSITORY

BEFORE = """\
from cluster.engine_actor import EngineActor
from cluster.remote import RemoteActor, wait_for
from cluster.weight_sync.engine_client import RankActor
from mgrpo.records.turns import Prompt


def f(engine: RemoteActor[EngineActor], ranks: list[RemoteActor[RankActor]]) -> None:
"""
RIGHT = """\
    samples = engine.submit(
        EngineActor.generate, Prompt.of([1]), num_samples=1, max_tokens=1, temperature=0.0, seed=0
    )
    reveal_type(samples.result(deadline_s=1, setting="s"))
    sent = [rank.submit(RankActor.send_weights, 7) for rank in ranks]
    reveal_type(wait_for(sent, deadline_s=1, setting="s"))
"""
WRONG = (
    'engine.submit(EngineActor.probe_logprobs, "tokens")',
    "engine.submit(EngineActor.wake)",
    'ranks[0].submit(RankActor.leave_gpu, part="cache")',
    "engine.submit(RankActor.meeting_point)",
    "engine.submit(EngineActor.fly)",
)


def mypy(code: str, folder: Path) -> list[str]:
    file = folder / "snippet.py"
    file.write_text(BEFORE + code, encoding="utf-8")
    command = [sys.executable, "-m", "mypy", "--no-error-summary", str(file)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=240)
    assert not done.stderr, done.stderr
    return [line.partition("snippet.py:")[2] for line in done.stdout.splitlines()]


@pytest.mark.timeout(280)
def test_arguments_and_results_are_those_of_the_method(tmp_path: Path) -> None:
    lines = mypy(RIGHT + "".join(f"    {one}\n" for one in WRONG), tmp_path)
    samples, sent = (line for line in lines if "Revealed type" in line)
    assert "list[mgrpo.types.Generation]" in samples
    assert "list[cluster.weight_sync.engine_client.SentWeights]" in sent
    first = (BEFORE + RIGHT).count("\n") + 1
    refused = {int(line.partition(":")[0]) for line in lines if " error: " in line}
    assert refused == set(range(first, first + len(WRONG)))
