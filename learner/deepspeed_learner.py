"""The learner: one instance per rank, each in its own process. The only DeepSpeed import.

Every rank is given the rewards, lengths and groups of all completions of a step and decides the
same about each, but lays out the tokens of its own trees alone, so little but gradients and sums
travels between ranks (`learner.columns`). The loss is a sum with its global
denominators already inside (`learner.batch`); DeepSpeed averages gradients over ranks, so the
local sum is multiplied by their number. `managed_gradient_accumulation: false` lets any number
of backward passes add up, undivided, until `step()`.
"""

from __future__ import annotations

import ipaddress
import logging
import math
import os
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch import distributed as dist

from cluster.progress_board import ProgressBoard
from cluster.weight_sync.gloo_group import listening_socket, loopback_interface
from learner.batch import TrainingBatch, build_batch, with_added
from learner.columns import Metrics
from learner.deepspeed_config import (
    effective_zero_stage,
    engine_config,
    is_bfloat16,
    reference_config,
)
from learner.ema_policy import EmaPolicy, ema_schedule
from learner.export import write_policy
from learner.hub_weights import HubWeights, whole_bytes
from learner.logprobs import PolicyModel
from learner.nonfinite import explained
from learner.offload import StateOffload
from learner.packing import split_rows
from learner.plain_states import load_plain, refuse_other_objects, save_plain
from learner.plugin import LearnerPlugin
from learner.policy_loading import load_policy
from learner.policy_proofs import prove_policy
from learner.recipe import LearnerRecipe
from learner.replay import replayed_rows
from learner.rows import Minibatch
from learner.sequence_logprobs import sequence_logprobs
from learner.state_files import Shard
from learner.streamed_update import StreamedUpdate
from learner.trainer import Trainer
from learner.zero_parts import ZeroParts
from mgrpo.config import StepConfig
from mgrpo.errors import DeadlineError, LearnerError, RunDirectoryError
from mgrpo.plugin import load_plugins
from mgrpo.types import Completion, Replayed, Selection, UpdateResult

logger = logging.getLogger(__name__)

GATHER_BUCKET_BYTES = 256 * 2**20
"""Sharded weights are put together this many bytes at a time."""
COMMON_FILE = "common.pt"
"""What all ranks know alike of a saved state: its policy version, what plug-ins remember."""
PATIENCE_OF_RANKS = 3
"""Times `cluster.deadlines.update_s` that ranks wait for each other: one may write files while the
others wait. A rank that hangs is found earlier, by the driver."""


