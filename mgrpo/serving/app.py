"""The layer in front of vLLM's server: everything passes through, and one more model answers.

A chat request to NAME-corrected is two or more requests to vLLM's `/v1/completions`, whose prompts
are those of training, as token ids: an attempt is never decoded and encoded again on its way into
its correction. All other requests are vLLM's own.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aiohttp import ClientError, ClientSession, ClientTimeout, web

from mgrpo.models.turns import Answered, Asked, Turns, asked_in, final_answer
from mgrpo.records.json_object import JsonObject
from mgrpo.types import Problem

CHAT, MODELS = "/v1/chat/completions", "/v1/models"
CORRECTED = "-corrected"
PASSED_ON = ("temperature", "top_p", "top_k", "min_p", "seed", "max_tokens", "user")
"""Keys of a chat request that also hold for its turns."""
HOP_BY_HOP = {"connection", "content-length", "host", "keep-alive", "transfer-encoding"}
MAX_BODY_BYTES = 64 * 2**20


class RefusedRequest(Exception):
    """A request that cannot be answered, with the reason for the client."""


@dataclass(frozen=True)
class Served:
    """What the layer serves.

    Args:
        upstream: the address of vLLM's server.
        name: its model's.
        turns: the prompts of the run's layers.
        phrase: number of the guidance phrase unless a request has `guidance`.
        request_s: deadline of one request to vLLM, in seconds.
    """

    upstream: str
    name: str
    turns: Turns
    phrase: int
    request_s: float

    @property
    def corrected_name(self) -> str:
        return self.name + CORRECTED


SERVED: web.AppKey[Served] = web.AppKey("served", Served)
SESSION: web.AppKey[ClientSession] = web.AppKey("session", ClientSession)


def make_app(served: Served) -> web.Application:
    """The web application; it needs vLLM's server to be there."""
    app = web.Application(client_max_size=MAX_BODY_BYTES)
    app[SERVED] = served
    app.cleanup_ctx.append(with_session)
    app.router.add_post(CHAT, chat)
    app.router.add_get(MODELS, models)
    app.router.add_route("*", "/{path:.*}", pass_through)
    return app


async def with_session(app: web.Application) -> Any:
    timeout = ClientTimeout(total=app[SERVED].request_s)
    async with ClientSession(timeout=timeout, auto_decompress=False) as session:
        app[SESSION] = session
        yield


async def models(request: web.Request) -> web.StreamResponse:
    """vLLM's list, with the corrected model behind the plain one."""
    served = request.app[SERVED]
    async with request.app[SESSION].get(
        served.upstream + MODELS, headers=kept_headers(request.headers)
    ) as answer:
        listed = await answer.json()
        if answer.status == web.HTTPOk.status_code and served.turns.corrections:
            plain = listed["data"][0]
            listed["data"].append({**plain, "id": served.corrected_name, "parent": served.name})
        return web.json_response(listed, status=answer.status)


async def chat(request: web.Request) -> web.StreamResponse:
    """A chat with the corrected model; any other model's is vLLM's."""
    served = request.app[SERVED]
    try:
        body = json.loads(await request.read())
    except ValueError:
        body = {}
    if not isinstance(body, dict) or body.get("model") != served.corrected_name:
        return await pass_through(request)
    try:
        problem, phrase = problem_of(body), phrase_of(body, served)
        return web.json_response(await corrected(request, problem, phrase, body))
    except RefusedRequest as refused:
        return error(str(refused), 400)
    except UpstreamError as failed:
        return web.Response(body=failed.body, status=failed.status, content_type="application/json")
    except (ClientError, TimeoutError) as failed:
        return no_answer(failed)


def error(message: str, status: int) -> web.Response:
    """In the form of OpenAI's errors."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    return web.json_response(
        {"error": {"message": message, "type": kind, "code": status}}, status=status
    )


def no_answer(failed: Exception) -> web.Response:
    """What a client is told when vLLM's server is away."""
    return error(f"vLLM's server did not answer: {str(failed) or type(failed).__name__}", 502)


