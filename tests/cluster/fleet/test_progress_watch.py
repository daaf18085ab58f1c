"""A busy engine is left alone, one that hangs is given up, a broken request costs no engine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.rollout import Rollout
from cluster.fleet.leases import FixedEngines
from cluster.fleet.remote_engine import RemoteEngine
from mgrpo.config.layers import Speculation, Stop
from mgrpo.errors import ActorDiedError, DeadlineError, MgrpoError, RequestError
from mgrpo.records.turns import Prompt
from mgrpo.types import Completion, Generation
from tests.actors.test_rollout import PROBLEMS, TOKENIZER, chain, rollout, scripted

TOKEN_S = 0.1
DEADLINE_S = 40.0


class SkippingLoop(asyncio.SelectorEventLoop):
    """Does not wait for a time to come: it is that time at once. Nothing else is waited for."""

    now = 0.0

    def time(self) -> float:
        return self.now

    def _run_once(self) -> None:
        if not self._ready and self._scheduled:
            self.now = max(self.now, self._scheduled[0]._when)
        super()._run_once()  # type: ignore[misc]


def run(work: Coroutine[Any, Any, Any]) -> tuple[Any, float]:
    """What comes out, or the error, and how many seconds it would have taken."""
    with asyncio.Runner(loop_factory=SkippingLoop) as runner:
        try:
            found = runner.run(work)
        except MgrpoError as error:
            found = error
        return found, runner.get_loop().time()


class TokenCall:
    """A call of a `TokenActor`, which begins when it is awaited."""

    def __init__(self, actor: str, method: str, work: Coroutine[Any, Any, Any]) -> None:
        self.actor, self.method, self.work = actor, method, work

    async def answer(self, *, deadline_s: float | None, setting: str) -> Any:
        work = asyncio.create_task(self.work)
        try:
            await asyncio.wait({work}, timeout=deadline_s)
            if not work.done():
                raise DeadlineError(f"{self.actor} ({self.method})", deadline_s=0, setting=setting)
            return work.result()
        finally:
            work.cancel()


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

    def submit(self, method: Callable[..., Any], *args: Any, **keys: Any) -> TokenCall:
        return TokenCall(self.name, method.__name__, getattr(self, method.__name__)(*args, **keys))

    async def num_sampled_tokens(self) -> int:
        if self.is_frozen:
            await asyncio.sleep(10 * DEADLINE_S)
        return self.num_tokens

    async def generate(
        self, prompt: Prompt, *, num_samples: int, max_tokens: int, **keys: Any
    ) -> list[Generation]:
        text = TOKENIZER.decode(prompt.token_ids.tolist())
        self.asked.append({"num_samples": num_samples, "max_tokens": max_tokens, **keys})
        for word, error in self.fails.items():
            if word in text:
                raise error
        self.num_free = self.num_free or asyncio.Semaphore(self.num_slots)
        try:
            async with self.num_free:
                for _ in range(max_tokens):
                    if self.is_frozen or self.hangs(text):
                        await asyncio.sleep(10 * DEADLINE_S)
                    await asyncio.sleep(TOKEN_S)
                    self.num_tokens += 1
        except asyncio.CancelledError:
            self.cancelled.append(text)
            raise
        keys = {
            "logprobs": [-0.5],
            "finish_reason": "length",
            "version_spans": ((0, 0),),
            "text": "1",
        }
        return [Generation(token_ids=[49], **keys) for _ in range(num_samples)]


def engines(*actors: TokenActor) -> list[RemoteEngine]:
    return [RemoteEngine(actor, deadline_s=DEADLINE_S) for actor in actors]


def parts_on(pool: FixedEngines, *, num_tokens: int = 5) -> Rollout:
    layers = [one.model_copy(update={"max_completion_tokens": num_tokens}) for one in chain(2)]
    parts = rollout(scripted(), layers)
    parts.engines = pool
    return parts


def problems_of(completions: list[Completion]) -> list[str]:
    return sorted({one.problem_id for one in completions})


def ask(engine: RemoteEngine, **changes: Any) -> Coroutine[Any, Any, list[Generation]]:
    asked = {"num_samples": 1, "max_tokens": 3, "temperature": 1.0, "seed": 0}
    return engine.generate(Prompt.of([49]), **{**asked, **changes})


def names(pool: FixedEngines) -> list[str]:
    return [engine.name for engine in pool.by_layer[1]]


def test_requests_wait_for_their_turn_as_long_as_others_get_tokens() -> None:
    actor = TokenActor(num_slots=1)
    parts = parts_on(FixedEngines({1: engines(actor)}), num_tokens=300)
    completions, took_s = run(parts.run(4, PROBLEMS))
    assert took_s > 2 * DEADLINE_S
    assert problems_of(completions) == ["p0", "p1", "p2"]
    assert parts.engines.num_resent == 0 and actor.cancelled == []


@pytest.mark.parametrize("answers", [True, False])
def test_an_engine_that_gives_no_token_is_lost_within_the_deadline(answers: bool) -> None:
    """Also one of which only the sampling stands still, so that its process goes on answering."""
    actor = TokenActor(hangs=lambda prompt: True)
    actor.is_frozen = not answers
    (engine,) = engines(actor)
    error, took_s = run(ask(engine))
    assert isinstance(error, DeadlineError)
    assert DEADLINE_S / 2 < took_s <= DEADLINE_S
    assert "a token from engine-0" in str(error) and "1 requests" in str(error)
    assert "raise cluster.deadlines.generate_s" in str(error)


def test_an_engine_that_stops_in_the_middle_is_lost_as_well() -> None:
    actor = TokenActor()

    async def work() -> Any:
        asyncio.get_running_loop().call_later(10, setattr, actor, "is_frozen", True)
        return await ask(engines(actor)[0], max_tokens=1000)

    error, took_s = run(work())
    assert isinstance(error, DeadlineError)
    assert 10 + DEADLINE_S / 2 < took_s <= 10 + DEADLINE_S


def test_what_a_hanging_engine_had_goes_to_another() -> None:
    hanging = TokenActor("engine-0", hangs=lambda prompt: True)
    pool = FixedEngines({1: engines(hanging, TokenActor("engine-1"))})
    completions, _ = run(parts_on(pool).run(4, PROBLEMS))
    assert problems_of(completions) == ["p0", "p1", "p2"]
    assert {one.engine for one in completions} == {"engine-1"}
    assert names(pool) == ["engine-1"]


def test_one_request_that_never_ends_is_taken_elsewhere_and_its_engine_stays() -> None:
    odd = TokenActor("engine-0", hangs=lambda prompt: "question 0" in prompt)
    pool = FixedEngines({1: engines(odd, TokenActor("engine-1"))})
    completions, _ = run(parts_on(pool).run(4, PROBLEMS))
    assert problems_of(completions) == ["p0", "p1", "p2"]
    assert {one.engine for one in completions if one.problem_id == "p0"} == {"engine-1"}
    assert names(pool) == ["engine-0", "engine-1"]
    assert len(odd.cancelled) == 1, "the request still holds a place in the engine"


def test_a_request_that_never_ends_anywhere_is_named_and_costs_no_engine() -> None:
    actors = [
        TokenActor(name, hangs=lambda prompt: "question 1" in prompt)
        for name in ("engine-0", "engine-1")
    ]
    pool = FixedEngines({1: engines(*actors)}, max_resends=1)
    error, _ = run(parts_on(pool).run(4, PROBLEMS))
    assert isinstance(error, RequestError)
    for word in ("Layer 1", "problem p1", "engine-0", "engine-1", "max_resends"):
        assert word in str(error)
    assert len(pool.by_layer[1]) == 2


@settings(max_examples=60)
@given(
    num_slots=st.integers(1, 4),
    stuck=st.sets(st.tuples(st.integers(0, 2), st.integers(0, 2)), max_size=6),
    num_tokens=st.integers(1, 400),
)
def test_whatever_hangs_no_engine_that_answers_is_lost_and_everything_ends(
    num_slots: int, stuck: set[tuple[int, int]], num_tokens: int
) -> None:
    """`stuck` are pairs of an engine and a problem that it does not get on with."""

    def hangs(engine: int) -> Callable[[str], bool]:
        words = [f"question {problem}" for place, problem in stuck if place == engine]
        return lambda prompt: any(word in prompt for word in words)

    actors = [TokenActor(f"engine-{n}", num_slots=num_slots, hangs=hangs(n)) for n in range(3)]
    pool = FixedEngines({1: engines(*actors)}, max_resends=3)
    found, took_s = run(parts_on(pool, num_tokens=num_tokens).run(4, PROBLEMS))
    assert len(names(pool)) == 3
    assert took_s < 4 * (DEADLINE_S + 3 * num_tokens * TOKEN_S + 1)
    if isinstance(found, MgrpoError):
        assert isinstance(found, RequestError)
        assert len(stuck) >= 3
    else:
        assert problems_of(found) == ["p0", "p1", "p2"]


def test_a_request_that_an_engine_refuses_is_sent_to_another() -> None:
    refusing, other = TokenActor("engine-0"), TokenActor("engine-1")
    refusing.fails["question 2"] = RequestError("engine-0 failed to sample")
    pool = FixedEngines({1: engines(refusing, other)})
    completions, _ = run(parts_on(pool).run(4, PROBLEMS))
    assert problems_of(completions) == ["p0", "p1", "p2"]
    assert len(names(pool)) == 2 and pool.num_resent <= 1


def test_a_request_that_every_engine_refuses_ends_with_its_name() -> None:
    actor = TokenActor("engine-0")
    actor.fails["question 2"] = RequestError("engine-0 failed to sample: ValueError: odd")
    pool = FixedEngines({1: engines(actor)}, max_resends=2)
    error, took_s = run(parts_on(pool).run(4, PROBLEMS))
    assert isinstance(error, RequestError) and took_s < 1
    assert "problem p2" in str(error) and "ValueError: odd" in str(error)
    assert names(pool) == ["engine-0"] and pool.num_resent == 3


def test_an_engine_whose_process_is_gone_is_lost_at_once() -> None:
    actor = TokenActor()
    actor.fails["1"] = ActorDiedError("engine-0 died")
    error, took_s = run(ask(engines(actor)[0]))
    assert isinstance(error, ActorDiedError) and took_s < 1


def test_a_watch_ends_with_its_last_request_and_the_next_rollout_has_its_own() -> None:
    (engine,) = engines(TokenActor())
    for _ in range(2):  # two event loops, as two rollouts have
        assert len(run(ask(engine))[0]) == 1
        assert engine.watch is None
        engine.actor.num_free = None


def test_a_rollout_that_ends_takes_its_requests_back() -> None:
    actor = TokenActor()
    actor.fails["question 0"] = MgrpoError("a bug")
    parts = parts_on(FixedEngines({1: engines(actor)}), num_tokens=100)
    error, _ = run(parts.run(4, PROBLEMS))
    assert "a bug" in str(error)
    assert len(actor.cancelled) == 2


def test_an_actor_is_asked_for_what_the_rollout_asks_for() -> None:
    actor = TokenActor()
    asked: dict[str, Any] = {"num_samples": 3, "max_tokens": 2, "temperature": 0.6}
    asked |= {"seed": 77, "num_spare": 4, "speculation": Speculation(max_draft_tokens=3)}
    asked |= {"stop": Stop(texts=["Q:"]), "priority": 5}
    run(ask(engines(actor)[0], **asked))
    assert actor.asked == [asked]
