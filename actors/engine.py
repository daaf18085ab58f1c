"""One vLLM engine in one process: token ids in, token ids and log-probabilities out.

The only place where vLLM's engine is imported, and only inside the methods: the driver names
this class to have it started elsewhere, and must not pay eight seconds of imports for that. The
class is plain Python; `cluster` makes an actor of it. Its weight methods are what the learner's
transfer engine calls (see `cluster/weight_sync/weight_transfer.py`).
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import pkgutil
import shutil
import tempfile
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

import numpy as np

from actors.chat_format import without_last
from actors.core_watch import CoreWatch, descendants
from actors.drafts import SPECULATION
from actors.shortest import kept_first, too_long
from cluster.actor_log import ActorLog
from cluster.folders import ENGINE_PREFIX
from cluster.imports import importing
from cluster.left_over import name_semaphores, private_folder
from cluster.progress_board import Progress, num_io_bytes
from cluster.vllm_build import installed_build, mismatch
from mgrpo.config.layers import Speculation, Stop
from mgrpo.errors import ActorDiedError, ModelError, RequestError, SamplingError, task_group
from mgrpo.records.turns import Prompt, VersionSpans, cut_versions
from mgrpo.types import FinishReason, Generation

if TYPE_CHECKING:
    from vllm.v1.engine.async_llm import AsyncLLM

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

BATCHED_TOKENS = 8192
LOOK_S = 0.02
"""Between two looks at completions that may have become too long."""
CODE_CACHE = "TORCHINDUCTOR_CACHE_DIR"
ALIVE_LOOK_S = 0.2
"""Between two looks at whether vLLM's own process is there, while it is asked something."""


@dataclass(frozen=True, kw_only=True)
class EngineSettings:
    """Settings of an engine, resolved from a recipe."""

    name: str
    model_dir: str
    dtype: str
    max_model_len: int
    max_num_seqs: int
    tensor_parallel_size: int
    gpu_memory_utilization: float
    enforce_eager: bool
    device: str  # "cpu" or "cuda"
    weight_backend: str  # "gloo", "nccl" or "ipc"
    shares_gpu: bool = False  # with a learner rank: sleeps while that works
    seed: int
    extra_args: dict[str, Any]
    stop_token_ids: tuple[int, ...] = ()  # end a completion, beside vLLM's own
    find_model: Callable[[], str] | None = None  # gives model_dir as it is on the engine's node
    max_draft_tokens: int = 0  # the longest draft of any request; 0: the engine does not speculate
    dead_after_s: float = 60  # vLLM's own process is ended when it stands still for so long

    @property
    def suspects(self) -> str:
        """Settings that may cause invalid samples, in words."""
        if self.extra_args:
            given = ", ".join(f"{key}={value!r}" for key, value in self.extra_args.items())
            return f"engines.extra_args has {given}. Remove arguments that change sampling"
        return f"engines.dtype is {self.dtype}; a type with a larger range may help"


def engine_arguments(settings: EngineSettings) -> dict[str, Any]:
    """vLLM's own arguments for an engine."""
    from cluster.weight_sync.weight_transfer import WORKER_EXTENSION, transfer_config

    arguments: dict[str, Any] = {
        "model": settings.model_dir,
        "dtype": settings.dtype,
        "max_model_len": settings.max_model_len,
        "max_num_seqs": settings.max_num_seqs,
        "tensor_parallel_size": settings.tensor_parallel_size,
        "gpu_memory_utilization": settings.gpu_memory_utilization,
        "enforce_eager": settings.enforce_eager,
        "seed": settings.seed,
        # The learner divides by the temperature too, so both speak of one distribution.
        "logprobs_mode": "processed_logprobs",
        "weight_transfer_config": transfer_config(settings.weight_backend),
        "worker_extension_cls": WORKER_EXTENSION,
        # Of a forward pass. Left alone, vLLM would take 2048 for an engine made this way.
        "max_num_batched_tokens": BATCHED_TOKENS,
        # Corrections of an earlier problem go before attempts at later ones, so that problems are
        # done one after the other and the learner can begin.
        "scheduling_policy": "priority",
        "disable_log_stats": True,
        "enable_log_requests": False,
    }
    if settings.shares_gpu and settings.device == "cuda":
        arguments["enable_sleep_mode"] = True
    if settings.device == "cpu":
        # Seeded requests and prompts cut into chunks do not go together on a CPU (vLLM 0.32
        # rewinds the request's generator, which CPU generators cannot), so prompts stay whole.
        arguments["enable_chunked_prefill"] = False
        arguments["max_num_batched_tokens"] = max(BATCHED_TOKENS, settings.max_model_len)
    elif settings.tensor_parallel_size > 1:
        # The actor has all of the engine's GPUs. By itself vLLM would see Ray, and ask its
        # placement group for one bundle per GPU.
        arguments["distributed_executor_backend"] = "mp"
    if settings.max_draft_tokens:
        arguments |= draft_arguments(settings.max_draft_tokens)
    check_extra_args(settings)
    return {**arguments, **settings.extra_args}


