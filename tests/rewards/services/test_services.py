"""Terms of services in a reward pool, with their own processes, as in a run."""

import asyncio
import json
import multiprocessing
import os
import signal
import threading
import time

import pytest

from mgrpo.config.rewards import RewardsConfig
from mgrpo.config.services import HttpTerm
from mgrpo.errors import RewardError
from mgrpo.types import Problem
from rewards.conventions import Group
from rewards.pool import RewardPool
from rewards.services import process
from rewards.services.child import answer
from rewards.services.process import ServiceProcess
from rewards.services.service import Service, ServiceFailure, ServiceTimeout
from tests.rewards.services.loopback import chat_reply, never, says, serving

SEVEN = Problem(problem_id="seven", question="What is 3 + 4?", answer="7")
WAIT_S = 240.0


def config_of(*terms, **others):
    given = {"terms": list(terms), "num_processes": 1, "start_deadline_s": WAIT_S, **others}
    return RewardsConfig.model_validate(given)


async def by_command(request, asked):
    """A group of "hang" is never answered; others by their length, at once for both kinds."""
    if "messages" in asked:
        text = asked["messages"][-1]["content"]
        if "nonsense" in text:
            return await says(chat_reply("I love it!"))(request, asked)
        if "refuse" in text:
            said = f"no response_format for {request.headers['Authorization']}"
            return await says(said, 400)(request, asked)
        right = "it is 7" in text
        verdict = {"critique": "fine" if right else "the sum is wrong", "score": 10 * right}
        return await says(chat_reply(json.dumps(verdict)))(request, asked)
    texts = asked["completions"]
    if "hang" in texts:
        return await never(request, asked)
    if "html" in texts:
        return await says("<html>")(request, asked)
    return await says([{"score": len(text), "feedback": f"{len(text)}"} for text in texts])(
        request, asked
    )


@pytest.fixture(scope="module")
def server():
    with serving(by_command) as server:
        yield server


@pytest.fixture(scope="module")
def pool(server):
    judge = {"judge": "big", "url": f"{server.url}/v1/", "prompt": "{question} {completion}"}
    config = config_of(
        {"check": "math_answer"},
        {"http": f"{server.url}/score", "weight": 0.01, "name": "length"},
        {**judge, "weight": 0.5, "correct_at": 0.8, "auth": {"from_env": "JUDGE_KEY"}},
    )
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("JUDGE_KEY", "s3cret")
        with RewardPool(config) as pool:
            yield pool


@pytest.fixture(scope="module")
def alone(server):
    """A pool of one term, which answers with the texts' lengths."""
    with RewardPool(config_of({"http": server.url, "correct_at": 1.0})) as pool:
        yield pool


def life_of(pool):
    """The process of the pool's first term."""
    return pool._services[0]._life


def test_services_and_functions_add_up(pool):
    right, wrong = pool.score_blocking(SEVEN, ["it is 7: \\boxed{7}", "eight"])
    assert right.value == pytest.approx(1.0 + 0.18 + 0.5)
    assert (right.correct, right.feedback.splitlines()[1:]) == (True, ["18", "fine"])
    assert wrong.feedback.splitlines()[-2:] == ["5", "the sum is wrong"]
    assert right.parts["judge"] == 1.0 and right.parts["http.length"] == 18.0
    assert right.parts["judge#retries"] == 0.0 and right.parts["judge#latency_s"] > 0


def test_a_server_s_nonsense_costs_its_group_and_a_judge_s_one_completion(pool):
    html = pool.score_blocking(SEVEN, ["html", "7"])
    assert [one.status for one in html] == ["error", "error"]
    assert "http.length: http://127.0.0.1" in html[0].detail and "is not JSON" in html[0].detail
    odd, fine = pool.score_blocking(SEVEN, ["nonsense", "7"])
    assert (odd.status, fine.status) == ("error", "unparsable")
    assert "no JSON object" in odd.detail and "I love it!" in odd.detail


def test_the_judge_s_secret_reaches_its_process_and_no_message(pool, server):
    pool.score_blocking(SEVEN, ["it is 7"])
    assert "Bearer s3cret" in [names.get("Authorization") for names in server.headers]
    (reward,) = pool.score_blocking(SEVEN, ["refuse"])
    assert reward.status == "error" and "set `verdict: json`" in reward.detail
    assert "(the secret)" in reward.detail and "s3cret" not in reward.detail


def test_many_groups_are_in_a_service_at_a_time(alone, server):
    """They are answered when all of them have come."""
    count, came = 6, []

    async def together(request, asked):
        came.append(asked)
        while len(came) < count:
            await asyncio.sleep(0.01)
        return await says([0.0])(request, asked)

    server.script = [together] * count
    futures = [alone.submit(SEVEN, [str(number)]) for number in range(count)]
    values = [future.result(timeout=WAIT_S)[0].value for future in futures]
    assert values == [0.0] * count


