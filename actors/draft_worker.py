"""Speculative decoding inside vLLM's workers, with the same tokens as without it.

vLLM calls `Drafter` after each decode step for what may come next, computes the drafted tokens in
the next step, and asks `PositionSampler` which of them stand. That one samples each position as
the engine would have done without a draft, from the same random numbers, and stops where the
sample is not what was drafted. So drafts decide how many tokens a step yields and never which: the
distribution is the policy's, a seed gives the same completion with and without drafts, and the
log-probability of a token is computed as for any other.

vLLM's own rejection sampler is as likely to accept a drafted token, but draws other random numbers
than without drafts; in vLLM 0.32 on a CPU it also divides by uninitialised memory instead of the
temperature (vllm#55005).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from itertools import takewhile
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from vllm.v1.outputs import LogprobsTensors, SamplerOutput
from vllm.v1.sample.metadata import SamplingMetadata
from vllm.v1.sample.rejection_sampler import PLACEHOLDER_TOKEN_ID
from vllm.v1.spec_decode.metadata import SpecDecodeMetadata

from actors.drafts import SPECULATION, PromptLookup
from cluster.weight_sync.weight_transfer import WeightInspector

DRAFT_WORKER = "actors.draft_worker.DraftWorker"
DRAFTER = "actors.draft_worker.Drafter"


class Drafter:
    """Drafts for the requests that ask for it. vLLM makes one in each worker.

    Args:
        vllm_config: vLLM's.
    """

    def __init__(self, vllm_config: Any) -> None:
        self.max_model_len: int = vllm_config.model_config.max_model_len
        self.runner: Any = None  # set by `DraftWorker.start_drafting`
        self.lookups: dict[str, PromptLookup] = {}

    def propose(
        self, sampled_token_ids: Sequence[Sequence[int]], *_: object, **__: object
    ) -> list[list[int]]:
        """[requests] of what may follow the tokens that each has just sampled."""
        request_ids = self.runner.input_batch.req_ids
        self.lookups = {name: self.lookups[name] for name in request_ids if name in self.lookups}
        return [
            self.draft(name, new) if new else []
            for name, new in zip(request_ids, sampled_token_ids, strict=True)
        ]

    def draft(self, name: str, new: Sequence[int]) -> list[int]:
        """What may follow in one request, up to where it would end."""
        request = self.runner.requests[name]
        parameters = request.sampling_params
        asked = (parameters.extra_args or {}).get(SPECULATION)
        if asked is None:
            return []
        lookup = self.lookups.get(name)
        if lookup is None:
            lookup = self.lookups[name] = PromptLookup(
                [*request.prompt_token_ids, *request.output_token_ids],
                match_tokens=asked["match_tokens"],
            )
        else:
            lookup.extend(new)
        left = min(
            parameters.max_tokens - len(request.output_token_ids),
            self.max_model_len - request.num_tokens,
        )
        drafted = lookup.draft(min(asked["max_draft_tokens"], left - 1))
        return list(takewhile(lambda token: token not in parameters.all_stop_token_ids, drafted))

    def load_model(self, *_: object) -> None:
        """No-op: there is no model."""


class PositionSampler:
    """Stands in for vLLM's rejection sampler.

    Args:
        sampler: samples one token of each of some requests, as without drafts.
    """

    def __init__(self, sampler: Any) -> None:
        self.sampler = sampler

    def __call__(
        self,
        metadata: SpecDecodeMetadata,
        draft_probs: Tensor | None,
        logits: Tensor,
        sampling: SamplingMetadata,
    ) -> SamplerOutput:
        """The tokens of one step, with their log-probabilities.

        Args:
            metadata: the drafted tokens.
            draft_probs: unused: a draft is one token at each position.
            logits: [drafted tokens + requests, vocabulary], each request's positions in order: as
                many as it has drafted tokens, and the one after them.
            sampling: of the requests.

        Returns:
            Tokens [requests, longest draft + 1], with `PLACEHOLDER_TOKEN_ID` behind the last that
            stands, and log-probabilities [requests * (longest draft + 1), ...].
        """
        num_requests, width = len(metadata.num_draft_tokens), metadata.max_spec_len + 1
        num_drafted = np.array(metadata.num_draft_tokens)
        firsts = np.cumsum(num_drafted) - num_drafted  # of each request, among the drafted tokens
        drafted = metadata.draft_token_ids.cpu().numpy()
        tokens = np.full((num_requests, width), PLACEHOLDER_TOKEN_ID, dtype=np.int32)
        parts: list[SamplerOutput] = []
        cells: list[NDArray[np.int64]] = []
        rows = np.arange(num_requests)  # the requests whose drafts all stand so far
        for place in range(width):
            at = torch.from_numpy(firsts[rows] + rows + place).to(logits.device)
            part = self.sampler(logits=logits[at], sampling_metadata=of_rows(sampling, rows))
            sampled = part.sampled_token_ids[:, 0].cpu().numpy()
            tokens[rows, place] = sampled
            parts.append(part)
            cells.append(rows * width + place)
            rows, sampled = rows[num_drafted[rows] > place], sampled[num_drafted[rows] > place]
            rows = rows[sampled == drafted[firsts[rows] + place]]
            if len(rows) == 0:
                break
        return SamplerOutput(
            sampled_token_ids=torch.from_numpy(tokens).to(logits.device),
            logprobs_tensors=laid_out(parts, np.concatenate(cells), num_cells=tokens.size),
        )


def of_rows(sampling: SamplingMetadata, rows: NDArray[np.int64]) -> SamplingMetadata:
    """For some of a batch's requests: how `VllmEngine` has them sampled."""
    temperature = sampling.temperature
    return replace(
        sampling,
        temperature=None if temperature is None else temperature[torch.from_numpy(rows)],
        generators={
            number: sampling.generators[row]
            for number, row in enumerate(rows.tolist())
            if row in sampling.generators
        },
    )


def laid_out(
    parts: Sequence[SamplerOutput], cells: NDArray[np.int64], *, num_cells: int
) -> LogprobsTensors | None:
    """[num_cells, ...] the log-probabilities of all parts, each in its cell; None if not wanted."""
    found = [part.logprobs_tensors for part in parts if part.logprobs_tensors is not None]
    if not found:
        return None
    joined, places = LogprobsTensors.cat(found), torch.from_numpy(cells)

    def placed(column: Tensor) -> Tensor:
        empty = column.new_zeros((num_cells, *column.shape[1:]))
        return empty.index_copy_(0, places.to(column.device), column)

    return LogprobsTensors(
        placed(joined.logprob_token_ids),
        placed(joined.logprobs),
        placed(joined.selected_token_ranks),
    )


class DraftWorker(WeightInspector):
    """What vLLM adds to each worker of an engine that drafts, for `collective_rpc`."""

    model_runner: Any

    def start_drafting(self) -> None:
        """Let the drafter see the requests, and sample their positions one after the other."""
        runner = self.model_runner
        runner.drafter.runner = runner
        runner.rejection_sampler = PositionSampler(runner.sampler)
        # Near this length vLLM drops the drafts of a whole batch; `Drafter` ends each one in time.
        runner.effective_drafter_max_model_len = sys.maxsize
