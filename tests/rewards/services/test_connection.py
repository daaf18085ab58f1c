"""Requests to a real server that is slow, drops connections, refuses, and answers nonsense."""

import asyncio
from datetime import UTC, datetime

import pytest

from mgrpo.config.services import HttpTerm
from mgrpo.errors import RewardError
from mgrpo.types import Problem
from rewards.conventions import Group
from rewards.services import connection
from rewards.services.connection import Attempt, Connection, pause_before, retry_after_s
from rewards.services.http_reward import HttpReward
from rewards.services.service import ServiceFailure, ServiceTimeout
from tests.rewards.services.loopback import drops, never, says, serving

SEVEN = Problem(
    problem_id="seven", question="What is 3 + 4?", answer="7", metadata={"level": 2}, domain="sums"
)
GROUP = Group(problem=SEVEN, texts=["7", "8"])


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(connection, "FIRST_PAUSE_S", 0.01)
    with serving(says([1, 0.5])) as server:
        yield server


def scored(server, *, path="/score", group=GROUP, **keys):
    """What the term says of a group."""
    return scored_at(f"{server.url}{path}", group, **keys)


def scored_at(url, group=GROUP, **keys):
    async def run():
        reward = HttpReward(HttpTerm(http=url, **keys))
        try:
            return await reward.score(group, lambda: None)
        finally:
            if reward.connection.session is not None:
                await reward.connection.session.close()

    return asyncio.run(run())


def refused(server, **keys):
    with pytest.raises(ServiceFailure) as caught:
        scored(server, **keys)
    return str(caught.value)


def test_a_group_is_one_request_with_all_that_is_known(server):
    rewards = scored(server, correct_at=1.0)
    assert [(one.value, one.correct) for one in rewards] == [(1.0, True), (0.5, False)]
    (body,) = server.bodies
    assert body == {
        "version": 1,
        "problem": {
            "problem_id": "seven",
            "question": "What is 3 + 4?",
            "answer": "7",
            "solution": "",
            "domain": "sums",
            "source": "",
            "messages": [{"role": "user", "content": "What is 3 + 4?"}],
            "opening": "",
            "metadata": {"level": 2},
        },
        "completions": ["7", "8"],
    }


def test_what_fails_for_a_while_is_asked_again_and_counted(server):
    server.script = [says("busy", 503), drops, says("later", 429, Retry_After="0"), says("", 500)]
    rewards = scored(server)
    assert [one.value for one in rewards] == [1.0, 0.5]
    assert {one.parts["retries"] for one in rewards} == {4.0}
    assert all(one.parts["latency_s"] > 0 for one in rewards)
    assert len(server.bodies) == 5


def test_retries_end(server):
    server.reply = says("out of memory", 500)
    text = refused(server, max_retries=2)
    assert len(server.bodies) == 3
    assert f"{server.url}/score answered 500 (Internal Server Error): 'out of memory'" in text
    assert "asked 3 times" in text and "Look at the server's log" in text


def test_nobody_there_is_said_with_the_address():
    with serving(says([])) as gone:
        url = gone.url
    with pytest.raises(ServiceFailure, match="could not be asked") as caught:
        scored_at(url, max_retries=0)
    assert url in str(caught.value) and "Start the server" in str(caught.value)


def test_a_server_that_hangs_meets_the_deadline(server):
    server.reply = never
    with pytest.raises(ServiceTimeout, match=r"did not answer within 0\.2 s.* Raise deadline_s"):
        scored(server, deadline_s=0.2)


class Scripted(Connection):
    """A connection without a network: each try is as the script says, and the last one hangs."""

    def __init__(self, *attempts, **keys):
        super().__init__("http://nowhere/", HttpTerm(http="http://nowhere/", **keys))
        self.attempts = list(attempts)

    async def attempt(self, sent):
        if not self.attempts:
            await asyncio.sleep(3600)
        return self.attempts.pop(0)


def test_the_deadline_is_for_all_tries():
    link = Scripted(Attempt(what="answered 503", status=503), deadline_s=1.5)
    with pytest.raises(ServiceTimeout, match="after 1 that failed"):
        asyncio.run(link.post({}, lambda: None))


def test_a_long_retry_after_is_not_waited_for(server):
    server.reply = says("quota", 429, Retry_After="3600")
    text = refused(server)
    assert len(server.bodies) == 1
    assert "asks to wait 3.6e+03 s, more than is left of deadline_s" in text
    assert "lower max_concurrent or requests_per_s" in text


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (401, "set `auth: {from_env: NAME}`"),
        (404, "Nothing is at that address"),
        (422, "It does not take this request"),
        (302, "Redirections are not followed"),
        (204, "does not take this request"),
    ],
)
def test_other_statuses_are_final(server, status, said):
    server.reply = says("", status, Location="/elsewhere")
    text = refused(server)
    assert f"answered {status}" in text and said in text
    assert len(server.bodies) == 1


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("<html><body>Welcome</body></html>", "which is not JSON"),
        ("", "which is not JSON"),
        ("[" * 100_000, "which is not JSON"),
        ("[1.0, 0.5", "which is not JSON"),
        ({"scores": [1, 2]}, "there is no list of rewards"),
        ("7", "there is no list of rewards"),
        ([1.0], "there are 1 rewards for 2 completions"),
        ([1.0, 0.5, 0.0], "there are 3 rewards for 2 completions"),
        ("[1.0, NaN]", "the score of reward 1 is nan, not a finite number"),
        ("[1.0, 1e999]", "the score of reward 1 is inf"),
        (f"[{'9' * 400}, 1]", "a number of reward 0 is too large"),
        ([1.0, "0.5"], "the score of reward 1 is '0.5', not a number"),
        ([1.0, [0.5]], "the score of reward 1 is [0.5], not a number"),
        ([{"value": 1}, 1], "reward 0 has no score"),
        ([{"score": None}, 1], "the score of reward 0 is None"),
        ([{"score": 1, "correct": "yes"}, 1], "`correct` of reward 0 is 'yes'"),
        ([{"score": 1, "feedback": 3}, 1], "the feedback of reward 0 is not a text"),
    ],
)
def test_nonsense_is_an_error_that_shows_it(server, body, why):
    server.reply = says(body)
    text = refused(server)
    assert f"{server.url}/score answered 200 (OK): " in text
    assert why in text
    assert len(text) < 800