def test_a_request_that_is_not_answered_holds_nobody_up(alone, server):
    released = threading.Event()

    async def held(request, asked):
        while not released.is_set():
            await asyncio.sleep(0.01)
        return await says([9.0])(request, asked)

    server.script = [held]
    waiting = alone.submit(SEVEN, ["four"])
    while server.script:
        time.sleep(0.01)
    assert alone.score_blocking(SEVEN, ["seven"])[0].value == 5.0
    assert not waiting.done()
    released.set()
    assert waiting.result(timeout=WAIT_S)[0].value == 9.0


@pytest.mark.parametrize(
    ("raised", "status", "detail"),
    [
        (ServiceTimeout("too slow"), "timeout", "too slow"),
        (ServiceFailure("it said <html>"), "error", "it said <html>"),
        (KeyError("x"), "error", "KeyError: 'x' (test_services.py:"),
    ],
)
def test_what_a_service_raises_is_the_outcome_of_its_group(raised, status, detail):
    class Raising(Service):
        async def score(self, group, on_progress):
            raise raised

    class Pipe(list):
        send = list.append

    sent = Pipe()
    asyncio.run(answer(Raising(), 3, Group(problem=SEVEN, texts=["7", "8"]), sent))
    ((number, outcomes),) = sent
    assert number == 3
    assert [one.status for one in outcomes] == [status] * 2
    assert detail in outcomes[0].detail


def test_a_dead_process_is_replaced_and_its_groups_are_asked_again(alone, server):
    arrived, killed = threading.Event(), threading.Event()

    async def held(request, asked):
        arrived.set()
        while not killed.is_set():
            await asyncio.sleep(0.01)
        return await says([9.0])(request, asked)

    server.script = [held]
    waiting = alone.submit(SEVEN, ["four"])
    assert arrived.wait(timeout=WAIT_S)
    life_of(alone).process.kill()
    life_of(alone).process.join(timeout=WAIT_S)
    killed.set()
    assert waiting.result(timeout=WAIT_S)[0].value == 4.0
    assert alone.score_blocking(SEVEN, ["seven"])[0].value == 5.0


def test_a_process_that_stands_still_is_replaced_and_its_groups_are_asked_again(server, caplog):
    """One that is idle or waits for its server gives signs of life, and is kept."""
    with RewardPool(config_of({"http": server.url, "correct_at": 1.0})) as pool:
        (service,) = pool._services.values()
        first = life_of(pool)
        assert first is not None
        first._silent_s = service._silent_s = 3.0
        assert pool.score_blocking(SEVEN, ["four"])[0].value == 4.0
        time.sleep(4.0)
        assert life_of(pool) is first and not first.is_over
        os.kill(first.process.pid, signal.SIGSTOP)
        assert pool.score_blocking(SEVEN, ["seven"])[0].value == 5.0
        assert life_of(pool) is not first
        assert first.death == "no sign of life for 3 s, exit code -9"
    assert "reward term http" in caplog.text and "no sign of life for 3 s" in caplog.text


def test_a_process_that_always_dies_ends_the_run(alone, monkeypatch):
    monkeypatch.setattr(process, "MAX_RESTARTS", 0)
    life_of(alone).process.kill()
    with pytest.raises(RewardError, match=r"term http has died \d times.* exit code -9"):
        alone.score_blocking(SEVEN, ["7"])


def test_a_cancelled_group_s_request_is_ended(alone, server):
    arrived, ended = threading.Event(), threading.Event()

    async def watched(request, asked):
        arrived.set()
        try:
            return await never(request, asked)
        finally:
            ended.set()

    server.script = [watched]
    future = alone.submit(SEVEN, ["7"])
    assert arrived.wait(timeout=WAIT_S)
    future.cancel()
    assert ended.wait(timeout=WAIT_S)


def test_a_closed_pool_s_groups_end_and_so_does_its_process(server):
    pool = RewardPool(config_of({"http": server.url, "correct_at": 1.0}))
    pool.start()
    life = life_of(pool)
    hung = pool.submit(SEVEN, ["hang"])
    pool.close()
    with pytest.raises(RewardError, match="closed"):
        hung.result(timeout=WAIT_S)
    assert not life.process.is_alive()


def test_a_service_that_cannot_be_used_says_why_at_the_start(monkeypatch):
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    term = HttpTerm(http="http://127.0.0.1:1", auth={"from_env": "NO_SUCH_KEY"})
    service = ServiceProcess(
        term, multiprocessing.get_context("spawn"), lambda: None, silent_s=60.0
    )
    service.start()
    try:
        with pytest.raises(RewardError, match="variable NO_SUCH_KEY"):
            service.wait_until_ready(WAIT_S)
    finally:
        service.close()