def problem_of(body: JsonObject) -> Problem:
    """The conversation's last question, with what stands before it.

    Raises:
        RefusedRequest: it does not end with a text of the user, or asks for what turns cannot do.
    """
    if body.get("stream"):
        raise RefusedRequest("stream: the corrected model answers when its last turn is done.")
    if body.get("n", 1) != 1:
        raise RefusedRequest("n: the corrected model gives one answer; send several requests.")
    messages = body.get("messages")
    is_list = isinstance(messages, list) and all(isinstance(one, dict) for one in messages)
    if not messages or not is_list or messages[-1].get("role") != "user":
        raise RefusedRequest("messages: the last one must be the user's.")
    if not all(isinstance(one.get("content"), str) for one in messages):
        raise RefusedRequest("messages: contents must be texts.")
    earlier = [{"role": str(one["role"]), "content": one["content"]} for one in messages[:-1]]
    return asked_in(messages[-1]["content"], earlier)


def phrase_of(body: JsonObject, served: Served) -> int:
    """
    Raises:
        RefusedRequest: the layers have no such phrase.
    """
    phrase = body.get("guidance", served.phrase)
    if type(phrase) is not int or not 0 <= phrase < served.turns.num_phrases:
        last = served.turns.num_phrases - 1
        raise RefusedRequest(f"guidance: {phrase!r} is no phrase's number, 0 to {last}.")
    return phrase


async def corrected(
    request: web.Request, problem: Problem, phrase: int, body: JsonObject
) -> JsonObject:
    """The answer in the form of a chat completion; `turns` has all of them."""
    served = request.app[SERVED]
    settings = {key: body[key] for key in PASSED_ON if key in body}
    answers: list[Answered] = []
    usage = dict.fromkeys(("prompt_tokens", "completion_tokens", "total_tokens"), 0)
    while (asked := served.turns.following(problem, answers, phrase)) is not None:
        answer, used = await complete(request, asked, settings)
        answers.append(answer)
        usage = {key: count + used.get(key, 0) for key, count in usage.items()}
    last = final_answer(answers)
    return {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": served.corrected_name,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": last.text},
                "finish_reason": "length" if last.is_cut else "stop",
            }
        ],
        "usage": usage,
        "turns": [
            {"layer": one.asked.layer.name, "guidance": one.asked.guidance, "content": one.text}
            for one in answers
        ],
    }


class UpstreamError(Exception):
    """An error of vLLM's server, to be passed on."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(body.decode(errors="replace"))
        self.status, self.body = status, body


async def complete(
    request: web.Request, asked: Asked, settings: Mapping[str, Any]
) -> tuple[Answered, dict[str, int]]:
    """One turn by vLLM; the tokens that it used.

    Raises:
        UpstreamError: vLLM refused it.
    """
    served = request.app[SERVED]
    stop = asked.stop
    body = {
        "max_tokens": asked.layer.max_completion_tokens,
        **settings,
        "model": served.name,
        "prompt": asked.prompt_ids,
        "add_special_tokens": False,
        "return_token_ids": True,
        "stop_token_ids": [*served.turns.builder.stop_ids, *(stop.tokens if stop else ())],
        "stop": stop.texts if stop else [],
        "include_stop_str_in_output": True,
    }
    async with request.app[SESSION].post(
        f"{served.upstream}/v1/completions", json=body, headers=kept_headers(request.headers)
    ) as answer:
        content = await answer.read()
        if answer.status != web.HTTPOk.status_code:
            raise UpstreamError(answer.status, content)
    found = json.loads(content)
    token_ids = list(found["choices"][0]["token_ids"])
    return served.turns.answered(asked, token_ids), found.get("usage") or {}


async def pass_through(request: web.Request) -> web.StreamResponse:
    """vLLM's own answer, piece by piece, as it comes."""
    served = request.app[SERVED]
    try:
        async with request.app[SESSION].request(
            request.method,
            f"{served.upstream}{request.rel_url}",
            data=await request.read(),
            headers={
                name: value
                for name, value in request.headers.items()
                if name.lower() not in HOP_BY_HOP
            },
            allow_redirects=False,
        ) as answer:
            response = web.StreamResponse(
                status=answer.status,
                headers={
                    name: value
                    for name, value in answer.headers.items()
                    if name.lower() not in HOP_BY_HOP
                },
            )
            await response.prepare(request)
            async for piece in answer.content.iter_any():
                await response.write(piece)
            await response.write_eof()
            return response
    except (ClientError, TimeoutError) as failed:
        return no_answer(failed)


def kept_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """What a request of our own carries of the client's: its key."""
    return {name: value for name, value in headers.items() if name.lower() == "authorization"}