def draft_arguments(max_draft_tokens: int) -> dict[str, Any]:
    """vLLM's arguments for an engine that speculates."""
    from actors.draft_worker import DRAFT_WORKER, DRAFTER

    return {
        "speculative_config": {
            "method": "custom_class",
            "model": DRAFTER,
            "num_speculative_tokens": max_draft_tokens,
        },
        "per_request_spec_decode_metrics": "summary",
        "worker_extension_cls": DRAFT_WORKER,
    }


def check_extra_args(settings: EngineSettings) -> None:
    """Checks of `engines.extra_args` that need an engine's environment.

    Raises:
        ModelError: naming the argument.
    """
    from actors.draft_worker import DraftWorker
    from cluster.weight_sync.weight_transfer import WeightInspector

    if settings.device == "cpu" and settings.extra_args.get("enable_chunked_prefill"):
        raise ModelError(
            f"{settings.name} cannot start: engines.extra_args sets enable_chunked_prefill, with "
            "which vLLM cannot sample by seeds on a CPU. Remove it."
        )
    path = settings.extra_args.get("worker_extension_cls")
    if path is None:
        return
    try:
        extension = pkgutil.resolve_name(path)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise ModelError(f"engines.extra_args.worker_extension_cls = {path!r}: {error}") from error
    base, why = WeightInspector, "through which weights are sent and checked"
    if settings.max_draft_tokens:
        base, why = DraftWorker, "through which layers with `speculation` are drafted"
    if not (isinstance(extension, type) and issubclass(extension, base)):
        raise ModelError(
            f"engines.extra_args.worker_extension_cls = {path!r} is not a subclass of "
            f"{base.__module__}.{base.__name__}, {why}."
        )


def nonfinite_text(generations: Sequence[Generation]) -> str:
    """The invalid log-probabilities, in words; "" if all are finite."""
    places = [
        (number, int(place), float(one.logprobs[place]))
        for number, one in enumerate(generations)
        for place in np.flatnonzero(~np.isfinite(one.logprobs))
    ]
    num_tokens = sum(len(one.token_ids) for one in generations)
    num_values = sum(len(one.logprobs) for one in generations)
    if num_values != num_tokens:
        return f"{num_values} log-probabilities for {num_tokens} tokens."
    if not places:
        return ""
    number, place, value = places[0]
    return (
        f"log-probabilities that are not finite for {len(places)} of {num_tokens} tokens (the "
        f"first: {value} for token {place} of completion {number})."
    )


def version_spans(spans: Sequence[Any]) -> VersionSpans:
    """Which policy version sampled which tokens, from vLLM's `WeightVersionSpan`s of a completion.

    They are exact: an engine's weights and its version change only while it is paused, and vLLM
    begins a span at the first token that came after a change. A completion without tokens has none,
    and counts as the oldest.
    """
    return tuple((one.start, int(one.version)) for one in spans if one.end > one.start) or ((0, 0),)


def num_accepted(histogram: Sequence[int]) -> int:
    """Drafted tokens that stand, of how many drafts had 0, 1, … of them."""
    return sum(number * count for number, count in enumerate(histogram))


