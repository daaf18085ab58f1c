"""Prompts of parts, turns as offsets into columns, and the versions that wrote each token."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from mgrpo.errors import DataError
from mgrpo.records.turns import Prompt, TokenPart, Turn, cut_versions, join_turns, join_versions
from mgrpo.types import Completion
from tests.learner.builders import long, two_turns

# --- prompts ---


def test_neighbouring_token_parts_are_one() -> None:
    whole = Prompt((TokenPart([1, 2]), TokenPart([3])))
    assert whole == Prompt.of([1, 2, 3]) and len(whole.parts) == 1 and len(whole) == 3
    assert whole.token_ids.dtype == np.int32 and whole.token_ids is whole.token_ids
    assert len(Prompt(())) == 0


def test_an_engine_gets_what_vllm_takes_of_a_prompt() -> None:
    given = Prompt.of(np.array([1, 2], dtype=np.int32)).engine_input()
    assert given == {"prompt_token_ids": [1, 2]}
    assert all(type(token) is int for token in given["prompt_token_ids"])


def test_a_part_that_is_not_token_ids_is_refused() -> None:
    class ImagePart:
        pass

    with pytest.raises(DataError, match=r"not token ids \(ImagePart\).*Only text"):
        Prompt((TokenPart([1]), ImagePart()))
    with pytest.raises(DataError, match=r"not token ids \(image, size\)"):
        Prompt.from_json([{"token_ids": [1]}, {"image": "a.png", "size": 3}])


@pytest.mark.parametrize("token_ids", [None, 3, "3", [[1]], [1.5, None], [2**40]])
def test_a_prompt_s_token_ids_are_a_list_of_whole_numbers(token_ids: object) -> None:
    with pytest.raises(DataError, match="A prompt's token ids are not"):
        Prompt.from_json([{"token_ids": token_ids}])


# --- turns ---

CALL = Turn(
    prompt=Prompt.of([1, 2]),
    token_ids=[7, 8, 9],
    logprobs=[-1, -2, -3],
    version_spans=((0, 3), (2, 4)),
)
ANSWER = Turn(prompt=Prompt.of([4, 5]), token_ids=[6], logprobs=[-4], version_spans=((0, 4),))
EPISODE: Completion = replace(long("q/1", 1.0, 3), **join_turns([CALL, ANSWER]))


def test_turns_are_columns_with_what_was_read_between_them() -> None:
    assert EPISODE.prompt_token_ids.tolist() == [1, 2]
    assert EPISODE.token_ids.tolist() == [7, 8, 9, 4, 5, 6]
    assert EPISODE.rollout_logprobs.tolist() == [-1, -2, -3, 0, 0, -4]
    assert EPISODE.is_sampled.tolist() == [True] * 3 + [False] * 2 + [True]
    assert EPISODE.is_trained.tolist() == EPISODE.is_sampled.tolist()
    assert EPISODE.num_trained_tokens == 4 and EPISODE.turn_spans == ((0, 3), (5, 6))


def test_every_turn_has_its_prompt_its_tokens_and_its_versions() -> None:
    first, second = EPISODE.turns
    assert (first.prompt, second.prompt) == (CALL.prompt, ANSWER.prompt)
    assert np.shares_memory(second.token_ids, EPISODE.token_ids)
    assert (first.oldest_version, first.newest_version) == (3, 4)
    assert (second.oldest_version, second.newest_version) == (4, 4)
    assert second.logprobs.tolist() == [-4] and second.sampled_mask.tolist() == [True]


def test_turns_that_are_taken_apart_are_joined_to_the_same() -> None:
    for one in (EPISODE, long("q/1", 1.0, 3, train_mask=[True, False, True])):
        assert replace(one, **join_turns(one.turns)) == one


def test_a_plain_answer_is_one_turn_whose_columns_are_not_copied() -> None:
    plain: Completion = replace(long("q/1", 1.0, 1), **join_turns([CALL]))
    assert plain.token_ids is CALL.token_ids and plain.prompt is CALL.prompt
    assert plain.turn_spans == () and plain.sampled_mask is None is plain.train_mask
    (turn,) = plain.turns
    assert turn == CALL


def test_what_was_put_into_a_turn_stays_marked() -> None:
    helped = replace(CALL, sampled_mask=[True, False, True], train_mask=[True, True, False])
    columns = join_turns([ANSWER, helped])
    assert columns["token_ids"].tolist() == [6, 1, 2, 7, 8, 9]
    assert columns["sampled_mask"].tolist() == [True, False, False, True, False, True]
    assert columns["train_mask"].tolist() == [True, False, False, True, True, False]


def test_an_episode_is_read_back_from_its_json() -> None:
    row = json.loads(json.dumps(EPISODE.to_json()))
    assert row["prompt"] == [{"token_ids": [1, 2]}] and row["turn_spans"] == [[0, 3], [5, 6]]
    assert Completion.from_json(row) == EPISODE


def test_a_file_with_one_version_per_completion_is_read() -> None:
    row = json.loads(json.dumps(long("q/1", 1.0, 3, version_spans=((0, 6),)).to_json()))
    old = {"prompt_token_ids": row.pop("prompt")[0]["token_ids"], "policy_version": 6}
    del row["version_spans"], row["turn_spans"]
    one = Completion.from_json(row | old)
    assert one.prompt_token_ids.tolist() == [1, 2] and one.versions.tolist() == [6, 6, 6]
    assert one.turn_spans == () and one == long("q/1", 1.0, 3, version_spans=((0, 6),))


# --- versions ---


def test_every_token_has_the_version_that_wrote_it() -> None:
    assert EPISODE.version_spans == ((0, 3), (2, 4))
    # What was read belongs to the span before it.
    assert EPISODE.versions.tolist() == [3, 3, 4, 4, 4, 4] and EPISODE.versions.dtype == np.int32
    assert (EPISODE.oldest_version, EPISODE.newest_version) == (3, 4)


def test_a_completion_without_tokens_has_a_version() -> None:
    empty = long("q/1", 1.0, 0, version_spans=((0, 5),))
    assert empty.versions.tolist() == [] and empty.oldest_version == 5


def test_spans_are_joined_where_the_version_stays() -> None:
    spans = join_versions([(((0, 1), (2, 2)), 3), ((), 4), (((0, 2), (1, 5)), 2)])
    assert spans == ((0, 1), (2, 2), (8, 5))
    assert join_versions([(((0, 7),), 0), ((), 2), (((0, 8),), 1)]) == ((0, 8),)
    assert join_versions([(((0, 7),), 0), (((0, 8),), 0)]) == ((0, 7),)


@pytest.mark.parametrize(
    ("start", "stop", "spans"),
    [
        (0, 9, ((0, 1), (2, 2), (5, 3))),
        (1, 5, ((0, 1), (1, 2))),
        (2, 6, ((0, 2), (3, 3))),
        (6, 7, ((0, 3),)),
        (0, 0, ((0, 1),)),
    ],
)
def test_spans_are_cut_to_some_tokens(start: int, stop: int, spans: object) -> None:
    assert cut_versions(((0, 1), (2, 2), (5, 3)), start, stop) == spans


def test_tokens_that_a_plug_in_took_away_take_their_versions_with_them() -> None:
    shorter = replace(EPISODE, token_ids=[7], version_spans=((0, 3), (2, 4)))
    assert shorter.versions.tolist() == [3]


def test_the_builders_episode_is_of_two_turns() -> None:
    one = two_turns("q/1", 1.0, call=[5, 6], result=[9, 10, 11], answer=[7])
    assert [turn.token_ids.tolist() for turn in one.turns] == [[5, 6], [7]]
