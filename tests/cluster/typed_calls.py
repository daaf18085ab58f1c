"""Calls of actors are typed: mypy, in `make check`, accepts these and refuses those marked.

mypy is strict here, so an `ignore` that hides no error is an error itself. Nothing runs this.
"""

from __future__ import annotations

from typing import assert_type

from cluster.engine_actor import EngineActor
from cluster.remote import RemoteActor, wait_for
from cluster.weight_sync.engine_client import RankActor, SentWeights
from mgrpo.records.turns import Prompt
from mgrpo.types import Generation


def results_are_those_of_the_method(
    engine: RemoteActor[EngineActor], ranks: list[RemoteActor[RankActor]]
) -> None:
    samples = engine.submit(
        EngineActor.generate, Prompt.of([1]), num_samples=1, max_tokens=1, temperature=0.0, seed=0
    )
    assert_type(samples.result(deadline_s=1, setting="s"), list[Generation])
    sent = [rank.submit(RankActor.send_weights, 7) for rank in ranks]
    assert_type(wait_for(sent, deadline_s=1, setting="s"), list[SentWeights])


def other_arguments_and_methods_are_refused(
    engine: RemoteActor[EngineActor], rank: RemoteActor[RankActor]
) -> None:
    engine.submit(EngineActor.probe_logprobs, "tokens")  # type: ignore[call-overload]
    engine.submit(EngineActor.wake)  # type: ignore[call-overload]
    rank.submit(RankActor.leave_gpu, part="cache")  # type: ignore[call-overload]
    engine.submit(RankActor.meeting_point)  # type: ignore[call-overload]
    engine.submit(EngineActor.fly)  # type: ignore[attr-defined, call-overload]
