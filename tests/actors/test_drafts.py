"""What is drafted from a sequence, and where a draft ends."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import pytest

from actors.draft_worker import Drafter
from actors.drafts import PromptLookup


def test_a_draft_is_what_followed_the_newest_tokens_where_they_last_occurred() -> None:
    lookup = PromptLookup([1, 2, 3, 4, 9, 1, 2, 5, 6, 7, 1, 2], match_tokens=2)
    assert lookup.draft(3) == [5]
    assert lookup.draft(0) == []


def test_a_draft_is_shorter_than_what_is_repeated() -> None:
    lookup = PromptLookup([*range(20), 5, 6], match_tokens=2)
    lengths = []
    for token in (7, 8, 9, 10):
        lengths.append(len(lookup.draft(4)))
        lookup.extend([token])
    assert lengths == [1, 2, 3, 4]
    assert lookup.draft(4) == [11, 12, 13, 14]
    assert lookup.draft(9) == [11, 12, 13, 14, 15]
    lookup.extend([3, 4])
    assert lookup.draft(9) == [5]


def test_nothing_is_drafted_where_nothing_is_repeated() -> None:
    lookup = PromptLookup([1, 2, 3, 4, 1], match_tokens=2)
    assert lookup.draft(3) == []
    lookup.extend([3])
    assert lookup.draft(3) == []


def test_a_passage_is_followed_as_long_as_the_sequence_goes_on_as_it_did() -> None:
    """Its tokens 2, 3 also occur later, with another end: the passage that is followed stays."""
    lookup = PromptLookup([1, 2, 3, 4, 5, 6, 2, 3, 8, 0, 1, 2], match_tokens=2)
    lookup.extend([3])
    assert lookup.draft(2) == [4, 5]
    lookup.extend([8])
    assert lookup.draft(2) == [0]


def test_a_sequence_repeats_its_own_completion_too() -> None:
    lookup = PromptLookup([1], match_tokens=2)
    lookup.extend([5, 6, 7, 5, 6])
    assert lookup.draft(2) == [7]


@pytest.mark.parametrize("match_tokens", [1, 2, 3])
def test_the_passage_is_that_of_a_search_through_the_whole_sequence(match_tokens: int) -> None:
    draw = random.Random(match_tokens)
    tokens = [draw.randrange(4) for _ in range(300)]
    lookup, following, common = PromptLookup([], match_tokens=match_tokens), None, 0
    for place, token in enumerate(tokens):
        follows = following is not None and tokens[following] == token
        lookup.extend([token])
        following = following + 1 if follows else last_match(tokens[: place + 1], match_tokens)
        common = common + 1 if follows else match_tokens
        expected = [] if following is None else tokens[following : place + 1][: common - 1]
        assert lookup.draft(5) == expected[:5]


def last_match(tokens: list[int], match_tokens: int) -> int | None:
    """The index after the last earlier occurrence of the newest tokens."""
    newest = tokens[-match_tokens:]
    for end in range(len(tokens) - 1, match_tokens - 1, -1):
        if len(newest) == match_tokens and tokens[end - match_tokens : end] == newest:
            return end
    return None


# --- the drafter in a worker ---

REPEATED = list(range(20))


def drafter(*requests: Any, max_model_len: int = 100) -> Drafter:
    made = Drafter(SimpleNamespace(model_config=SimpleNamespace(max_model_len=max_model_len)))
    by_name = {f"r{number}": request for number, request in enumerate(requests)}
    made.runner = SimpleNamespace(
        requests=by_name, input_batch=SimpleNamespace(req_ids=list(by_name))
    )
    return made


def request(
    prompt: list[int],
    *,
    written: list[int],
    max_tokens: int = 50,
    stops: tuple[int, ...] = (),
    **asked: Any,
) -> Any:
    speculation = {"max_draft_tokens": 4, "match_tokens": 2, **asked}
    parameters = SimpleNamespace(
        extra_args={"speculation": speculation},
        max_tokens=max_tokens,
        all_stop_token_ids=set(stops),
    )
    return SimpleNamespace(
        prompt_token_ids=prompt,
        output_token_ids=written,
        num_tokens=len(prompt) + len(written),
        sampling_params=parameters,
    )


def test_each_request_is_drafted_as_its_layer_asks() -> None:
    without = request(REPEATED, written=[1, 2, 3, 4, 5])
    without.sampling_params.extra_args = None
    made = drafter(
        request(REPEATED, written=[1, 2, 3, 4, 5]),
        without,
        request(REPEATED, written=[1, 2, 3, 4, 5], max_draft_tokens=2),
        request(REPEATED, written=[1, 2, 3, 4, 5], match_tokens=6),
    )
    assert made.propose([[5]] * 4) == [[6, 7, 8, 9], [], [6, 7], []]


def test_a_request_without_a_new_token_gets_no_draft() -> None:
    assert drafter(request(REPEATED, written=[])).propose([[]]) == [[]]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"stops": (8,)}, [6, 7]),
        ({"stops": (6,)}, []),
        ({"max_tokens": 8}, [6, 7]),  # five are written, and a step yields one more than it drafts
        ({"max_tokens": 6}, []),
    ],
)
def test_a_draft_ends_where_the_completion_would(changes: Any, expected: list[int]) -> None:
    assert drafter(request(REPEATED, written=[1, 2, 3, 4, 5], **changes)).propose([[5]]) == [
        expected
    ]


def test_a_draft_stays_within_the_context() -> None:
    made = drafter(request(REPEATED, written=[1, 2, 3, 4, 5]), max_model_len=28)
    assert made.propose([[5]]) == [[6, 7]]


def test_what_stands_of_a_draft_is_taken_in_and_an_ended_request_is_forgotten() -> None:
    first, second = request(REPEATED, written=[1, 2, 3]), request(REPEATED, written=[4, 5])
    made = drafter(first, second)
    assert made.propose([[3], [5]]) == [[4, 5], [6]]
    first.output_token_ids += [4, 5, 6]
    made.runner.input_batch.req_ids = ["r0"]
    assert made.propose([[4, 5, 6]]) == [[7, 8, 9, 10]]
    assert set(made.lookups) == {"r0"}
