"""A busy engine is left alone, one that hangs is given up, a broken request costs no engine."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

from actors.leases import FixedEngines
from actors.remote_engine import RemoteEngine
from actors.rollout import Rollout
from mgrpo.errors import ActorDiedError, DeadlineError, MgrpoError, RequestError
from mgrpo.types import Completion, Sample
from tests.actors.test_rollout import PROBLEMS, TOKENIZER, chain, rollout, scripted

TOKEN_S = 0.01
DEADLINE_S = 0.8


class TokenActor:
    """An engine's actor in this process: draws token after token for so many requests at a time.

    Args:
        num_slots: requests that it works on at the same time; the others wait for their turn.
        hangs: for which prompts it never draws one.
    """

    def __init__(
        self,
        name: str = "engine-0",
        *,
        num_slots: int = 8,
        hangs: Callable[[str], bool] = lambda prompt: False,
    ) -> None:
        self.name, self.num_slots, self.hangs = name, num_slots, hangs
        self.num_tokens = 0
        self.is_frozen = False  # the process does not answer at all
        self.fails: dict[str, MgrpoError] = {}  # by a word of the prompt
        self.num_free: asyncio.Semaphore | None = None
        self.cancelled: list[str] = []
        self.asked: list[dict[str, Any]] = []

    async def call_async(
        self, method: str, *args: Any, deadline_s: float | None, setting: str, **keys: Any
    ) -> Any:
        work = asyncio.create_task(getattr(self, method)(*args, **keys))
        try:
            await asyncio.wait({work}, timeout=deadline_s)
            if not work.done():
                raise DeadlineError(f"{self.name} ({method})", deadline_s=0, setting=setting)
            return work.result()
        finally:
            work.cancel()

    async def num_sampled_tokens(self) -> int:
        if self.is_frozen:
            await asyncio.sleep(60)
        return self.num_tokens

    async def generate(
        self, prompt_token_ids: list[int], *, num_samples: int, max_tokens: int, **keys: Any
    ) -> list[Sample]:
        prompt = TOKENIZER.decode(prompt_token_ids)
        self.asked.append({"num_samples": num_samples, "max_tokens": max_tokens, **keys})
        for word, error in self.fails.items():
            if word in prompt:
                raise error
        self.num_free = self.num_free or asyncio.Semaphore(self.num_slots)
        try:
            async with self.num_free:
                for _ in range(max_tokens):
                    if self.is_frozen or self.hangs(prompt):
                        await asyncio.sleep(60)
                    await asyncio.sleep(TOKEN_S)
                    self.num_tokens += 1
        except asyncio.CancelledError:
            self.cancelled.append(prompt)
            raise
        keys = {"logprobs": [-0.5], "finish_reason": "length", "policy_version": 0, "text": "1"}
        return [Sample(token_ids=[49], **keys) for _ in range(num_samples)]


def engines(*actors: TokenActor) -> list[RemoteEngine]:
    return [RemoteEngine(actor, deadline_s=DEADLINE_S) for actor in actors]


def parts_on(pool: FixedEngines, *, num_tokens: int = 5) -> Rollout:
    layers = [one.model_copy(update={"max_completion_tokens": num_tokens}) for one in chain(2)]
    parts = rollout(scripted(), layers)
    parts.engines = pool
    return parts


def problems_of(completions: list[Completion]) -> list[str]:
    return sorted({one.problem_id for one in completions})


def test_requests_wait_for_their_turn_as_long_as_others_get_tokens() -> None:
    actor = TokenActor(num_slots=1)
    began = time.monotonic()
    parts = parts_on(FixedEngines({1: engines(actor)}), num_tokens=50)
    completions = asyncio.run(parts.run(4, PROBLEMS))
    assert time.monotonic() - began > 1.5 * DEADLINE_S
    assert problems_of(completions) == ["p0", "p1", "p2"]
    assert parts.engines.num_resent == 0 and actor.cancelled == []


@pytest.mark.parametrize("answers", [True, False])
def test_an_engine_that_gives_no_token_is_lost_within_the_deadline(answers: bool) -> None:
    """Also one of which only the sampling stands still, so that its process goes on answering."""
    actor = TokenActor(hangs=lambda prompt: True)
    actor.is_frozen = not answers
    began = time.monotonic()
    (engine,) = engines(actor)
    with pytest.raises(DeadlineError) as caught:
        asyncio.run(engine.generate([49], num_samples=1, max_tokens=9, temperature=1.0, seed=0))
    assert DEADLINE_S / 2 < time.monotonic() - began < DEADLINE_S + 1
    assert "engine-0" in str(caught.value)
    assert "cluster.deadlines.generate_s" in str(caught.value)


def test_what_a_hanging_engine_had_goes_to_another() -> None:
    hanging = TokenActor("engine-0", hangs=lambda prompt: True)
    pool = FixedEngines({1: engines(hanging, TokenActor("engine-1"))})
    completions = asyncio.run(parts_on(pool).run(4, PROBLEMS))
    assert problems_of(completions) == ["p0", "p1", "p2"]
    assert {one.engine for one in completions} == {"engine-1"}
    assert [engine.name for engine in pool.by_layer[1]] == ["engine-1"]


def test_one_request_that_never_ends_is_taken_elsewhere_and_its_engine_stays() -> None:
    odd = TokenActor("engine-0", hangs=lambda prompt: "question 0" in prompt)
    pool = FixedEngines({1: engines(odd, TokenActor("engine-1"))})
    completions = asyncio.run(parts_on(pool).run(4, PROBLEMS))
    assert problems_of(completions) == ["p0", "p1", "p2"]
    assert {one.engine for one in completions if one.problem_id == "p0"} == {"engine-1"}
    assert [engine.name for engine in pool.by_layer[1]] == ["engine-0", "engine-1"]
    assert len(odd.cancelled) == 1, "the request still holds a place in the engine"


def test_a_request_that_never_ends_anywhere_is_named_and_costs_no_engine() -> None:
    actors = [
        TokenActor(f"engine-{i}", hangs=lambda prompt: "question 1" in prompt) for i in (0, 1)
    ]
    pool = FixedEngines({1: engines(*actors)}, max_resends=1)
    with pytest.raises(RequestError) as caught:
        asyncio.run(parts_on(pool).run(4, PROBLEMS))
    for word in ("Layer 1", "problem p1", "engine-0", "engine-1", "max_resends"):
        assert word in str(caught.value)
    assert len(pool.by_layer[1]) == 2


def test_a_request_that_an_engine_refuses_is_sent_to_another() -> None:
    refusing, other = TokenActor("engine-0"), TokenActor("engine-1")
    refusing.fails["question 2"] = RequestError("engine-0 failed to sample")
    pool = FixedEngines({1: engines(refusing, other)})
    completions = asyncio.run(parts_on(pool).run(4, PROBLEMS))
    assert problems_of(completions) == ["p0", "p1", "p2"]
    assert len(pool.by_layer[1]) == 2 and pool.num_resent <= 1


def test_a_request_that_every_engine_refuses_ends_with_its_name() -> None:
    actor = TokenActor("engine-0")
    actor.fails["question 2"] = RequestError("engine-0 failed to sample: ValueError: odd")
    pool = FixedEngines({1: engines(actor)}, max_resends=2)
    with pytest.raises(RequestError, match=r"problem p2 .*failed on engine-0 .*ValueError: odd"):
        asyncio.run(parts_on(pool).run(4, PROBLEMS))
    assert len(pool.by_layer[1]) == 1 and pool.num_resent == 3


def test_an_engine_whose_process_is_gone_is_lost_at_once() -> None:
    actor = TokenActor()
    actor.fails["1"] = ActorDiedError("engine-0 died")
    (engine,) = engines(actor)
    began = time.monotonic()
    with pytest.raises(ActorDiedError):
        asyncio.run(engine.generate([49], num_samples=1, max_tokens=1, temperature=1.0, seed=0))
    assert time.monotonic() - began < DEADLINE_S / 2


def test_a_watch_ends_with_its_last_request_and_the_next_rollout_has_its_own() -> None:
    (engine,) = engines(TokenActor())
    for _ in range(2):  # two event loops, as two rollouts have
        asyncio.run(engine.generate([49], num_samples=1, max_tokens=3, temperature=1.0, seed=0))
        assert engine.watch is None
        engine.actor.num_free = None


def test_a_rollout_that_ends_takes_its_requests_back() -> None:
    actor = TokenActor()
    actor.fails["question 0"] = MgrpoError("a bug")
    parts = parts_on(FixedEngines({1: engines(actor)}), num_tokens=100)
    with pytest.raises(MgrpoError, match="a bug"):
        asyncio.run(parts.run(4, PROBLEMS))
    assert len(actor.cancelled) == 2


def test_an_actor_is_asked_for_what_the_rollout_asks_for() -> None:
    actor = TokenActor()
    (engine,) = engines(actor)
    asked = {"num_samples": 3, "max_tokens": 2, "temperature": 0.6, "seed": 77}
    asyncio.run(engine.generate([49], **asked))
    assert actor.asked == [asked]
