"""One rank of the learner: the DeepSpeed engine and its end of the weight broadcast.

Plain Python; `cluster` makes an actor of it. Ranks are built in two steps, because rank 0 must
be somewhere before the others can be told where to meet it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from cluster.actor_log import ActorLog
from cluster.address import free_port, own_address
from cluster.imports import importing
from cluster.progress_board import Progress, ProgressBoard
from cluster.weight_sync.engine_client import EngineClient, SentWeights
from learner.node_files import NodeFiles
from learner.recipe import LearnerRecipe
from learner.step_data import StepData
from mgrpo.types import Selection, UpdateResult

if TYPE_CHECKING:
    from learner.deepspeed_learner import DeepSpeedLearner
    from learner.offload import Part


class LearnerRank(NodeFiles):
    """What the loop calls on every learner actor; each call goes to all ranks at once."""

    def __init__(
        self,
        recipe: LearnerRecipe,
        *,
        model_dir: str,
        rank: int,
        num_ranks: int,
        device: str,
        find_model: Callable[[], str] | None = None,
        max_row_tokens: int | None = None,
    ) -> None:
        self.recipe = recipe
        self.model_dir, self.find_model = model_dir, find_model
        self.rank, self.num_ranks = rank, num_ranks
        self.device, self.max_row_tokens = device, max_row_tokens
        self.log = ActorLog(f"learner-rank-{rank}")
        self.board = ProgressBoard()
        self.transfer: Any = None
        self.client: EngineClient | None = None

    def progress(self) -> Progress:
        """How far the call is that runs; asked beside it (`RemoteActor.look`)."""
        return self.board.read()

    def meeting_point(self) -> tuple[str, int]:
        """Address and free port of this process's node."""
        return own_address(), free_port()

    def start(self, master_address: str, master_port: int) -> None:
        """Load the policy and meet the other ranks."""
        # Read when torch is first imported. By default OpenMP's threads spin while they wait,
        # which on cores shared with an engine made an update ten times slower.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        with importing():
            from learner.deepspeed_learner import DeepSpeedLearner

        self.learner: DeepSpeedLearner = DeepSpeedLearner(
            recipe=self.recipe,
            model_dir=self.find_model() if self.find_model else self.model_dir,
            rank=self.rank,
            num_ranks=self.num_ranks,
            master_address=master_address,
            master_port=master_port,
            device="cuda" if self.device == "cuda" else "cpu",
            max_row_tokens=self.max_row_tokens,
            board=self.board,
        )
        with importing():  # seconds, which the engines load in
            from cluster.weight_sync.weight_sending import open_sender

        self.open_sender = open_sender

    def connect(
        self, client: EngineClient, *, backend: str, address: str, port: int, num_receivers: int
    ) -> None:
        """Join a new weight group; rank 0 also makes the engines join it."""
        self.disconnect()

        weights = self.recipe.weights
        self.client = client
        client.progress = self.board
        self.transfer = self.open_sender(
            self.learner,
            client,
            backend=backend,
            rank=self.rank,
            master_address=address,
            master_port=port,
            num_receivers=num_receivers,
            timeout_s=self.recipe.weight_sync_s,
            with_checksums=weights.verify_checksums,
            packed_buffer_bytes=weights.packed_buffer_mib << 20,
        )
        if backend == "nccl" and self.rank == 0:
            import torch

            # vLLM leaves a stream of its own as the current one. DeepSpeed gathers on the default
            # stream, and would not wait for what an update writes elsewhere.
            torch.cuda.set_stream(torch.cuda.default_stream())

    def disconnect(self) -> None:
        """Leave the weight group, if in one."""
        transfer, self.transfer = self.transfer, None
        if transfer is not None:
            transfer.shutdown()

    def update(self, given: StepData) -> UpdateResult | None:
        """One update of the policy; rank 0 reports (see DeepSpeedLearner.update)."""
        completions, parents, replayed = given.unpacked(with_texts=self.learner.needs_texts)
        self.log.step = given.step
        self.log.info("update · %d completions", len(completions))
        self.board.did("an update")
        return self.learner.update(completions, parents, step=given.step, replayed=replayed)

    def begin_update(self, step: int) -> None:
        """Begin an update to which trees are added (see DeepSpeedLearner.begin_update)."""
        self.log.step = step
        self.learner.begin_update(step=step)

    def add_trees(self, given: StepData) -> list[Selection]:
        """Forward and backward of whole trees; the selection of each of their completions."""
        completions, parents, _ = given.unpacked(with_texts=self.learner.needs_texts)
        self.log.info("update · %d more completions", len(completions))
        self.board.did("a part of an update")
        return self.learner.add_trees(completions, parents)

    def finish_update(self, given: StepData) -> UpdateResult | None:
        """The optimizer step of the update that was begun; rank 0 reports."""
        _, _, replayed = given.unpacked(with_texts=self.learner.needs_texts)
        return self.learner.finish_update(replayed=replayed)

    def sequence_logprobs(self, given: StepData) -> list[float]:
        """Of each completion, under the weights now (see DeepSpeedLearner.sequence_logprobs)."""
        completions, _, _ = given.unpacked(with_texts=False)
        return self.learner.sequence_logprobs(completions, step=given.step)

    def state_bytes(self) -> int:
        """All ranks' states in files, about."""
        return self.learner.state_bytes

    def leave_gpu(self, part: Part) -> None:
        """Make room for an engine on the same GPU: the "optimizer" first, then the "weights"."""
        self.learner.offload.leave(part)
        if self.device == "cuda":
            held = self.learner.offload.held_bytes / 2**30
            self.log.info("%s away · %.2f GiB still held", part, held)

    def return_to_gpu(self) -> None:
        """Take back what left."""
        self.learner.offload.come_back()

    def send_weights(self, policy_version: int) -> SentWeights:
        """Broadcast to every engine. Rank 0 has the checksum of each tensor as sent."""
        assert self.client is not None, "connect() comes first"
        self.client.version = str(policy_version)
        self.transfer.source.iterating = None
        try:
            self.transfer.send_weights()
        except BaseException:
            self.transfer.source.finish_iteration()
            self.disconnect()  # or the engines would go on waiting for the rest
            raise
        source = self.transfer.source
        return SentWeights(dict(source.sent), source.num_bytes)

    def probe_logprobs(self, token_ids: list[int]) -> list[float]:
        return self.learner.probe_logprobs(token_ids)

    def save_policy(self, directory: str) -> None:
        self.learner.save_policy(directory)

    def save_state(self, directory: str, policy_version: int) -> bool:
        """Write the learner's state, if it still is that of `policy_version`.

        Returns:
            False, with nothing written, where an update has been made since.
        """
        if self.learner.policy_version != policy_version:
            return False
        self.learner.save_state(directory)
        return True

    def reads(self, names: list[str]) -> list[str]:
        """Those of a state's files that `load_state` needs here."""
        return self.learner.shard.reads(names)

    def load_state(self, directory: str) -> int:
        """Continue from `save_state`; returns the policy version."""
        self.learner.load_state(directory)
        return self.learner.policy_version

    def close(self) -> None:
        self.disconnect()
        self.learner.close()
