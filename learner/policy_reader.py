"""Forward passes without gradient: what the learner and its plug-ins measure of any texts.

Each rank reads texts of its own, micro-batch by micro-batch, and gets what it found of them. Every
rank must call its reader alike, also one without texts: weights may be sharded, so all take part in
each pass. The time that a pass takes is added up under the name of the measurement that it is for.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import accumulate
from time import perf_counter
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch import distributed as dist

from cluster.progress_board import ProgressBoard
from learner.columns import Metrics, StepBatch
from learner.packing import PAD_TOKEN_ID, Microbatch, collate, plan_rows
from learner.rows import TrainingRow, text
from learner.token_states import TokenStates, Visit
from mgrpo.config import LearnerConfig
from mgrpo.errors import LearnerError

Weights = Literal["policy", "reference", "ema"]
"""Whose weights read: the policy's as they are, those it began with, or their running average."""
OTHER_LOGPROBS: dict[str, Weights] = {"ref_logprobs": "reference", "ema_logprobs": "ema"}
"""Measurements under other weights than the policy's."""


class PolicyReader:
    """Reads texts with the policy, the reference or the average; see the module."""

    def __init__(
        self,
        models: Mapping[Weights, object],
        *,
        settings: LearnerConfig,
        temperature: float,
        merges_prefixes: bool,
        hidden_size: int,
        device: torch.device | str = "cpu",
        num_ranks: int = 1,
        board: ProgressBoard | None = None,
    ) -> None:
        """
        Args:
            models: each called with `PolicyModel.forward`'s arguments.
            temperature: that logits are divided by.
            merges_prefixes: the models can read prefix trees.
            hidden_size: of the last layer's states, D.
            board: is told of each pass.
        """
        self.models, self.settings, self.temperature = models, settings, temperature
        self.merges_prefixes, self.hidden_size = merges_prefixes, hidden_size
        self.device = torch.device(device)
        self.num_ranks = num_ranks
        self.board = board or ProgressBoard()
        self.seconds: dict[str, float] = defaultdict(float)  # by measurement, of this rank

    # --- what plug-ins may ask ------------------------------------------------------------------

    @torch.no_grad()
    def logprobs(
        self,
        texts: Sequence[TrainingRow],
        *,
        weights: Weights = "policy",
        measurement: str = "policy_logprobs",
    ) -> Tensor:
        """[m] float64 log-probabilities on the CPU, of the texts' tokens end to end, in nats.

        Args:
            texts: rows of a step, or made by `text`.
            measurement: under what name the time is counted.
        """
        return self._token_values(texts, weights, measurement, with_entropies=False)[0]

    @torch.no_grad()
    def last_states(
        self,
        texts: Sequence[TrainingRow],
        *,
        weights: Weights = "policy",
        measurement: str = "hidden_last",
    ) -> Tensor:
        """[len(texts), D] float32 on the CPU: the last layer's state once all of a text is read.

        That is the state of its last token, normalised as the output layer gets it.
        """
        # The last token must be read too, so one more is "predicted" after it.
        whole = [
            text(np.concatenate([one.prompt_token_ids, one.token_ids]), [PAD_TOKEN_ID])
            for one in texts
        ]
        found = torch.zeros((len(texts), self.hidden_size), dtype=torch.float32, device=self.device)

        def keep(states: TokenStates) -> None:
            found[states.places] = states.hidden.float()

        self.visit(whole, keep, weights=weights, measurement=measurement)
        return found.cpu()

    def prompt_states(self, texts: Sequence[TrainingRow]) -> Tensor:
        """[len(texts), D] as `last_states`, once a text's prompt is read. Equal prompts are read
        once."""
        prompts = [one.prompt_token_ids.tobytes() for one in texts]
        places = {prompt: place for place, prompt in enumerate(dict.fromkeys(prompts))}
        distinct = [np.frombuffer(prompt, dtype=np.int32) for prompt in places]
        states = self.last_states([text(one, []) for one in distinct], measurement="hidden_prompt")
        return states[[places[prompt] for prompt in prompts]]

    @torch.no_grad()
    def visit(
        self,
        texts: Sequence[TrainingRow],
        visit: Visit,
        *,
        weights: Weights = "policy",
        measurement: str,
    ) -> None:
        """Show every token to a visitor once, a few tokens at a time.

        `TokenStates.places` count the tokens of the texts end to end. Memory does not grow with
        the texts: what the visitor keeps of them is its own, and so is adding it up over ranks
        (`sum`).
        """
        first_tokens = first_token_of(texts)

        def ignore(states: TokenStates) -> None:
            pass

        with self.timed(measurement):
            for indices, microbatch in self.microbatches(texts):
                if microbatch.is_empty:
                    self.show(weights, microbatch, ignore)
                    continue
                places = places_of(indices, first_tokens).to(self.device)

                def show(states: TokenStates, places: Tensor = places) -> None:
                    visit(replace(states, places=places[states.places]))

                self.show(weights, microbatch, show)

    def visit_completions(
        self,
        batch: StepBatch,
        places: Collection[int],
        visit: Visit,
        *,
        weights: Weights = "policy",
        measurement: str,
    ) -> None:
        """`visit` for those of some completions that this rank holds, with places among the
        batch's M tokens."""
        is_read = torch.zeros(len(batch.completions), dtype=torch.bool)
        is_read[sorted(places)] = True
        in_step = batch.spread(is_read).nonzero()[:, 0].to(self.device)
        held = [batch.completions[place] for place in batch.held if is_read[place]]
        texts = [text(one.prompt_token_ids, one.token_ids) for one in held if len(one.token_ids)]

        def show(states: TokenStates) -> None:
            visit(replace(states, places=in_step[states.places]))

        self.visit(texts, show, weights=weights, measurement=measurement)

    def sum(self, values: Tensor) -> Tensor:
        """Add up over ranks, in place; on any device."""
        if self.num_ranks == 1:
            return values
        on_device = values.to(self.device)
        dist.all_reduce(on_device)
        values.copy_(on_device)
        return values

    # --- what the learner measures --------------------------------------------------------------

    @torch.no_grad()
    def measure(self, texts: Sequence[TrainingRow], wanted: Collection[str]) -> dict[str, Tensor]:
        """`learner.plugin.Measurement`s of the texts by name: [m] float64, or [n, D] float32 of
        states."""
        found: dict[str, Tensor] = {}
        # One pass gives both.
        of_policy = [name for name in ("policy_logprobs", "entropies") if name in wanted]
        if of_policy:
            values = self._token_values(
                texts, "policy", of_policy[0], with_entropies="entropies" in wanted
            )
            both = dict(zip(("policy_logprobs", "entropies"), values, strict=False))
            found |= {name: both[name] for name in of_policy}
        for name, whose in OTHER_LOGPROBS.items():
            if name in wanted:
                found[name] = self.logprobs(texts, weights=whose, measurement=name)
        if "hidden_last" in wanted:
            found["hidden_last"] = self.last_states(texts)
        if "hidden_prompt" in wanted:
            found["hidden_prompt"] = self.prompt_states(texts)
        return found

    def costs(self) -> Metrics:
        """Seconds by measurement since this was last asked, and forget them."""
        found = {f"measurements/{name}_s": (value, 1.0) for name, value in self.seconds.items()}
        self.seconds.clear()
        return found

    @contextmanager
    def timed(self, measurement: str) -> Iterator[None]:
        """Count the time of what is done within."""
        began = self._now()
        yield
        self.seconds[measurement] += self._now() - began

    def _now(self) -> float:
        """Seconds; work that a GPU was given is done."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return perf_counter()

    def _token_values(
        self,
        texts: Sequence[TrainingRow],
        weights: Weights,
        measurement: str,
        *,
        with_entropies: bool,
    ) -> Tensor:
        """[1 or 2, m] log-probabilities and entropies of the texts' tokens end to end."""
        first_tokens = first_token_of(texts)
        shape = (1 + with_entropies, first_tokens[-1])
        values = torch.zeros(shape, dtype=torch.float64, device=self.device)
        with self.timed(measurement):
            for indices, microbatch in self.microbatches(texts):
                found = self.call(weights, microbatch, with_entropies=with_entropies)
                if not microbatch.is_empty:
                    places = places_of(indices, first_tokens).to(self.device)
                    values[:, places] = torch.stack(found[: len(values)]).double()
            return values.cpu()

    # --- passes ---------------------------------------------------------------------------------

    def plan(self, rows: Sequence[TrainingRow]) -> list[list[int]]:
        """The rows of each micro-batch of this rank, as places among its rows.

        Every rank gets the same number of micro-batches, some of them empty where its rows run
        out, because sharded weights (ZeRO-3) and collectives need all ranks in each pass.
        """
        plan = plan_rows(
            rows,
            budget_tokens=self.settings.microbatch_tokens,
            merge_prefixes=self.merges_prefixes,
        )
        most = torch.tensor(len(plan), device=self.device)
        if self.num_ranks > 1:
            dist.all_reduce(most, dist.ReduceOp.MAX)
        return plan + [[] for _ in range(int(most) - len(plan))]

    def microbatches(self, rows: Sequence[TrainingRow]) -> Iterator[tuple[list[int], Microbatch]]:
        """The micro-batches one by one, with the indices of their rows."""
        for indices in self.plan(rows):
            yield indices, self.collated([rows[index] for index in indices])

    def collated(self, rows: Sequence[TrainingRow]) -> Microbatch:
        """The tensors of one micro-batch, as the models read it."""
        return collate(rows, self.device, merge_prefixes=self.merges_prefixes)

    def call(
        self, weights: Weights, microbatch: Microbatch, *, with_entropies: bool = True
    ) -> tuple[Tensor, Tensor]:
        """[n] log-probabilities and entropies ([0] without them) of a micro-batch's tokens."""
        return microbatch.read_by(
            self._model(weights),
            temperature=self.temperature,
            chunk_tokens=self.settings.logprob_chunk_tokens,
            with_entropies=with_entropies,
        )

    def show(self, weights: Weights, microbatch: Microbatch, visit: Visit) -> None:
        """Show a micro-batch's tokens to a visitor, those of every row."""
        self._model(weights)(
            microbatch.input_ids,
            microbatch.positions,
            microbatch.target_ids,
            self.temperature,
            self.settings.logprob_chunk_tokens,
            microbatch.prefix_tree,
            visit,
        )

    def _model(self, weights: Weights) -> Any:
        self.board.did(f"a forward pass of the {weights}")
        if weights not in self.models:
            raise LearnerError(
                f"The {weights} was asked to read and is not loaded: a plug-in that reads with it "
                "needs `needs_reference`, or `ema`, and there is neither without a learner."
            )
        return self.models[weights]


def first_token_of(rows: Sequence[TrainingRow]) -> list[int]:
    """[n + 1] place of each row's first token among those of all rows, and how many there are."""
    return [0, *accumulate(len(row.token_ids) for row in rows)]


def places_of(indices: Sequence[int], first_tokens: Sequence[int]) -> Tensor:
    """Places of the tokens of some rows, in the order of the rows."""
    return torch.cat(
        [torch.arange(first_tokens[index], first_tokens[index + 1]) for index in indices]
    )
