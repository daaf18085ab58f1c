"""The records: who a completion is, and that its token columns are arrays however they came."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest

from mgrpo.records.stored import StoredCompletion, StoredReward
from mgrpo.types import Completion, CompletionId, Generation, Reward
from tests.learner.builders import long

CORRECTION = CompletionId(3, 5, (0, 1))


def test_an_id_is_printed_as_step_slot_and_path() -> None:
    assert str(CORRECTION) == "s3p5#0.1"
    assert str(CORRECTION.tree) == "s3p5"


def test_an_id_knows_its_tree() -> None:
    assert CORRECTION.parent == CompletionId(3, 5, (0,))
    assert CORRECTION.parent.parent == CORRECTION.tree == CompletionId(3, 5)
    assert CORRECTION.parent.child(1) == CORRECTION


def test_a_tree_is_sampled_before_those_that_were_drawn_later() -> None:
    order = [CompletionId(3, 5), CompletionId(3, 6), CompletionId(3, 4_000_000), CompletionId(4, 0)]
    numbers = [one.drawing_order for one in order]
    assert numbers == sorted(set(numbers))
    assert CORRECTION.drawing_order == CORRECTION.tree.drawing_order


def test_ids_are_ordered_as_a_step_is() -> None:
    ids = [
        CompletionId(3, 10, (0,)),
        CORRECTION,
        CompletionId(3, 5, (0,)),
        CompletionId(2, 9, (1,)),
    ]
    assert list(map(str, sorted(ids))) == ["s2p9#1", "s3p5#0", "s3p5#0.1", "s3p10#0"]


def test_further_samples_of_a_problem_have_ids_of_their_own_in_the_same_place() -> None:
    again = CompletionId(3, 5).apart("layer2").child(0)
    assert str(again) == "s3p5#layer2#0"
    assert again != CompletionId(3, 5, (0,)) and again.tree == CompletionId(3, 5)


@pytest.mark.parametrize("one", [CORRECTION, CompletionId(0, 12, (-1,)), CompletionId(1, 0, (3,))])
def test_ids_of_old_files_are_read_from_their_printed_form(one: CompletionId) -> None:
    assert CompletionId.named(str(one)) == one


def test_names_of_other_files_stay_as_they_are_and_share_places() -> None:
    first, second = CompletionId.named("eval3#0"), CompletionId.named("eval3#1.0")
    assert (str(first), str(second)) == ("eval3#0", "eval3#1.0")
    assert first.tree == second.tree != CompletionId.named("eval4#0").tree
    assert str(CompletionId.named("mine")) == "mine"


def completion(**changes: Any) -> Completion:
    return replace(long("q/1", 1.0, 3), **changes)


def test_lists_become_arrays() -> None:
    one = completion(token_ids=[7, 8, 9], train_mask=[True, False, True])
    assert one.token_ids.dtype == np.int32 and one.rollout_logprobs.dtype == np.float32
    assert one.train_mask is not None and one.train_mask.dtype == np.bool_
    sample = Generation(
        token_ids=[1], logprobs=[-0.5], finish_reason="stop", version_spans=((0, 0),), text=""
    )
    assert sample.token_ids.dtype == np.int32 and sample.logprobs.dtype == np.float32


def test_arrays_are_kept_and_not_copied() -> None:
    ids = np.arange(3, dtype=np.int32)
    assert completion(token_ids=ids).token_ids is ids


def test_records_are_compared_by_what_their_columns_hold() -> None:
    assert completion(token_ids=[1, 2, 3]) == completion(token_ids=np.array([1, 2, 3]))
    assert completion(token_ids=[1, 2, 3]) != completion(token_ids=[1, 2, 4])
    assert completion() != completion(train_mask=[True, True, True])


def test_a_record_is_read_back_from_its_json() -> None:
    one = completion(id=CORRECTION, spans={"steps": [(0, 1)]}, sampled_mask=[True, False, True])
    row = json.loads(json.dumps(one.to_json()))
    assert row["completion_id"] == "s3p5#0.1" and row["token_ids"] == [3, 3, 3]
    assert replace(Completion.from_json(row), spans=one.spans) == one


def test_a_record_of_an_old_file_is_read() -> None:
    one = completion(id=CORRECTION)
    row = {key: value for key, value in one.to_json().items() if key != "id"}
    assert Completion.from_json(row) == one
    assert isinstance(Completion.from_json(row).reward, Reward)


def test_the_form_in_files_has_the_fields_of_the_records() -> None:
    for stored, record in ((StoredCompletion, Completion), (StoredReward, Reward)):
        assert set(stored.model_fields) == {one.name for one in fields(record)}
