"""What a step is packed into comes out as it went in, and shares its memory."""

from __future__ import annotations

import dataclasses
import pickle

import numpy as np
import pytest

from learner.packing import RowCost, share_trees
from learner.step_data import PackedCompletions, StepData
from mgrpo.records.turns import Prompt
from mgrpo.types import Completion, Replayed
from tests.learner.builders import completion, long, random_completions


def mixed_step() -> list[Completion]:
    """Masks on some rows alone, a row without tokens, texts of several bytes a character."""
    masked = long("q/1", 1.0, 3, sampled_mask=[True, False, True], text="√2 ≈ 1.4 \ud83d")
    held_back = long("q/2", 0.0, 2, train_mask=[False, True], spans={"steps": [(0, 1)]})
    empty = completion("q/3", None, token_ids=[], rollout_logprobs=[])
    return [masked, held_back, empty, *random_completions()]


def test_what_is_packed_comes_out_as_it_was() -> None:
    step = mixed_step()
    again = [Replayed(completion=step[0], advantage=0.5)]
    given = StepData.of(7, step, step[:2], again)
    sent = pickle.loads(pickle.dumps(given))
    assert sent.step == 7
    assert sent.unpacked(with_texts=True) == (step, step[:2], again)


def test_texts_are_left_out_where_nobody_reads_them() -> None:
    (one, *_) = PackedCompletions.of(mixed_step()).unpacked(with_texts=False)
    assert one == dataclasses.replace(mixed_step()[0], text="")


def test_token_columns_travel_beside_the_pickle_and_are_not_copied() -> None:
    step = [long(f"q/{n}", 1.0, 1000) for n in range(20)]
    buffers: list[pickle.PickleBuffer] = []
    small = pickle.dumps(StepData.of(0, step), protocol=5, buffer_callback=buffers.append)
    assert len(small) < 20_000  # the columns alone have 160,000 bytes
    assert len(buffers) < 60  # as many for any number of completions
    sent = pickle.loads(small, buffers=buffers)
    completions, _, _ = sent.unpacked(with_texts=False)
    column = sent.completions.columns["token_ids"].values
    assert all(np.shares_memory(one.token_ids, column) for one in completions)


def test_completions_of_a_prompt_hold_it_once() -> None:
    prompt = Prompt.of(range(5))
    step = [completion(f"q/{n}", 1.0, prompt=prompt) for n in range(3)]
    packed = PackedCompletions.of(step)
    assert packed.prompts.values.tolist() == [0, 1, 2, 3, 4]
    first, *others = packed.unpacked(with_texts=False)
    assert all(one.prompt is first.prompt for one in others)


def costs(*trees: list[int]) -> list[RowCost]:
    """Trees of completions that train so many tokens each."""
    return [
        RowCost(tree=tree, num_trained=count, num_tokens=max(count, 5))
        for tree, counts in enumerate(trees)
        for count in counts
    ]


def test_a_tree_stays_on_one_rank() -> None:
    # Trees of 9, 7, 6 and 2 tokens on two ranks: 9 + 2 and 7 + 6 leave 11 and 13.
    assert share_trees(costs([4, 5], [7], [3, 3], [2]), 2) == [[0, 1, 5], [2, 3, 4]]


def test_trees_that_do_not_train_are_shared_out_by_their_tokens() -> None:
    shares = share_trees(costs([8], [8], [0], [0], [0], [0]), 2)
    assert [len(share) for share in shares] == [3, 3]


@pytest.mark.parametrize("num_ranks", [2, 3, 4])
def test_a_tree_larger_than_a_share_is_cut_in_its_order(num_ranks: int) -> None:
    shares = share_trees(costs([1] * 12), num_ranks)
    assert [len(share) for share in shares] == [12 // num_ranks] * num_ranks
    assert sorted(place for share in shares for place in share) == list(range(12))
    assert all(share == list(range(share[0], share[-1] + 1)) for share in shares)


def test_ranks_beyond_the_completions_get_none() -> None:
    assert share_trees(costs([3]), 3) == [[0], [], []]
    assert share_trees([], 2) == [[], []]
