"""What vLLM itself is asked for: sampling parameters, pauses, sleep and versions, as received."""

from __future__ import annotations

import asyncio
import dataclasses
import math
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any

import pytest
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.sampling_params import RequestOutputKind, SamplingParams
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

from actors.engine import VllmEngine
from mgrpo.config.layers import Speculation, Stop
from mgrpo.errors import ActorDiedError, RequestError, SamplingError
from mgrpo.records.turns import Prompt
from mgrpo.types import Generation
from tests.actors.byte_tokenizer import ByteTokenizer
from tests.actors.test_engine_arguments import settings


class RecordingLLM:
    """Stands for vLLM's AsyncLLM: notes every call, and answers in its form."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
        self.requests: list[tuple[list[int], SamplingParams, str]] = []
        self.priorities: list[int] = []
        self.error: Exception | None = None
        self.logprob: Callable[[int], float] = lambda place: -0.5 - place
        self.spans = [SimpleNamespace(version="7", start=0, end=2)]
        self.drafts: Any = None
        self.stop_reason: str | int | None = None
        self.worker_answers: list[Any] = [[]]
        self.output_processor = SimpleNamespace(request_states={})

    def __getattr__(self, method: str) -> Any:
        async def note(*args: Any, **keys: Any) -> Any:
            self.calls.append((method, args, keys))
            return self.worker_answers if method == "collective_rpc" else True

        return note

    async def generate(
        self, prompt: Any, parameters: SamplingParams, request_id: str, *, priority: int = 0
    ) -> AsyncIterator[Any]:
        self.priorities.append(priority)
        self.requests.append((prompt["prompt_token_ids"], parameters, request_id))
        if self.error is not None:
            raise self.error
        outputs = [self.output(index) for index in reversed(range(parameters.n))]
        yield SimpleNamespace(outputs=outputs, prompt_logprobs=self.prompt_logprobs(prompt))

    def output(self, index: int) -> Any:
        return SimpleNamespace(
            index=index,
            token_ids=[65 + index, 66],
            logprobs=SimpleNamespace(logprobs=[self.logprob(0), self.logprob(1)]),
            finish_reason="stop",
            stop_reason=self.stop_reason,
            weight_versions=self.spans,
            spec_decode_metrics=self.drafts,
        )

    def prompt_logprobs(self, prompt: Any) -> list[Any]:
        tokens = prompt["prompt_token_ids"]
        later = [{token: SimpleNamespace(logprob=-float(token))} for token in tokens[1:]]
        return [None, *later]


def engine_on(llm: RecordingLLM, **changes: Any) -> VllmEngine:
    engine = VllmEngine(settings(**changes))
    engine.llm, engine.tokenizer = llm, ByteTokenizer()
    return engine


def sample(llm: RecordingLLM, **changes: Any) -> list[Generation]:
    given = {"num_samples": 3, "max_tokens": 17, "temperature": 0.7, "seed": 91}
    return asyncio.run(engine_on(llm).generate(Prompt.of([5, 6, 7]), **{**given, **changes}))


def test_every_sampling_parameter_reaches_vllm() -> None:
    llm = RecordingLLM()
    sample(llm)
    ((prompt, parameters, _),) = llm.requests
    assert prompt == [5, 6, 7]
    assert (parameters.n, parameters.max_tokens) == (3, 17)
    assert (parameters.temperature, parameters.seed) == (0.7, 91)
    assert parameters.logprobs == 0 and parameters.flat_logprobs
    assert parameters.output_kind is RequestOutputKind.FINAL_ONLY
    assert parameters.detokenize is False


def test_every_request_of_a_prompt_has_its_priority() -> None:
    plain, over_sampling = RecordingLLM(), GrowingLLM()
    sample(plain)
    sample(plain, priority=6)
    assert plain.priorities == [0, 6]
    sample(over_sampling, num_samples=2, num_spare=3, priority=6)
    assert over_sampling.priorities == [6] * 5


def test_nothing_truncates_or_bends_the_distribution() -> None:
    """Else the recorded log-probabilities were those of another than the one that trains."""
    llm = RecordingLLM()
    sample(llm)
    plain = SamplingParams()
    ((_, parameters, _),) = llm.requests
    for name in (
        "top_p",
        "top_k",
        "min_p",
        "presence_penalty",
        "frequency_penalty",
        "repetition_penalty",
        "min_tokens",
        "ignore_eos",
        "logit_bias",
        "allowed_token_ids",
        "bad_words",
        "prompt_logprobs",
    ):
        assert getattr(parameters, name) == getattr(plain, name), name
    assert (plain.top_p, plain.top_k, plain.min_p) == (1.0, 0, 0.0)


def test_greedy_sampling_has_no_seed_and_other_sampling_its_own() -> None:
    llm = RecordingLLM()
    sample(llm, temperature=0.0, num_samples=1)
    sample(llm, temperature=1.3, seed=5)
    sample(llm, temperature=0.2, seed=6)
    found = [(parameters.temperature, parameters.seed) for _, parameters, _ in llm.requests]
    assert found == [(0.0, None), (1.3, 5), (0.2, 6)]
    assert len({name for _, _, name in llm.requests}) == 3  # requests are told apart


def test_only_requests_with_speculation_say_how_they_are_drafted() -> None:
    llm = RecordingLLM()
    sample(llm)
    sample(llm, speculation=Speculation(max_draft_tokens=3, match_tokens=4))
    asked = {"method": "ngram", "max_draft_tokens": 3, "match_tokens": 4}
    assert [parameters.extra_args for _, parameters, _ in llm.requests] == [
        None,
        {"speculation": asked},
    ]


def test_stop_texts_and_tokens_reach_the_engine_beside_the_end_of_the_turn() -> None:
    llm = RecordingLLM()
    sample(llm, stop=Stop(texts=["</answer>", "Q:"], tokens=[7, 8]))
    ((_, parameters, _),) = llm.requests
    assert parameters.stop == ["</answer>", "Q:"]
    assert parameters.stop_token_ids[-2:] == [7, 8]
    assert parameters.detokenize is True  # vLLM finds texts nowhere else
    sample(llm, stop=Stop(tokens=[7]))
    assert llm.requests[1][1].stop == [] and llm.requests[1][1].detokenize is False


@pytest.mark.parametrize(
    ("token_ids", "reason", "keep", "read"),
    [
        (b"7 Q: 8", "Q:", False, "7 "),
        (b"7 Q:", "Q:", True, "7 Q:"),
        (b"7Q", 81, False, "7"),  # "Q" is token 81
        (b"7Q", 81, True, "7Q"),
        (b"7 Q: 8", None, False, "7 Q: 8"),  # too long, and ended by nothing
    ],
)
def test_checks_read_what_ended_a_completion_only_if_asked(
    token_ids: bytes, reason: str | int | None, keep: bool, read: str
) -> None:
    stop = Stop(texts=["Q:"], tokens=[81], keep_text=keep)
    engine = engine_on(RecordingLLM())
    assert engine.text_of(list(token_ids), reason, stop) == read


def test_values_of_tokens_behind_a_stop_text_are_left_out() -> None:
    llm = RecordingLLM()
    llm.logprob = lambda place: -1.0
    output = llm.output(0)
    output.logprobs.logprobs = [-1.0, -1.0, -2.0]  # of a step that sampled two tokens at once
    output.weight_versions = [
        SimpleNamespace(version="4", start=0, end=2),
        SimpleNamespace(version="5", start=2, end=3),
    ]
    found = engine_on(llm).generation(output, Stop(texts=["B"]))
    assert found.logprobs.tolist() == [-1.0, -1.0] and found.version_spans == ((0, 4),)


def test_drafted_and_accepted_tokens_are_counted() -> None:
    llm = RecordingLLM()
    llm.drafts = SimpleNamespace(histogram=[5, 2, 0, 3], num_draft_tokens=24)
    assert {(one.num_drafted, one.num_accepted) for one in sample(llm)} == {(24, 2 + 3 * 3)}
    assert {(one.num_drafted, one.num_accepted) for one in sample(RecordingLLM())} == {(0, 0)}


def test_samples_come_in_their_order_with_their_own_values() -> None:
    samples = sample(RecordingLLM())
    assert [one.token_ids.tolist() for one in samples] == [[65, 66], [66, 66], [67, 66]]
    assert samples[0].logprobs.tolist() == [-0.5, -1.5]
    assert {one.version_spans for one in samples} == {((0, 7),)}


def test_a_completion_of_two_versions_says_which_tokens_are_of_which() -> None:
    llm = RecordingLLM()
    llm.spans = [
        SimpleNamespace(version="3", start=0, end=0),  # nothing of it was sampled then
        SimpleNamespace(version="4", start=0, end=1),
        SimpleNamespace(version="5", start=1, end=2),
    ]
    (first, *_) = sample(llm)
    assert first.version_spans == ((0, 4), (1, 5)) and first.versions.tolist() == [4, 5]
    assert (first.oldest_version, first.newest_version) == (4, 5)


def test_the_probe_is_greedy_at_temperature_one_of_the_prompt() -> None:
    llm = RecordingLLM()
    assert asyncio.run(engine_on(llm).probe_logprobs([3, 4, 5])) == [-4.0, -5.0]
    ((_, parameters, _),) = llm.requests
    assert parameters.prompt_logprobs == 0 and parameters.max_tokens == 1


# --- requests that fail ---


@pytest.mark.parametrize("error", [ValueError("prompt too long"), EngineGenerateError()])
def test_a_request_that_vllm_refuses_is_told_from_a_lost_engine(error: Exception) -> None:
    llm = RecordingLLM()
    llm.error = error
    with pytest.raises(RequestError, match=rf"engine-0 .* 3 tokens: {type(error).__name__}"):
        sample(llm)


def test_the_end_of_vllm_s_process_is_a_lost_engine() -> None:
    llm = RecordingLLM()
    llm.error = EngineDeadError()
    with pytest.raises(ActorDiedError, match="engine-0's vLLM process died"):
        sample(llm)


# --- log-probabilities that are not finite ---


def broken(llm: RecordingLLM, **changes: Any) -> str:
    with pytest.raises(SamplingError) as caught:
        asyncio.run(
            engine_on(llm, **changes).generate(
                Prompt.of([5]), num_samples=2, max_tokens=9, temperature=1.0, seed=0
            )
        )
    return str(caught.value)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite_name_the_engine_and_the_settings(value: float) -> None:
    llm = RecordingLLM()
    llm.logprob = lambda place: value if place == 1 else -0.5
    said = broken(llm, extra_args={"kv_cache_dtype": "fp8"})
    assert "engine-0 returned log-probabilities that are not finite for 2 of 4 tokens" in said
    assert f"{value} for token 1 of completion 0" in said
    assert "Its weights are finite" in said
    assert "engines.extra_args has kv_cache_dtype='fp8'" in said
    assert "learning" not in said


def test_without_extra_arguments_the_type_is_named() -> None:
    llm = RecordingLLM()
    llm.logprob = lambda place: math.nan
    assert "engines.dtype is float16" in broken(llm, dtype="float16")


def test_weights_that_are_not_finite_are_named_instead() -> None:
    llm = RecordingLLM()
    llm.logprob = lambda place: math.nan
    llm.worker_answers = [["model.norm.weight"], ["lm_head.weight", "model.norm.weight"]]
    said = broken(llm, extra_args={"kv_cache_dtype": "fp8"})
    assert "2 of its weights are not finite either (lm_head.weight, model.norm.weight)" in said
    assert "objective.learning_rate_factor" in said and "extra_args" not in said
    assert llm.calls[-1] == ("collective_rpc", ("nonfinite_weights",), {"args": ()})


def test_a_log_probability_for_every_token_is_wanted() -> None:
    llm = RecordingLLM()
    output = llm.output

    def short(index: int) -> Any:
        found = output(index)
        found.logprobs.logprobs = found.logprobs.logprobs[:1]
        return found

    llm.output = short
    assert "returned 2 log-probabilities for 4 tokens" in broken(llm)


# --- what is sampled so far ---


def test_tokens_are_counted_while_they_come_and_when_they_have_left() -> None:
    llm = RecordingLLM()
    engine = engine_on(llm)
    assert asyncio.run(engine.num_sampled_tokens()) == 0
    unfinished = SimpleNamespace(num_output_tokens=lambda: 11)
    llm.output_processor.request_states = {
        "a": SimpleNamespace(detokenizer=unfinished),
        "b": SimpleNamespace(detokenizer=None),
    }
    assert asyncio.run(engine.num_sampled_tokens()) == 11
    asyncio.run(
        engine.generate(Prompt.of([5]), num_samples=3, max_tokens=4, temperature=1.0, seed=0)
    )
    assert asyncio.run(engine.num_sampled_tokens()) == 11 + 3 * 2


# --- around a broadcast ---


@pytest.mark.parametrize(
    ("method", "args", "call"),
    [
        ("resume", (), ("resume_generation", (), {})),
        ("sleep", (), ("sleep", (), {"level": 2, "mode": "wait"})),
        ("wake", ("weights",), ("wake_up", (), {"tags": ["weights"]})),
        ("wake", ("kv_cache",), ("wake_up", (), {"tags": ["kv_cache"]})),
        ("start_weight_update", (), ("start_weight_update", (), {})),
        ("finish_weight_update", ("12",), ("finish_weight_update", (), {"weight_version": "12"})),
        ("abandon_weight_update", (), ("collective_rpc", ("abandon_weight_update",), {})),
        ("received_checksums", (), ("collective_rpc", ("received_checksums",), {})),
        ("weight_version", (), ("get_weight_version", (), {})),
        ("check_health", (), ("check_health", (), {})),
    ],
)
def test_what_a_broadcast_asks_of_an_engine_reaches_vllm(
    method: str, args: tuple[Any, ...], call: Any
) -> None:
    llm = RecordingLLM()
    asyncio.run(getattr(engine_on(llm), method)(*args))
    assert llm.calls == [call]


@pytest.mark.parametrize(("in_flight", "mode"), [(False, "wait"), (True, "keep")])
def test_running_requests_are_finished_before_a_broadcast_or_kept(
    in_flight: bool, mode: str
) -> None:
    llm = RecordingLLM()
    asyncio.run(engine_on(llm).pause(in_flight=in_flight))
    assert llm.calls == [("pause_generation", (), {"mode": mode, "clear_cache": True})]


@pytest.mark.parametrize(
    ("method", "field"),
    [("init_weight_transfer_engine", "init_info"), ("update_weights", "update_info")],
)
def test_what_the_learner_sends_reaches_vllm_as_it_is(method: str, field: str) -> None:
    llm = RecordingLLM()
    asyncio.run(getattr(engine_on(llm), method)({"rank_offset": 3}))
    ((called, (request,), _),) = llm.calls
    assert called == method
    assert dataclasses.asdict(request)[field] == {"rank_offset": 3}


def test_an_engine_starts_at_version_zero_with_its_arguments(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    llm, made = RecordingLLM(), []

    def from_engine_args(engine_args: AsyncEngineArgs) -> RecordingLLM:
        made.append(engine_args)
        return llm

    monkeypatch.setattr("actors.engine.installed_build", lambda: "cuda")
    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", lambda folder: folder)
    monkeypatch.setattr(AsyncLLM, "from_engine_args", from_engine_args)
    given = settings(find_model=lambda: str(tmp_path), seed=41, extra_args={"block_size": 16})
    engine = VllmEngine(given)
    assert asyncio.run(engine.start()) == "engine-0"
    (engine_args,) = made
    assert (engine_args.model, engine_args.seed) == (str(tmp_path), 41)
    assert engine_args.logprobs_mode == "processed_logprobs"
    assert engine_args.scheduling_policy == "priority"  # else priorities mean nothing
    assert engine_args.block_size == 16
    assert llm.calls == [("update_weight_version", ("0",), {})]


class GrowingLLM(RecordingLLM):
    """Completion number n of a prompt has LENGTHS[n] tokens, and all grow by one at a time."""

    LENGTHS = (500, 2, 400, 3, 300)

    def __init__(self) -> None:
        super().__init__()
        self.output_processor = SimpleNamespace(request_states={}, external_req_ids={})
        self.aborted: list[str] = []

    async def generate(
        self, prompt: Any, parameters: SamplingParams, request_id: str, *, priority: int = 0
    ) -> AsyncIterator[Any]:
        self.priorities.append(priority)
        self.requests.append((prompt["prompt_token_ids"], parameters, request_id))
        length, tokens, processor = self.LENGTHS[parameters.seed - 91], [], self.output_processor
        detokenizer = SimpleNamespace(num_output_tokens=lambda: len(tokens))
        processor.external_req_ids[request_id] = [f"{request_id}-0"]
        processor.request_states[f"{request_id}-0"] = SimpleNamespace(detokenizer=detokenizer)
        while len(tokens) < length and request_id not in self.aborted:
            await asyncio.sleep(0.001)
            tokens.append(65)
        del processor.request_states[f"{request_id}-0"]
        output = self.output(0)
        output.token_ids, output.logprobs.logprobs = tokens, [-0.5] * len(tokens)
        output.finish_reason = "abort" if request_id in self.aborted else "stop"
        yield SimpleNamespace(outputs=[output])

    async def abort(self, request_ids: list[str]) -> None:
        self.aborted += request_ids


def test_over_sampling_keeps_the_shortest_and_aborts_the_others_in_vllm() -> None:
    llm = GrowingLLM()
    found = sample(llm, num_samples=2, num_spare=3)
    assert [len(one.token_ids) for one in found[:2]] == [2, 3]
    assert [one.finish_reason for one in found] == ["stop", "stop", *["aborted"] * 3]
    # Each has the seed that it has in vLLM's own request for all of them.
    assert [parameters.seed for _, parameters, _ in llm.requests] == [91, 92, 93, 94, 95]
    assert {parameters.n for _, parameters, _ in llm.requests} == {1}
    names = [name for *_, name in llm.requests]
    assert sorted(llm.aborted) == sorted(names[place] for place in (0, 2, 4))
    assert all(len(one.token_ids) < 200 for one in found)


def test_a_request_that_fails_ends_the_others_that_were_begun_for_its_prompt() -> None:
    class FailingLLM(GrowingLLM):
        async def generate(
            self, prompt: Any, parameters: Any, request_id: str, *, priority: int = 0
        ) -> Any:
            if parameters.seed == 92:
                raise EngineGenerateError
            async for one in super().generate(prompt, parameters, request_id):
                yield one

    with pytest.raises(RequestError, match="EngineGenerateError"):
        sample(FailingLLM(), num_samples=2, num_spare=1)


# --- vLLM's own process is gone ---


class DeadCore(RecordingLLM):
    """vLLM 0.33 whose process died after it was asked: the answer never comes."""

    def __getattr__(self, method: str) -> Any:
        async def never(*args: Any, **keys: Any) -> Any:
            if method == "check_health":
                raise EngineDeadError()
            await asyncio.Event().wait()

        return never


@pytest.mark.parametrize(
    "ask",
    [
        lambda engine: engine.pause(in_flight=False),
        lambda engine: engine.start_weight_update(),
        lambda engine: engine.update_weights({}),
        lambda engine: engine.finish_weight_update("3"),
        lambda engine: engine.abandon_weight_update(),
        lambda engine: engine.received_checksums(),
        lambda engine: engine.sleep(),
    ],
)
def test_a_call_that_waits_for_a_process_that_died_ends(
    ask: Callable[[VllmEngine], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.engine.ALIVE_LOOK_S", 0.01)
    engine = engine_on(DeadCore())

    async def asked() -> None:
        await asyncio.wait_for(ask(engine), timeout=20)

    with pytest.raises(ActorDiedError, match="vLLM process died"):
        asyncio.run(asked())
    assert engine.num_asked == 0