class DeepSpeedLearner:
    """Turns scored completions into a better policy. All ranks call every method together."""

    def __init__(
        self,
        *,
        recipe: LearnerRecipe,
        model_dir: str,
        rank: int,
        num_ranks: int,
        master_address: str,
        master_port: int,
        device: Literal["cpu", "cuda"],
        reference_dir: str | None = None,
        max_row_tokens: int | None = None,
        board: ProgressBoard | None = None,
    ) -> None:
        """Load the policy and meet the other ranks.

        Args:
            model_dir: the policy to train, in Hugging Face form.
            master_address, master_port: where rank 0 listens for the others.
            reference_dir: the frozen policy of the KL penalty; None: `model_dir`.
            max_row_tokens: longest sequence of the run; None: any that the model can read.
            board: is told of each piece of work.

        Raises:
            ModelError: the policy cannot be loaded or trained.
            LearnerError: the ranks cannot meet, as where the port was taken meanwhile.
            DeadlineError: the other ranks did not come.
        """
        self.recipe, self.rank, self.num_ranks = recipe, rank, num_ranks
        self.model_dir, self.max_row_tokens = model_dir, max_row_tokens
        self.board = board or ProgressBoard()
        self.policy_version = 0
        self.plugins = load_plugins(recipe.method, LearnerPlugin)
        self.settings = recipe.settings
        self.device = use_device(device, rank)
        self._is_bf16 = is_bfloat16(self.settings.dtype, recipe.model_dtype, device)
        self._zero_stage = effective_zero_stage(self.settings, is_bf16=self._is_bf16)
        if device == "cpu":
            cores = os.cpu_count() or 1
            torch.set_num_threads(self.settings.num_threads or max(1, cores // num_ranks))
        self._deepspeed = import_deepspeed(device)
        self.join_ranks(master_address, master_port, backend="nccl" if device == "cuda" else "gloo")
        self._dtype = torch.bfloat16 if self._is_bf16 else torch.float32
        self.policy = self._load(
            model_dir, gradient_checkpointing=self.settings.gradient_checkpointing
        )
        self._whole_grad_norm = 0.0
        self.engine = self.start_engine()
        self.shard = Shard(self._zero_stage, rank, num_ranks)
        self.parts = ZeroParts(self.engine, self.optimizer, self.shard)
        self._hub_weights = HubWeights(self.policy.causal_lm)
        prove_policy(
            self.policy,
            self.engine,
            merge_prefixes=self.settings.merge_prefixes,
            device=self.device,
            max_row_tokens=max_row_tokens,
            chunk_tokens=self.settings.logprob_chunk_tokens,
        )
        self.ema = self._load_ema()
        reference = self._load_reference(reference_dir or model_dir)
        self._trainer = Trainer(
            recipe=recipe,
            engine=self.engine,
            reference=reference,
            ema=None if self.ema is None else self.ema.model,
            optimizer=self.optimizer,
            plugins=self.plugins,
            grad_norm=self._grad_norm,
            num_ranks=num_ranks,
            device=self.device,
            board=self.board,
        )
        for plugin in self.plugins:
            plugin.start(self.device)
        frozen = [reference, self.ema, *(m for plugin in self.plugins for m in plugin.models())]
        self.offload = StateOffload(self.engine, [m for m in frozen if m is not None], self.device)

    def update(
        self,
        completions: Sequence[Completion],
        context: Sequence[Completion] = (),
        *,
        step: int = 0,
        replayed: Sequence[Replayed] = (),
    ) -> UpdateResult | None:
        """Train on one step's completions; rank 0 returns what happened, others None.

        Args:
            completions: all of the step, scored, groups whole, the same list on every rank.
            context: parents that corrections are compared with but that do not train now.
            step: of the run, for what changes on the way.
            replayed: corrections of earlier steps that train again.

        Raises:
            LearnerError: the completions are inconsistent, or the loss or gradient is not
                finite (and `learner.max_nonfinite_updates` is reached); the weights are then as
                before.
        """
        values = self.recipe.method.at_step(step)
        self._trainer.set_values(values)
        batch = self._batch(completions, context, values, step)
        if self.rank == 0:
            for note in batch.notes:
                logger.warning(note)
        again = replayed_rows(replayed)
        share = split_rows([row.num_input_tokens for row in again], self.num_ranks)[self.rank]
        first, *others = batch.minibatches or [Minibatch([])]
        first = replace(first, rows=[*first.rows, *(again[place] for place in share)])
        metrics = {
            **batch.metrics,
            **self._trainer.train([first, *others], self.policy_version, values),
            **self._trainer.reader.costs(),
        }
        return self._updated(metrics, batch.selections)

    def begin_update(self, *, step: int = 0) -> None:
        """Begin an update to which whole trees are added as they are sampled.

        What was begun before and not finished is forgotten.
        """
        values = self.recipe.method.at_step(step)

        def batch_of(
            completions: Sequence[Completion], context: Sequence[Completion]
        ) -> TrainingBatch:
            return self._batch(completions, context, values, step, is_part=True)

        self._streamed = StreamedUpdate(
            self._trainer, values, batch_of, rank=self.rank, num_ranks=self.num_ranks
        )

    def add_trees(
        self, completions: Sequence[Completion], context: Sequence[Completion] = ()
    ) -> list[Selection]:
        """Forward and backward of some trees of the update that was begun, the same on every rank.

        Returns:
            The selection of each completion.

        Raises:
            LearnerError: the completions are inconsistent, or came before.
        """
        return self._streamed.add(completions, context)

    def finish_update(self, *, replayed: Sequence[Replayed] = ()) -> UpdateResult | None:
        """Take the optimizer step of the update that was begun; rank 0 returns what happened.

        Its selections are those that `add_trees` returned, so here there are none.

        Raises:
            LearnerError: the loss or gradient is not finite; the weights are then as before.
        """
        again = replayed_rows(replayed)
        return self._updated(self._streamed.finish(self.policy_version, again), [])

    def _batch(
        self,
        completions: Sequence[Completion],
        context: Sequence[Completion],
        values: StepConfig,
        step: int,
        *,
        is_part: bool = False,
    ) -> TrainingBatch:
        completions = with_added(completions, context, self.plugins)
        return build_batch(
            completions,
            values.layers,
            values.objective,
            context=context,
            plugins=self.plugins,
            step=step,
            policy=self._trainer.reader,
            rank=self.rank,
            num_ranks=self.num_ranks,
            add_over_ranks=self._trainer.reader.sum,
            is_part=is_part,
            policy_version=self.policy_version if self.recipe.method.num_ahead else None,
        )

    def _updated(self, metrics: Metrics, selections: list[Selection]) -> UpdateResult | None:
        """After the optimizer step."""
        self.policy_version += 1
        said, self._trainer.warnings = self._trainer.warnings, []
        if self.ema is not None:
            self.ema.update(self.policy_version)
        if self.rank != 0:
            return None
        return UpdateResult(
            policy_version=self.policy_version,
            metrics={**metrics, **self.offload.take_peak()},
            selections=selections,
            warnings=said,
        )

    @property
    def needs_texts(self) -> bool:
        """May anything look at what completions say?"""
        return bool(self.plugins)

    def sequence_logprobs(self, completions: Sequence[Completion], *, step: int) -> list[float]:
        """[n] log-probability of each completion under the weights now, in nats, the same on all
        ranks. Tokens that may not train are not counted."""
        self._trainer.set_values(self.recipe.method.at_step(step))
        reader = self._trainer.reader
        lengths = [len(one.prompt_token_ids) + len(one.token_ids) for one in completions]
        share = split_rows(lengths, self.num_ranks)[self.rank]
        found = torch.zeros(len(completions), dtype=torch.float64)
        found[share] = sequence_logprobs([completions[place] for place in share], reader)
        return reader.sum(found).tolist()

    @torch.no_grad()
    def probe_logprobs(self, token_ids: list[int]) -> list[float]:
        """Log-probability of each token after the first, given those before, at temperature 1.

        Raises:
            LearnerError: one is not finite; it names the weights that are not.
        """
        if len(token_ids) < 2:
            raise LearnerError(f"A probe needs at least 2 tokens, not {len(token_ids)}.")
        tokens = torch.tensor(token_ids, device=self.device)
        positions = torch.arange(len(token_ids) - 1, device=self.device)
        logprobs, _ = self.engine(
            tokens[None, :-1], positions, tokens[1:], 1.0, self.settings.logprob_chunk_tokens
        )
        found: list[float] = logprobs.tolist()
        if not all(map(math.isfinite, found)):
            raise LearnerError(
                f"After update {self.policy_version} the policy's log-probabilities of a fixed "
                f"prompt are not finite. {explained([self._trainer.suspects()])}"
            )
        return found

    # --- weights -------------------------------------------------------------------------------

    def weight_metadata(self) -> list[tuple[str, str, tuple[int, ...]]]:
        """(name, dtype, shape) of every weight, in the order of `iter_weights`.

        Names are those of the hub's files, dtypes torch's without the prefix ("bfloat16"). Tied
        weights stand once, under their first name.
        """
        weights = self._hub_weights
        return [
            (name, self._sent_dtype(names, dtype), shape)
            for names, shapes in zip(weights.groups, weights.shapes, strict=True)
            for name, dtype, shape in shapes
        ]

    def _sent_dtype(self, names: Sequence[str], dtype: torch.dtype) -> str:
        """Weights of the type that is computed in are sent in `model.dtype`. Others and buffers
        stay what they are: engines have those wider, too."""
        tensors = [self._hub_weights.tensors[name] for name in names]
        is_weight = all(isinstance(one, torch.nn.Parameter) for one in tensors)
        is_cast = is_weight and dtype == self._dtype
        return self.recipe.model_dtype if is_cast else str(dtype).removeprefix("torch.")

    def iter_weights(self) -> Iterator[tuple[str, Tensor]]:
        """Every weight, whole and as `weight_metadata` says, in the same order on all ranks.

        All ranks must iterate to the end: under ZeRO-3 each takes part in putting the weights
        together. A tensor is only good until the next one is asked for.
        """
        weights = self._hub_weights
        for bucket in self._weight_buckets():
            self.board.did("gathering weights")
            with self._gathered([weights.tensors[name] for names in bucket for name in names]):
                for names in bucket:
                    values = {name: weights.tensors[name].detach() for name in names}
                    for name, tensor in weights.convert(values).items():
                        self.board.did(f"the weight {name}")
                        dtype = getattr(torch, self._sent_dtype(names, tensor.dtype))
                        yield name, tensor.to(dtype).contiguous()

    def _weight_buckets(self) -> Iterator[list[list[str]]]:
        """Groups of tensors that are converted together, about GATHER_BUCKET_BYTES at a time."""
        bucket: list[list[str]] = []
        num_bytes = 0
        for names in self._hub_weights.groups:
            bucket.append(names)
            num_bytes += sum(whole_bytes(self._hub_weights.tensors[name]) for name in names)
            if num_bytes >= GATHER_BUCKET_BYTES:
                yield bucket
                bucket, num_bytes = [], 0
        if bucket:
            yield bucket

    @contextmanager
    def _gathered(self, tensors: list[object]) -> Iterator[None]:
        """Parameters whole, for readers on any CUDA stream.

        vLLM packs what is sent on two streams in turn, and streams do not wait for each other:
        under ZeRO-3 a parameter could be packed before it has arrived, or its memory be filled
        with the next ones while it is being packed. So the device comes to rest at both ends.
        """
        parameters = [one for one in tensors if hasattr(one, "ds_shape")]
        if not parameters:
            yield
            return
        with self._deepspeed.zero.GatheredParameters(parameters, modifier_rank=None):
            self._rest()
            yield
            self._rest()

    def _rest(self) -> None:
        """Wait until everything that the device was given to do is done."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def save_policy(self, directory: str) -> None:
        """Write the policy in Hugging Face form: whole or not at all. Rank 0 writes.

        Raises:
            RunDirectoryError: on rank 0, when the disk refuses.
        """
        state = {}
        for name, tensor in self.iter_weights():
            if self.rank == 0:
                state[name] = tensor.to("cpu", copy=True)
        try:
            if self.rank == 0:
                write_policy(
                    Path(directory),
                    self.policy.causal_lm,
                    state,
                    source_dir=Path(self.model_dir),
                    dtype_name=self.recipe.model_dtype,
                )
        finally:
            dist.barrier()

    @property
    def state_bytes(self) -> int:
        """About what `save_state` writes on all ranks: in float32 weights and Adam's two moments,
        and the average, if there is one."""
        num_kinds = 3 if self.ema is None else 4
        return sum(self.parts.sizes.values()) * num_kinds * 4

    def save_state(self, directory: str) -> None:
        """Write all that an exact resume needs: weights as trained, optimizer, version.

        Every rank writes its own shard, so `directory` must be one that all ranks see.
        """
        self.board.did("writing its state")
        plugins = [plugin.state_dict() for plugin in self.plugins]
        for plugin, state in zip(self.plugins, plugins, strict=True):
            refuse_other_objects(state, type(plugin).__name__)
        folder = Path(directory)
        try:
            self.parts.save(folder)
            if self.ema is not None:
                self.ema.save(folder, self.shard)
            if self.rank == 0:
                save_plain(
                    {"policy_version": self.policy_version, "plugins": plugins},
                    folder / COMMON_FILE,
                )
        finally:
            dist.barrier()  # so that where one rank fails, no other writes any more

    def load_state(self, directory: str) -> None:
        """Continue from `save_state`, of any number of ranks and any ZeRO stage.

        Raises:
            RunDirectoryError: there is no such state, it is damaged, or it is of another policy.
        """
        self.board.did("reading its state")
        folder = Path(directory)
        if not (folder / COMMON_FILE).is_file():
            raise RunDirectoryError(f"There is no learner state in {directory}.")
        common = load_plain(folder / COMMON_FILE)
        self.parts.load(folder)
        self.policy_version = int(common["policy_version"])
        self._load_plugins(common["plugins"])
        if self.ema is not None:
            self.ema.load(folder, self.shard)

    def _load_plugins(self, states: Sequence[dict[str, object]]) -> None:
        """Go on with what plug-ins remembered.

        Raises:
            RunDirectoryError: the checkpoint is of a recipe with other plug-ins.
        """
        if len(states) != len(self.plugins):
            raise RunDirectoryError(
                f"The learner's state has {len(states)} learner plug-ins, and this recipe has "
                f"{len(self.plugins)}. Resume with the recipe that saved it."
            )
        for plugin, state in zip(self.plugins, states, strict=True):
            plugin.load_state_dict(state)

    def close(self) -> None:
        """Free the engine and leave the group of ranks. A process can only meet them once."""
        self.engine.destroy()
        self.leave_ranks()

    # --- start-up ------------------------------------------------------------------------------

    def make_optimizer(self) -> torch.optim.Optimizer:
        """AdamW as torch ships it: DeepSpeed's own would be compiled at start-up. On a CPU in one
        pass over weights, gradients and moments; on a GPU torch chooses."""
        return torch.optim.AdamW(
            [parameter for parameter in self.policy.parameters() if parameter.requires_grad],
            lr=self.settings.learning_rate,
            betas=self.settings.betas,
            weight_decay=self.settings.weight_decay,
            fused=True if self.device.type == "cpu" else None,
        )

    def _load(
        self, model_dir: str, *, gradient_checkpointing: bool = False, merge_prefixes: bool = False
    ) -> PolicyModel:
        """Read a policy. Under ZeRO-3 transformers shards each weight as it reads it, so that no
        rank ever holds the whole model."""
        _while_it_lives = None
        if self._zero_stage == 3:
            from transformers.integrations import HfDeepSpeedConfig

            # transformers keeps a weak reference: leaving this function ends its effect.
            _while_it_lives = HfDeepSpeedConfig(
                engine_config(self.settings, num_ranks=self.num_ranks, is_bf16=self._is_bf16)
            )
        return load_policy(
            model_dir,
            dtype=self._dtype,
            gradient_checkpointing=gradient_checkpointing,
            merge_prefixes=merge_prefixes,
            max_row_tokens=self.max_row_tokens,
        )

    def start_engine(self) -> Any:
        """The DeepSpeed engine around the loaded policy."""
        self.board.did("starting DeepSpeed")
        if self._zero_stage < 3:
            self.policy.to(self.device)
        self.optimizer = self.make_optimizer()
        if self._zero_stage == 0:
            self.optimizer.register_step_pre_hook(self._clip_whole_gradient)
        self.optimizer.register_step_pre_hook(self._drop_large_gradient)
        engine, *_ = self._deepspeed.initialize(
            model=self.policy,
            optimizer=self.optimizer,
            config=engine_config(self.settings, num_ranks=self.num_ranks, is_bf16=self._is_bf16),
            dist_init_required=False,
        )
        return engine

    def _grad_norm(self) -> float:
        """Norm of the last step's whole gradient, before clipping."""
        if self._zero_stage == 0:
            return self._whole_grad_norm
        # The engine's own getter knows it only after the step.
        return float(self.engine.optimizer._global_grad_norm)

    def _clip_whole_gradient(self, *_: object) -> None:
        """Stage 0: every rank holds the whole averaged gradient when the optimizer steps."""
        norm = torch.nn.utils.clip_grad_norm_(self.policy.parameters(), self.settings.max_grad_norm)
        self._whole_grad_norm = float(norm)

    def _drop_large_gradient(self, optimizer: torch.optim.Optimizer, *_: object) -> None:
        """An optimizer that finds no gradient changes neither weights nor its own state; nor may it
        by a gradient whose norm is beyond its type. DeepSpeed skips that step by itself in some
        stages, and here it is the same in all.

        All ranks know the same norm by the time their optimizers step, so all drop it. DeepSpeed
        steps its optimizer once to make room for its state, before there is a norm.
        """
        if not hasattr(self, "engine"):
            return
        norm, limit = self._grad_norm(), self.settings.skip_above_grad_norm
        if math.isfinite(norm) and (limit is None or norm <= limit):
            return
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = None

    def _load_reference(self, reference_dir: str) -> Any:
        """The frozen policy; None where neither a KL penalty nor a plug-in needs it."""
        is_needed = self.recipe.method.max_kl_weight > 0 or any(
            plugin.needs_reference or "ref_logprobs" in plugin.wanted_measurements()
            for plugin in self.plugins
        )
        return self._load_frozen(reference_dir) if is_needed else None

    def _load_ema(self) -> EmaPolicy | None:
        """The policy's running average, which begins as the policy; None where no plug-in looks
        at it."""
        schedule = ema_schedule(self.plugins)
        if schedule is None:
            return None
        model = self._load_frozen(self.model_dir)
        return EmaPolicy(schedule, policy=self.policy, model=model)

    def _load_frozen(self, model_dir: str) -> Any:
        """A policy that does not train, sharded where the policy's weights are."""
        frozen = self._load(model_dir, merge_prefixes=self.policy.merges_prefixes)
        frozen.requires_grad_(False)
        if self._zero_stage < 3:
            return frozen.to(self.device)
        engine, *_ = self._deepspeed.initialize(
            model=frozen,
            config=reference_config(self.settings, num_ranks=self.num_ranks, is_bf16=self._is_bf16),
            dist_init_required=False,
        )
        engine.eval()  # returns nothing
        return engine

    def join_ranks(self, address: str, port: int, *, backend: str) -> None:
        """Join the other ranks; also with one rank, so that there is one path.

        Rank 0 listens at that address alone, and where it is of this machine alone, gloo does.
        """
        deadline_s = PATIENCE_OF_RANKS * self.recipe.update_s
        began = time.monotonic()
        self.board.did("meeting the other ranks")
        os.environ |= {
            "RANK": str(self.rank),
            "WORLD_SIZE": str(self.num_ranks),
            "LOCAL_RANK": str(self.device.index or 0),
            "MASTER_ADDR": address,
            "MASTER_PORT": str(port),
        }
        if ipaddress.ip_address(address).is_loopback:
            os.environ.setdefault("GLOO_SOCKET_IFNAME", loopback_interface())
        timeout = timedelta(seconds=deadline_s)
        try:
            listening = listening_socket(address, port).detach() if self.rank == 0 else None
            store = dist.TCPStore(
                address,
                port,
                self.num_ranks,
                is_master=self.rank == 0,
                timeout=timeout,
                wait_for_workers=False,
                master_listen_fd=listening,
            )
            dist.init_process_group(
                backend, store=store, rank=self.rank, world_size=self.num_ranks, timeout=timeout
            )
        except (dist.DistError, OSError) as error:
            if time.monotonic() - began < deadline_s:
                raise LearnerError(
                    f"Learner rank {self.rank} cannot meet the others at {address}:{port}: "
                    f"{error}. "
                    "If another program took that port meanwhile, repeat the command: it chooses "
                    "another one."
                ) from error
            raise DeadlineError(
                f"{self.num_ranks} learner ranks to meet at {address}:{port}",
                deadline_s=deadline_s,
                setting="cluster.deadlines.update_s",
                detail=str(error),
            ) from error
        self._deepspeed.init_distributed(
            dist_backend=backend, auto_mpi_discovery=False, verbose=False
        )

    def leave_ranks(self) -> None:
        """Undo `join_ranks`."""
        if dist.is_initialized():
            dist.destroy_process_group()


def use_device(device: Literal["cpu", "cuda"], rank: int) -> torch.device:
    """The CPU, or this rank's GPU: the only visible one, else by rank."""
    if device == "cpu":
        return torch.device("cpu")
    index = rank % torch.cuda.device_count()
    torch.cuda.set_device(index)
    return torch.device("cuda", index)


def import_deepspeed(device: Literal["cpu", "cuda"]) -> Any:
    """Import DeepSpeed for this device, with nothing that it would compile.

    It chooses its accelerator while it is imported, from DS_ACCELERATOR.
    """
    os.environ["DS_ACCELERATOR"] = device
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    import deepspeed

    deepspeed.utils.logger.setLevel(logging.WARNING)
    # It still calls torch's older name, once per reduction.
    warnings.filterwarnings("ignore", message=".*reduce_scatter_tensor. is deprecated")
    warnings.filterwarnings("ignore", message=".*all_gather_into_tensor. is deprecated")
    if device == "cpu":
        # Otherwise it compiles a shared-memory all-reduce where it finds a compiler; gloo's
        # own is used instead, so that machines with and without one do the same.
        deepspeed.ops.__dict__["__compatible_ops__"] = {}
    return deepspeed