def while_core_lives(
    method: Callable[Concatenate[VllmEngine, Arguments], Coroutine[Any, Any, Result]],
) -> Callable[Concatenate[VllmEngine, Arguments], Coroutine[Any, Any, Result]]:
    """A method that asks vLLM's own process, and raises ActorDiedError when that dies.

    vLLM 0.33 itself forgets who waits for an answer of a process that has died: they would wait
    until their own deadlines.
    """

    @wraps(method)
    async def asked(
        self: VllmEngine, /, *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Result:
        answer = asyncio.create_task(method(self, *args, **kwargs))
        self.num_asked += 1
        try:
            with self.core_death_named():
                while not answer.done():
                    await asyncio.wait({answer}, timeout=ALIVE_LOOK_S)
                    if not answer.done():
                        await self.engine.check_health()
                return answer.result()
        finally:
            self.num_asked -= 1
            answer.cancel()

    return asked


@contextmanager
def temporary_files_in(folder: Path) -> Iterator[None]:
    """vLLM's processes that are started meanwhile keep their temporary files there, of which it
    leaves sockets and files of rendezvous. Its cache of compiled code is all engines'."""
    changed = {"TMPDIR": str(folder)}
    if CODE_CACHE not in os.environ:
        changed[CODE_CACHE] = str(folder.with_name(f"mgrpo-code-{os.getuid()}"))
    before, usual = {name: os.environ.get(name) for name in changed}, tempfile.tempdir
    os.environ |= changed
    tempfile.tempdir = str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = usual
        for name, value in before.items():
            os.environ.pop(name)
            os.environ |= {} if value is None else {name: value}


class VllmEngine:
    """An AsyncLLM with the lifecycle that training needs."""

    def __init__(self, settings: EngineSettings) -> None:
        self.settings = settings
        self.log = ActorLog(settings.name)
        self.llm: AsyncLLM | None = None
        self.num_returned_tokens = 0  # in completions that have left the engine
        self.num_asked = 0  # calls that wait for vLLM's own process
        self.watching: asyncio.Task[None] | None = None
        self.folder: Path | None = None  # of vLLM's temporary files
        self.num_bytes: dict[int, int] = {}  # read and written, by process, ended ones too

    async def start(self) -> str:
        """Load the model. Returns the engine's name.

        Raises:
            ModelError: vLLM cannot load the model with these settings, or this node's vLLM is built
                for other hardware.
        """
        fault = mismatch(self.settings.device, installed_build())
        if fault:
            raise ModelError(f"{self.settings.name} cannot start: {fault}")
        with importing():
            from transformers import AutoTokenizer
            from vllm.engine.arg_utils import AsyncEngineArgs
            from vllm.v1.engine.async_llm import AsyncLLM

        if self.settings.find_model is not None:
            model_dir = self.settings.find_model()
            self.settings = dataclasses.replace(self.settings, model_dir=model_dir)
        settings = self.settings
        self.folder = private_folder(Path(tempfile.gettempdir()), ENGINE_PREFIX)
        name_semaphores()
        try:
            engine_args = AsyncEngineArgs(**engine_arguments(settings))
            with temporary_files_in(self.folder):
                self.llm = AsyncLLM.from_engine_args(engine_args)
        except (ValueError, RuntimeError, OSError, TypeError) as error:
            raise ModelError(
                f"{settings.name} cannot start vLLM with {settings.model_dir!r}: {error}"
            ) from error
        self.tokenizer = AutoTokenizer.from_pretrained(settings.model_dir)
        await self.engine.update_weight_version("0")
        if settings.max_draft_tokens:
            await self.on_workers("start_drafting")
        watch = CoreWatch(
            self, patience_s=settings.dead_after_s, processes=descendants, say=self.log.warning
        )
        self.watching = asyncio.create_task(watch.run())
        return settings.name

    def progress(self) -> Progress:
        """Of `start`, asked beside it: files of the model, of compiled code and of libraries."""
        for pid in (os.getpid(), *(process.pid for process in descendants())):
            self.num_bytes[pid] = max(num_io_bytes(pid), self.num_bytes.get(pid, 0))
        return Progress(0, "its start", sum(self.num_bytes.values()))

    @property
    def is_idle(self) -> bool:
        """Whether vLLM has neither requests nor a call."""
        return not self.num_asked and not self.engine.output_processor.has_unfinished_requests()

    def ask(self) -> Awaitable[object]:
        """A question that vLLM's own process answers between two steps."""
        return self.engine.is_sleeping()

    @property
    def engine(self) -> AsyncLLM:
        assert self.llm is not None, "start() comes first"
        return self.llm

    async def generate(
        self,
        prompt: Prompt,
        *,
        num_samples: int,
        max_tokens: int,
        temperature: float,
        seed: int,
        num_spare: int = 0,
        speculation: Speculation | None = None,
        stop: Stop | None = None,
        priority: int = 0,
    ) -> list[Generation]:
        """Sample completions of one prompt.

        Args:
            prompt: its token ids are used as they are.
            num_samples: completions wanted.
            max_tokens: longest completion.
            temperature: 0 is greedy.
            seed: the same seed, prompt and weights give the same completions.
            num_spare: so many more are begun, and all but the shortest aborted (`actors.shortest`).
            speculation: how they are drafted, which changes nothing but the time; None: not.
            stop: what ends them beside the end of the turn; tokens as ids.
            priority: vLLM begins waiting requests with a lower number first.

        Returns:
            Those wanted, in their order, and after them what there is of the aborted ones.

        Raises:
            ActorDiedError: vLLM's own process is gone.
            RequestError: vLLM refuses this prompt, or fails with it.
            SamplingError: their log-probabilities are not finite.
        """
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        stop = stop or Stop()
        extra_args = None if speculation is None else {SPECULATION: speculation.model_dump()}
        parameters = SamplingParams(
            n=num_samples,
            max_tokens=max_tokens,
            temperature=temperature,
            seed=seed if temperature > 0 else None,
            stop_token_ids=[*self.settings.stop_token_ids, *map(int, stop.tokens)],
            stop=stop.texts,
            logprobs=0,  # only the sampled token's own
            flat_logprobs=True,
            detokenize=bool(stop.texts),  # vLLM looks for them in the text
            output_kind=RequestOutputKind.FINAL_ONLY,
            extra_args=extra_args,
        )
        given: Any = prompt.engine_input()
        with self.core_death_named(), self.request_failure_named(len(prompt)):
            if num_spare:
                generations = await self.shortest(given, parameters, num_spare, stop, priority)
            else:
                outputs = await self.outputs(given, parameters, uuid.uuid4().hex, priority)
                generations = [self.generation(one, stop) for one in outputs]
        self.num_returned_tokens += sum(len(one.token_ids) for one in generations)
        found = nonfinite_text(generations)
        if found:
            why = await self.why_not_finite()
            raise SamplingError(f"{self.settings.name} returned {found} {why}")
        return generations

    async def outputs(self, given: Any, parameters: Any, name: str, priority: int) -> list[Any]:
        """vLLM's final outputs of a request, in their order."""
        outputs: list[Any] = []
        async for result in self.engine.generate(given, parameters, name, priority=priority):
            outputs = result.outputs
        return sorted(outputs, key=lambda one: one.index)

    async def shortest(
        self, given: Any, parameters: Any, num_spare: int, stop: Stop, priority: int
    ) -> list[Generation]:
        """The shortest of parameters.n + num_spare completions, and after them the others as far
        as they came.

        Each is a request of its own, with the seed that it has in vLLM's request for all of them.
        """
        from vllm.sampling_params import SamplingParams

        num_kept, found = parameters.n, {}
        names = [uuid.uuid4().hex for _ in range(num_kept + num_spare)]

        async def sampled(number: int) -> None:
            own: SamplingParams = parameters.clone()
            own.n = 1
            own.seed = None if parameters.seed is None else parameters.seed + number
            (output,) = await self.outputs(given, own, names[number], priority)
            found[number] = self.generation(output, stop)

        async with task_group() as group:
            running = {number: group.create_task(sampled(number)) for number in range(len(names))}
            while running:
                is_decided = len(found) >= num_kept
                await asyncio.wait(
                    running.values(),
                    timeout=LOOK_S if is_decided else None,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                running = {number: task for number, task in running.items() if not task.done()}
                lengths = {number: len(one.token_ids) for number, one in found.items()}
                so_far = {number: self.num_tokens_of(names[number]) for number in running}
                dropped = too_long(lengths, so_far, num_kept)
                if dropped:
                    await self.engine.abort([names[number] for number in dropped])
                    running = {
                        number: task for number, task in running.items() if number not in dropped
                    }
        return kept_first(found, num_kept)

    def num_tokens_of(self, name: str) -> int:
        """Tokens that a running request has by now."""
        processor = self.engine.output_processor
        states = [
            processor.request_states[own]
            for own in processor.external_req_ids.get(name, ())
            if own in processor.request_states
        ]
        return sum(one.detokenizer.num_output_tokens() for one in states if one.detokenizer)

    async def num_sampled_tokens(self) -> int:
        """Tokens sampled so far, those of unfinished requests included: moves while vLLM works."""
        states = self.engine.output_processor.request_states.values()
        in_hand = sum(one.detokenizer.num_output_tokens() for one in states if one.detokenizer)
        return self.num_returned_tokens + in_hand

    def generation(self, output: Any, stop: Stop) -> Generation:
        token_ids, drafts = list(output.token_ids), output.spec_decode_metrics
        reason: FinishReason = (
            output.finish_reason if output.finish_reason in ("stop", "length") else "aborted"
        )
        return Generation(
            token_ids=np.array(token_ids, dtype=np.int32),
            # A step may sample several tokens, of which vLLM keeps those up to a stop text.
            logprobs=np.array(output.logprobs.logprobs[: len(token_ids)], dtype=np.float32),
            finish_reason=reason,
            num_drafted=drafts.num_draft_tokens if drafts else 0,
            num_accepted=num_accepted(drafts.histogram) if drafts else 0,
            version_spans=cut_versions(
                version_spans(output.weight_versions or []), 0, len(token_ids)
            ),
            text=self.text_of(token_ids, output.stop_reason, stop),
        )

    def text_of(self, token_ids: list[int], reason: str | int | None, stop: Stop) -> str:
        """What checks read of a completion.

        Args:
            reason: what ended it, as vLLM says: a text or a token of `stop`, or None.
        """
        own = () if stop.keep_text else map(int, stop.tokens)
        ends = [*self.settings.stop_token_ids, *own]
        text: str = self.tokenizer.decode(without_last(token_ids, ends), skip_special_tokens=True)
        if not isinstance(reason, str) or reason not in text:
            return text
        return text[: text.index(reason) + (len(reason) if stop.keep_text else 0)]

    @while_core_lives
    async def probe_logprobs(self, token_ids: list[int]) -> list[float]:
        """Log-probabilities of tokens 1.. of a fixed sequence, at temperature 1, in nats."""
        from vllm import SamplingParams, TokensPrompt

        parameters = SamplingParams(
            max_tokens=1, temperature=0.0, prompt_logprobs=0, detokenize=False
        )
        prompt = TokensPrompt(prompt_token_ids=token_ids)
        positions: list[Any] = []
        async for result in self.engine.generate(prompt, parameters, uuid.uuid4().hex):
            positions = list(result.prompt_logprobs or [])
        return [
            position[token].logprob
            for token, position in zip(token_ids[1:], positions[1:], strict=True)
        ]

    async def why_not_finite(self) -> str:
        """The cause of log-probabilities that are not finite: weights or settings."""
        invalid = sorted(
            {name for worker in await self.on_workers("nonfinite_weights") for name in worker}
        )
        if invalid:
            return (
                f"{len(invalid)} of its weights are not finite either ({', '.join(invalid[:3])}): "
                "the policy itself is broken. Delete the newest checkpoint and resume from the one "
                "before with a lower learning rate: a phase's objective.learning_rate_factor."
            )
        return (
            "Its weights are finite, so the cause is in the sampling settings: "
            f"{self.settings.suspects}."
        )

    @contextmanager
    def request_failure_named(self, num_prompt_tokens: int) -> Iterator[None]:
        """An error of one request, told from the end of vLLM."""
        from vllm.v1.engine.exceptions import EngineDeadError

        try:
            yield
        except EngineDeadError:
            raise
        except Exception as error:  # vLLM's own errors of a request have no common base
            raise RequestError(
                f"{self.settings.name} failed to sample a prompt of {num_prompt_tokens} tokens: "
                f"{type(error).__name__}: {error}"
            ) from error

    @contextmanager
    def core_death_named(self) -> Iterator[None]:
        """Raise if vLLM's own process, behind this one, is gone."""
        from vllm.v1.engine.exceptions import EngineDeadError

        try:
            yield
        except EngineDeadError as error:
            raise ActorDiedError(f"{self.settings.name}'s vLLM process died: {error}") from error

    async def check_health(self) -> None:
        """Answer, if this process and vLLM's behind it are alive.

        Raises:
            ActorDiedError: vLLM's is not.
        """
        with self.core_death_named():
            await self.engine.check_health()

    @while_core_lives
    async def pause(self, *, in_flight: bool) -> None:
        """Sample nothing until `resume`, and clear the caches.

        Args:
            in_flight: running requests stop where they are and go on after `resume`, once their
                tokens so far are computed again; else they are finished first.
        """
        await self.engine.pause_generation(mode="keep" if in_flight else "wait", clear_cache=True)

    @while_core_lives
    async def resume(self) -> None:
        await self.engine.resume_generation()

    @while_core_lives
    async def sleep(self) -> None:
        """Offload weights and cache: `wake` reloads both, with new weights in between.

        vLLM's CPU engine stops working too, but keeps its memory.
        """
        await self.engine.sleep(level=2, mode="wait")
        self.log.info("asleep")

    @while_core_lives
    async def wake(self, part: str) -> None:
        """Take memory again for the "weights", which are then to be sent, or for the "kv_cache"."""
        is_awake = await self.engine.wake_up(tags=[part])
        self.log.info("awake: %s%s", part, " and all" if is_awake else "")

    @while_core_lives
    async def init_weight_transfer_engine(self, init_info: dict[str, object]) -> None:
        from vllm.distributed.weight_transfer.base import WeightTransferInitRequest

        await self.engine.init_weight_transfer_engine(WeightTransferInitRequest(init_info))

    @while_core_lives
    async def start_weight_update(self) -> None:
        await self.engine.start_weight_update()

    @while_core_lives
    async def update_weights(
        self, update_info: dict[str, object] | list[dict[str, object]]
    ) -> None:
        from vllm.distributed.weight_transfer.base import WeightTransferUpdateRequest

        await self.engine.update_weights(WeightTransferUpdateRequest(update_info))

    @while_core_lives
    async def finish_weight_update(self, weight_version: str) -> None:
        await self.engine.finish_weight_update(weight_version=weight_version)
        self.log.step = int(weight_version)
        self.log.info("weights of policy version %s", weight_version)

    @while_core_lives
    async def abandon_weight_update(self) -> None:
        """Leave the weight group and an update that will not be finished; answers when done."""
        await self.engine.collective_rpc("abandon_weight_update")

    @while_core_lives
    async def weight_version(self) -> str:
        return await self.engine.get_weight_version()

    @while_core_lives
    async def received_checksums(self) -> list[dict[str, int]]:
        """One map per worker of this engine: tensor name to checksum as it arrived."""
        return list(await self.engine.collective_rpc("received_checksums"))

    @while_core_lives
    async def on_workers(self, method: str, *args: object) -> list[Any]:
        """Call a method of the worker extension on every worker."""
        return list(await self.engine.collective_rpc(method, args=args))

    async def stop(self) -> None:
        """End vLLM's own processes."""
        if self.watching is not None:
            self.watching.cancel()
        if self.llm is not None:
            await asyncio.to_thread(self.llm.shutdown)
            self.llm = None
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