def test_an_endless_answer_is_cut_off(server, monkeypatch):
    monkeypatch.setattr(connection, "MAX_ANSWER_BYTES", 1000)
    server.reply = says("1" * 2000)
    assert "with more than" in refused(server)


def test_objects_say_what_is_right_and_why_and_other_numbers(server):
    server.reply = says(
        {"rewards": [{"score": 0.2, "correct": True, "tokens": 9, "by": "rule 4"}, None]}
    )
    first, second = scored(server, correct_at=1.0)
    assert (first.value, first.correct, first.parts["tokens"]) == (0.2, True, 9.0)
    assert first.detail == "by: rule 4"
    assert second is None
    server.reply = says([{"score": 0, "feedback": " the sum is wrong "}, True])
    first, second = scored(server, correct_at=1.0)
    assert first.feedback == "the sum is wrong"
    assert second.correct


def test_a_secret_comes_from_the_environment_and_is_in_no_message(server, monkeypatch):
    monkeypatch.setenv("SCORER_KEY", "s3cret-value")
    auth = {"from_env": "SCORER_KEY"}
    scored(server, auth=auth)
    assert server.headers[0]["Authorization"] == "Bearer s3cret-value"
    scored(server, auth={**auth, "header": "X-Api-Key", "scheme": ""})
    assert server.headers[1]["X-Api-Key"] == "s3cret-value"
    server.reply = says("no such key: s3cret-value", 403)
    text = refused(server, auth=auth)
    assert "s3cret" not in text and "no such key: (the secret)" in text
    server.reply = says(["s3cret-value"])
    assert "s3cret" not in refused(server, auth=auth)


def test_a_secret_that_is_not_there_is_named(server, monkeypatch):
    monkeypatch.delenv("SCORER_KEY", raising=False)
    with pytest.raises(RewardError, match=r"variable SCORER_KEY.* is not set.*--env SCORER_KEY"):
        scored(server, auth={"from_env": "SCORER_KEY"})
    assert server.bodies == []


def test_a_query_of_the_address_is_sent_and_not_shown(server):
    server.reply = says("no", 400)
    text = refused(server, path="/score?key=private")
    assert "private" not in text and f"{server.url}/score answered" in text


def at_once(link, count):
    async def run():
        answers = await asyncio.gather(*(link.post({}, lambda: None) for _ in range(count)))
        if link.session is not None:
            await link.session.close()
        return answers

    return asyncio.run(run())


def test_only_so_many_requests_are_under_way(server):
    async def until_three_are_inside(request, asked):
        while server.most_inside < 3:
            await asyncio.sleep(0.01)
        return await says([1])(request, asked)

    server.reply = until_three_are_inside
    at_once(Connection(server.url, HttpTerm(http=server.url, max_concurrent=3)), 12)
    assert server.most_inside == 3
    assert len(server.bodies) == 12


def test_turns_are_spread():
    pace = connection.Pace(20)
    asked_at = [100.0, 100.0, 100.0, 101.0, 101.01]
    begun = [pace.reserve(now) for now in asked_at]
    assert begun == pytest.approx([100.0, 100.05, 100.1, 101.0, 101.05])
    assert [connection.Pace(None).reserve(now) for now in asked_at] == asked_at


def test_waiting_for_a_turn_is_not_the_servers_time():
    fine = [Attempt(what="", text="[]", status=200)] * 4
    link = Scripted(*fine, requests_per_s=10, deadline_s=0.2)  # the last begins after 0.3 s
    assert [answered.data for answered in at_once(link, 4)] == [[]] * 4


def test_pauses_double_up_to_a_bound():
    for retry, longest in [(1, 0.5), (2, 1.0), (5, 8.0), (9, 30.0), (500, 30.0)]:
        assert longest / 2 <= pause_before(retry) <= longest


def test_retry_after_is_seconds_or_a_date():
    now = datetime(2026, 1, 1, 12, tzinfo=UTC)

    def seconds(value):
        return retry_after_s({"Retry-After": value}, now)

    assert seconds("7") == 7.0
    assert seconds("Thu, 01 Jan 2026 12:00:30 GMT") == 30.0
    assert seconds("Thu, 01 Jan 2026 11:00:00 GMT") == 0.0
    assert [seconds(odd) for odd in ("", "soon", "-3", "1.5", "\u0663")] == [0.0] * 5
    assert retry_after_s({}) == 0.0
