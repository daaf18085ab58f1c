"""Episodes of several turns train like any completion: what was read between turns is context."""

from __future__ import annotations

import dataclasses
import pickle
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from learner.batch import build_batch, step_batch
from learner.packing import collate
from learner.step_data import StepData
from mgrpo.config import ObjectiveConfig
from mgrpo.errors import LearnerError
from mgrpo.types import Completion
from tests.learner.builders import long, plugin, solve_layer, two_turns
from tests.learner.exact import UNCORRECTED, exact_loss

SETTINGS = ObjectiveConfig(**UNCORRECTED)
EPISODES = [
    two_turns("q/1", 1.0, call=[5, 6], result=[9, 10, 11], answer=[7]),
    two_turns("q/2", 0.0, call=[5], result=[12], answer=[8, 3, 4]),
]
WRITTEN = [[5, 6, 7], [5, 8, 3, 4]]


def without_results() -> list[Completion]:
    """The same completions, had the policy read nothing between its turns."""
    return [
        long(f"q/{number}", reward, len(written), token_ids=written)
        for number, reward, written in zip((1, 2), (1.0, 0.0), WRITTEN, strict=True)
    ]


def rows_of(completions: list[Completion], **settings: Any) -> Any:
    return build_batch(completions, [solve_layer(**settings)], SETTINGS).rows


def test_an_episode_is_laid_out_as_one_row_whose_turns_read_all_that_came_before() -> None:
    first, second = rows_of(EPISODES)
    assert first.input_token_ids.tolist() == [1, 2, 5, 6, 9, 10, 11]
    microbatch = collate([first, second], merge_prefixes=True)
    assert microbatch.target_ids.tolist() == [5, 6, 9, 10, 11, 7, 5, 12, 8, 3, 4]
    assert microbatch.is_sampled.tolist() == [
        *(True, True, False, False, False, True),
        *(True, False, True, True, True),
    ]
    assert ((microbatch.token_weights != 0) == microbatch.is_sampled).all()


@pytest.mark.parametrize("aggregation", ["seq_mean", "token_mean", "fixed_length"])
@pytest.mark.parametrize(
    "plugins",
    [[], [plugin("gspo", clip_low=0.5, clip_high=0.5)], [plugin("gmpo")], [plugin("cispo")]],
)
def test_loss_and_ratios_are_those_of_the_policys_own_tokens(
    plugins: list[Any], aggregation: str
) -> None:
    """Whatever the learner thinks of a tool's tokens, and however far it has moved on them."""
    episodes = rows_of(EPISODES, aggregation=aggregation)
    written = rows_of(without_results(), aggregation=aggregation)
    is_written = torch.cat([torch.from_numpy(one.is_sampled) for one in EPISODES])
    generator = torch.Generator().manual_seed(5)
    old = -2 * torch.rand(len(is_written), generator=generator, dtype=torch.float64)
    moved = 0.3 * torch.randn(len(is_written), generator=generator, dtype=torch.float64)
    now = old + torch.where(is_written, moved, 5.0)
    whole, own = now.clone().requires_grad_(), now[is_written].requires_grad_()
    found = exact_loss(episodes, whole, old, plugins=plugins)
    expected = exact_loss(written, own, old[is_written], plugins=plugins)
    assert_close(found, expected, rtol=1e-12, atol=1e-15)
    found.backward()
    expected.backward()
    assert whole.grad is not None and own.grad is not None
    assert_close(whole.grad[is_written], own.grad, rtol=1e-12, atol=1e-15)
    assert not whole.grad[~is_written].any() and own.grad.any()


def test_versions_and_turns_reach_the_ranks() -> None:
    sent = pickle.loads(pickle.dumps(StepData.of(3, EPISODES)))
    (completions, _, _) = sent.unpacked(with_texts=False)
    assert completions == EPISODES
    assert [len(one.turns) for one in completions] == [2, 2]
    batch = step_batch(completions, [solve_layer()])
    assert batch.versions.tolist() == [0, 0, 0, 0, 0, 1, 0, 0, 1, 1, 1]
    assert batch.versions.dtype == torch.int32


@pytest.mark.parametrize(
    "changes",
    [
        {"token_ids": [5, 6], "rollout_logprobs": [-1, -1], "sampled_mask": None},
        {"train_mask": None},
        {"sampled_mask": None},
    ],
)
def test_a_plug_in_that_spoils_turns_is_told(changes: dict[str, Any]) -> None:
    with pytest.raises(LearnerError, match=r"q/1 has \d tokens and turns \(\(0, 2\), \(5, 6\)\)"):
        rows_of([dataclasses.replace(EPISODES[0], **changes)])
