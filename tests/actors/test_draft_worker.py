"""Drafted positions are sampled as without drafts, by vLLM's own sampler."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from vllm.v1.sample.logits_processor import LogitsProcessors
from vllm.v1.sample.metadata import SamplingMetadata
from vllm.v1.sample.rejection_sampler import PLACEHOLDER_TOKEN_ID, RejectionSampler
from vllm.v1.sample.sampler import Sampler
from vllm.v1.spec_decode.metadata import SpecDecodeMetadata

from actors.draft_worker import PositionSampler

VOCABULARY = 11
NUM_POSITIONS = 6
SAMPLER = Sampler(logprobs_mode="processed_logprobs")


def sampling(
    temperatures: Sequence[float], seeds: Sequence[int], *, num_logprobs: int | None = 0
) -> SamplingMetadata:
    """Of requests as `VllmEngine` makes them: greedy ones have no generator."""
    generators = {
        number: torch.Generator().manual_seed(seed)
        for number, (seed, temperature) in enumerate(zip(seeds, temperatures, strict=True))
        if temperature > 0
    }
    is_greedy = [temperature == 0 for temperature in temperatures]
    nothing = torch.empty(0)
    return SamplingMetadata(
        temperature=None if all(is_greedy) else torch.tensor(temperatures),
        all_greedy=all(is_greedy),
        all_random=not any(is_greedy),
        top_p=None,
        top_k=None,
        generators=generators,
        max_num_logprobs=num_logprobs,
        no_penalties=True,
        prompt_token_ids=None,
        frequency_penalties=nothing,
        presence_penalties=nothing,
        repetition_penalties=nothing,
        output_token_ids=[],
        allowed_token_ids_mask=None,
        bad_words_token_ids={},
        logitsprocs=LogitsProcessors(),
    )


def policy(seed: int, num_requests: int) -> Tensor:
    """[requests, positions, vocabulary] logits that depend on the position alone."""
    draw = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(num_requests, NUM_POSITIONS, VOCABULARY, generator=draw)


def without_drafts(logits: Tensor, asked: SamplingMetadata) -> tuple[Tensor, Tensor]:
    """[requests, positions] tokens and their log-probabilities, one position at a time."""
    steps = [SAMPLER(logits[:, place].clone(), asked) for place in range(NUM_POSITIONS)]
    tokens = torch.cat([step.sampled_token_ids for step in steps], dim=1)
    logprobs: list[Any] = [step.logprobs_tensors for step in steps]
    return tokens, torch.stack([one.logprobs[:, 0] for one in logprobs], dim=1)


def with_drafts(
    logits: Tensor, drafts: Sequence[Sequence[int]], asked: SamplingMetadata
) -> tuple[list[list[int]], list[list[float]]]:
    """One step: what stands of each request, with log-probabilities, as the runner reads it."""
    rows = torch.cat([own[: len(draft) + 1] for own, draft in zip(logits, drafts, strict=True)])
    metadata = SpecDecodeMetadata.make_dummy([list(draft) for draft in drafts], torch.device("cpu"))
    out = PositionSampler(SAMPLER)(metadata, None, rows, asked)
    tokens, logprobs = RejectionSampler.parse_output(
        out.sampled_token_ids, VOCABULARY, logprobs_tensors=out.logprobs_tensors
    )
    if logprobs is None:
        return tokens, []
    ends = logprobs.cu_num_generated_tokens
    assert ends is not None
    values = logprobs.logprobs[:, 0].tolist()
    return tokens, [values[begin:end] for begin, end in pairwise(ends)]


TEMPERATURES = pytest.mark.parametrize(
    "temperatures", [(1.0, 1.0, 1.0), (0.7, 1.3, 0.7), (0.0, 0.0, 0.0), (1.0, 0.0, 0.7)]
)


@TEMPERATURES
def test_right_drafts_stand_and_bring_one_token_more(temperatures: tuple[float, ...]) -> None:
    logits = policy(1, 3)
    tokens, logprobs = without_drafts(logits, sampling(temperatures, (5, 6, 7)))
    lengths = (5, 0, 3)
    drafts = [tokens[number, :length].tolist() for number, length in enumerate(lengths)]
    found, found_logprobs = with_drafts(logits, drafts, sampling(temperatures, (5, 6, 7)))
    for number, length in enumerate(lengths):
        assert found[number] == tokens[number, : length + 1].tolist()
        assert found_logprobs[number] == pytest.approx(logprobs[number, : length + 1].tolist())


@TEMPERATURES
def test_a_wrong_draft_ends_with_what_is_sampled_in_its_place(
    temperatures: tuple[float, ...],
) -> None:
    logits = policy(2, 3)
    tokens, logprobs = without_drafts(logits, sampling(temperatures, (5, 6, 7)))
    drafts = tokens[:, :4].tolist()
    for number, wrong in enumerate((0, 2, 3)):
        drafts[number][wrong] = (drafts[number][wrong] + 1) % VOCABULARY
    found, found_logprobs = with_drafts(logits, drafts, sampling(temperatures, (5, 6, 7)))
    for number, wrong in enumerate((0, 2, 3)):
        assert found[number] == tokens[number, : wrong + 1].tolist()
        assert found_logprobs[number] == pytest.approx(logprobs[number, : wrong + 1].tolist())


def test_any_drafts_lead_to_the_completion_that_the_seed_has_without() -> None:
    """Also over several steps: a draft that fell uses up no random numbers."""
    logits = policy(3, 4)
    temperatures, seeds = (1.0, 0.7, 0.0, 1.5), (11, 12, 13, 14)
    expected, _ = without_drafts(logits, sampling(temperatures, seeds))
    asked, draw = sampling(temperatures, seeds), np.random.default_rng(0)
    written: list[list[int]] = [[] for _ in temperatures]
    for _ in range(NUM_POSITIONS):  # at least one token a step
        lefts = [logits[number, len(own) :] for number, own in enumerate(written)]
        longest = min(len(left) for left in lefts)
        if longest == 0:
            break
        drafts = [draw.integers(0, VOCABULARY, draw.integers(0, longest)).tolist() for _ in written]
        for number, own in enumerate(expected):  # most drafts are right
            if draw.random() < 0.7:
                begin = len(written[number])
                drafts[number] = own[begin : begin + len(drafts[number])].tolist()
        together = [left[: len(draft) + 1] for left, draft in zip(lefts, drafts, strict=True)]
        found = with_drafts_of(together, drafts, asked)
        for own, new in zip(written, found, strict=True):
            own += new
    for own, row in zip(written, expected.tolist(), strict=True):
        assert own == row[: len(own)] and len(own) > 1


def with_drafts_of(
    rows: Sequence[Tensor], drafts: Sequence[Sequence[int]], asked: SamplingMetadata
) -> list[list[int]]:
    metadata = SpecDecodeMetadata.make_dummy([list(draft) for draft in drafts], torch.device("cpu"))
    out = PositionSampler(SAMPLER)(metadata, None, torch.cat(list(rows)), asked)
    return RejectionSampler.parse_output(out.sampled_token_ids, VOCABULARY)[0]


def test_what_is_sampled_follows_the_policy_whatever_is_drafted() -> None:
    """Pearson's chi-squared over 20,000 seeds: drafts of the likeliest token, and of another."""
    num_seeds, logits = 20_000, torch.linspace(-1, 1, VOCABULARY)
    expected = torch.softmax(logits / 0.8, dim=0).numpy() * num_seeds
    for drafted in (VOCABULARY - 1, VOCABULARY // 2):
        rows = logits.expand(num_seeds, 2, VOCABULARY)
        asked = sampling([0.8] * num_seeds, range(num_seeds))
        found, _ = with_drafts(rows, [[drafted]] * num_seeds, asked)
        for place in (0, 1):
            sampled = [own[place] for own in found if len(own) > place]
            counts = np.bincount(sampled, minlength=VOCABULARY)
            share = len(sampled) / num_seeds
            statistic = float(((counts - share * expected) ** 2 / (share * expected)).sum())
            assert statistic < 29.6, (drafted, place)  # p = 0.001 with 10 degrees of freedom
        stands = np.mean([len(own) == 2 for own in found])
        assert stands == pytest.approx(expected[drafted] / num_seeds, abs=0.01)


def test_no_log_probabilities_where_none_are_wanted() -> None:
    asked = sampling((1.0, 1.0), (1, 2), num_logprobs=None)
    rows = policy(4, 2)[:, 0]
    metadata = SpecDecodeMetadata.make_dummy([[], []], torch.device("cpu"))
    out = PositionSampler(SAMPLER)(metadata, None, rows, asked)
    assert out.logprobs_tensors is None
    assert out.sampled_token_ids.shape == (2, 1)
    assert PLACEHOLDER_TOKEN_ID not in out.sampled_token_ids
