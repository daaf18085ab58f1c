"""A request outlives its engine: sent again with the same seed, and answered once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from actors.scripted import ScriptedEngine
from cluster.fleet.leases import FixedEngines, run_interruptible
from cluster.fleet.remote_engine import Workload
from mgrpo.errors import ActorDiedError, DeadlineError, MgrpoError, RunInterrupted, SamplingError
from mgrpo.records.turns import Prompt
from mgrpo.types import Generation
from tests.actors.test_rollout import END, PROBLEMS, TOKENIZER, chain, rollout, scripted


class DyingEngine(ScriptedEngine):
    """Answers a few prompts, then dies with the others in hand."""

    def __init__(self, *, num_answers: int, error: MgrpoError, **keys: Any) -> None:
        super().__init__(
            lambda prompt, index: str(index), encode=TOKENIZER.encode, end_id=END, **keys
        )
        self.num_answers, self.error = num_answers, error

    async def generate(self, prompt: Prompt, **sampling: Any) -> list[Generation]:
        samples = await super().generate(prompt, **sampling)
        self.num_answers -= 1
        if self.num_answers < 0:
            raise self.error
        return samples


def too_slow() -> DeadlineError:
    return DeadlineError("engine (generate)", deadline_s=1, setting="cluster.deadlines.generate_s")


@pytest.mark.parametrize("error", [ActorDiedError("gone"), too_slow()])
def test_what_a_lost_engine_had_in_hand_is_sampled_by_another_with_the_same_seeds(
    error: MgrpoError,
) -> None:
    undisturbed = asyncio.run(rollout(scripted(), chain(2, 3)).run(4, PROBLEMS))
    dying = DyingEngine(num_answers=1, error=error, name="dying", pause_s=lambda prompt: 0.01)
    survivor = scripted(name="survivor", pause_s=lambda prompt: 0.01)
    parts = rollout(dying, chain(2, 3))
    engines = FixedEngines({1: [dying, survivor], 2: [dying, survivor]})
    parts.engines = engines
    completions = asyncio.run(parts.run(4, PROBLEMS))

    def told(found: list[Any]) -> list[tuple[str, list[int]]]:
        return [(one.completion_id, one.token_ids.tolist()) for one in found]

    assert told(completions) == told(undisturbed)  # none missing, none twice
    assert engines.num_resent == len(dying.seeds) - 1 > 0
    assert set(dying.seeds[1:]) <= set(survivor.seeds)
    assert {one.engine for one in completions} == {"dying", "survivor"}
    assert dying.num_inflight == survivor.num_inflight == 0


def test_a_request_that_ends_every_engine_is_given_up() -> None:
    engines = [
        DyingEngine(num_answers=0, error=ActorDiedError(f"engine {i} died"), name=f"e{i}")
        for i in range(5)
    ]
    parts = rollout(engines[0], chain(2))
    parts.engines = FixedEngines({1: engines}, max_resends=2)
    with pytest.raises(ActorDiedError, match="engine 2 died"):
        asyncio.run(parts.run(4, PROBLEMS[:1]))
    assert [len(engine.prompts) for engine in engines] == [1, 1, 1, 0, 0]


def test_a_layer_without_engines_says_so() -> None:
    dying = DyingEngine(num_answers=0, error=ActorDiedError("gone"), name="e0")
    parts = rollout(dying, chain(2))
    with pytest.raises(ActorDiedError, match="Layer 1 has lost its last engine"):
        asyncio.run(parts.run(4, PROBLEMS[:1]))


def test_what_is_not_an_engine_s_loss_is_not_sent_again() -> None:
    broken = DyingEngine(num_answers=0, error=MgrpoError("a bug"), name="e0")
    parts = rollout(broken, chain(2))
    with pytest.raises(MgrpoError, match="a bug"):
        asyncio.run(parts.run(4, PROBLEMS[:1]))
    assert len(broken.prompts) == 1


def test_samples_that_cannot_be_trained_on_name_layer_and_problem_and_are_not_sent_again() -> None:
    broken = DyingEngine(num_answers=0, error=SamplingError("e0 returned nan"), name="e0")
    parts = rollout(broken, chain(2, 2))
    with pytest.raises(SamplingError, match=r"Layer 1, completions s4p2#\* of problem p2: e0 ret"):
        asyncio.run(parts.run(4, PROBLEMS[2:], slots=[2]))
    assert len(broken.prompts) == 1 and parts.engines.num_resent == 0


def test_a_workload_counts_busy_time_and_how_much_there_was_at_a_time() -> None:
    times = iter([0.0, 1.0, 3.0, 4.0, 10.0, 10.0])
    work = Workload(clock=lambda: next(times))
    for inflight in (8, 4, 0):
        work.change(inflight)
    assert work.take() == (3.0, 20.0)  # 2 s of 8 and 1 s of 4
    assert work.take() == (0.0, 0.0)


# --- signals ---


async def interrupted_in_a_callback() -> str:
    """As where a signal's handler raises while the event loop runs a callback."""

    def raises() -> None:
        raise RunInterrupted("SIGTERM", 143)

    asyncio.get_running_loop().call_soon(raises)
    await asyncio.sleep(5.0)
    return "the run went on"


def test_a_signal_in_a_callback_ends_the_work():
    with pytest.raises(RunInterrupted, match="SIGTERM"):
        run_interruptible(interrupted_in_a_callback())


def test_a_callback_that_fails_otherwise_is_logged_and_the_work_goes_on(caplog):
    async def work() -> int:
        asyncio.get_running_loop().call_soon(lambda: 1 / 0)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return 7

    assert run_interruptible(work()) == 7
    assert "ZeroDivisionError" in caplog.text
