"""Requests pass through to vLLM's server, and the corrected model answers by turns."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from actors.templates import PromptBuilder
from mgrpo.config.load import load_recipe
from mgrpo.models.turns import Turns
from mgrpo.serving.app import Served, make_app
from mgrpo.serving.vllm_process import server_command
from tests.actors.byte_tokenizer import END, ByteTokenizer

TOKENIZER = ByteTokenizer()
QUESTION = [{"role": "user", "content": "What is 1 + 2?"}]
Client = TestClient[web.Request, web.Application]


class Vllm:
    """A server in the form of vLLM's; it says how often it was asked."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str | None] = []

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_post("/v1/completions", self.complete)
        app.router.add_get("/v1/models", self.models)
        app.router.add_post("/v1/chat/completions", self.chat)
        return app

    async def complete(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.asked.append(body)
        self.keys.append(request.headers.get("Authorization"))
        if body.get("temperature", 0) > 5:
            return web.json_response({"error": {"message": "too hot"}}, status=400)
        ids = [*TOKENIZER.encode(f"answer {len(self.asked)}"), END]
        usage = {"prompt_tokens": 10, "completion_tokens": len(ids), "total_tokens": 10 + len(ids)}
        return web.json_response({"choices": [{"token_ids": ids}], "usage": usage})

    async def models(self, request: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": "wide", "object": "model"}]})

    async def chat(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for piece in ("data: one\n\n", f"data: {(await request.json())['model']}\n\n"):
            await response.write(piece.encode())
        await response.write_eof()
        return response


def served_by(vllm: Vllm, use: Callable[[Client], Awaitable[Any]]) -> Any:
    """What `use` returns of a client of the layer in front of vLLM."""

    async def run() -> Any:
        async with TestServer(vllm.app()) as upstream:
            address = str(upstream.make_url("")).rstrip("/")
            turns = Turns(PromptBuilder(TOKENIZER), load_recipe("quickstart").layers)
            app = make_app(Served(address, "wide", turns, phrase=0, request_s=30))
            async with TestClient(TestServer(app)) as client:
                return await use(client)

    return asyncio.run(run())


def asked(vllm: Vllm, **body: Any) -> tuple[int, Any]:
    async def use(client: Client) -> tuple[int, Any]:
        sent = {"model": "wide-corrected", "messages": QUESTION, **body}
        key = {"Authorization": "Bearer key"}
        async with client.post("/v1/chat/completions", json=sent, headers=key) as answer:
            return answer.status, await answer.json()

    status, content = served_by(vllm, use)
    return status, content


def test_the_corrected_model_answers_with_its_last_turn():
    vllm = Vllm()
    status, answer = asked(vllm, guidance=1, temperature=0.5)
    assert status == 200
    assert answer["choices"][0]["message"]["content"] == "answer 2"
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert [turn["content"] for turn in answer["turns"]] == ["answer 1", "answer 2"]
    assert answer["usage"]["total_tokens"] == 38
    phrase = answer["turns"][1]["guidance"]
    prompts = [TOKENIZER.decode(one["prompt"]) for one in vllm.asked]
    assert "What is 1 + 2?" in prompts[0] and f"answer 1\n{phrase}" in prompts[1]
    assert [one["temperature"] for one in vllm.asked] == [0.5, 0.5]
    assert vllm.asked[0]["max_tokens"] == 64 and END in vllm.asked[0]["stop_token_ids"]
    assert vllm.keys == ["Bearer key"] * 2


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"stream": True}, "stream"),
        ({"n": 2}, "n: "),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "the user's"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "texts"),
        ({"guidance": 7}, "guidance: 7 is no phrase's number, 0 to 6"),
    ],
)
def test_what_turns_cannot_do_is_refused(body, said):
    vllm = Vllm()
    status, answer = asked(vllm, **body)
    assert status == 400 and said in answer["error"]["message"]
    assert not vllm.asked


def test_an_error_of_vllm_is_passed_on():
    status, answer = asked(Vllm(), temperature=9)
    assert (status, answer) == (400, {"error": {"message": "too hot"}})


def test_other_requests_are_vllms_own():
    async def use(client: Client) -> tuple[list[str], str, int]:
        async with client.get("/v1/models") as answer:
            names = [one["id"] for one in (await answer.json())["data"]]
        body = {"model": "wide", "messages": QUESTION, "stream": True}
        async with client.post("/v1/chat/completions", json=body) as answer:
            text = await answer.text()
        async with client.get("/no/such") as answer:
            return names, text, answer.status

    names, text, status = served_by(Vllm(), use)
    assert names == ["wide", "wide-corrected"]
    assert text == "data: one\n\ndata: wide\n\n"
    assert status == 404


def test_a_server_that_is_away_is_a_bad_gateway():
    async def run() -> int:
        turns = Turns(PromptBuilder(TOKENIZER), load_recipe("quickstart").layers)
        served = Served("http://127.0.0.1:1", "wide", turns, phrase=0, request_s=30)
        async with (
            TestClient(TestServer(make_app(served))) as client,
            client.post(
                "/v1/chat/completions", json={"model": "wide-corrected", "messages": QUESTION}
            ) as answer,
        ):
            return answer.status

    assert asyncio.run(run()) == 502


def test_vllm_gets_the_runs_settings(tmp_path):
    config = load_recipe("quickstart", ["engines.max_model_len=256"])
    command = server_command(
        tmp_path, config.engines, dtype="float32", name="wide", port=5, is_cpu=True
    )
    text = " ".join(command)
    assert "--dtype float32" in text and "--max-model-len 256" in text
    assert "--host 127.0.0.1 --port 5" in text and "--enforce-eager" in text
