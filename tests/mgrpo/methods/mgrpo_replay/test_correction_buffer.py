"""Which corrections train again, and for how long."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mgrpo.methods.mgrpo_replay.correction_buffer import (
    CorrectionBuffer,
    CorrectionBufferSettings,
)
from mgrpo.types import Completion, CompletionId, Reward


def correction(name: str, *, version: int = 0, **changes: Any) -> Completion:
    values: dict[str, Any] = {
        "id": CompletionId.named(name),
        "problem_id": "p",
        "domain": "d",
        "layer": 2,
        "parent_id": "parent",
        "group_key": "parent",
        "prompt": [1],
        "token_ids": [2],
        "rollout_logprobs": [-1.0],
        "finish_reason": "stop",
        "version_spans": ((0, version),),
        "text": "",
        "prompt_text": "",
        "reward": Reward(value=1.0, correct=True),
        "advantage": 0.5,
        "selected": True,
    }
    return Completion(**{**values, **changes})


def buffer(seed: int = 0, **settings: Any) -> CorrectionBuffer:
    return CorrectionBuffer(CorrectionBufferSettings(**settings), seed)


def names(drawn: list[Any]) -> list[str]:
    return [one.completion.completion_id for one in drawn]


@pytest.mark.parametrize(
    "changes",
    [
        {"layer": 1},
        {"selected": False},
        {"selected": None},
        {"reward": Reward(value=1.0)},
        {"reward": None},
        {"advantage": 0.0},
        {"advantage": -0.5},
        {"advantage": None},
    ],
)
def test_only_right_corrections_that_trained_upward_are_kept(changes: dict[str, Any]) -> None:
    kept = buffer()
    kept.add([correction("good"), correction("other", **changes)])
    assert names(kept.draw(0, 0)) == ["good"]


def test_the_advantage_of_its_own_step_goes_with_it() -> None:
    kept = buffer()
    kept.add([correction("a", advantage=0.7)])
    assert kept.draw(0, 0)[0].advantage == 0.7


def test_the_oldest_leaves_when_it_is_full() -> None:
    kept = buffer(capacity=2)
    kept.add([correction(name) for name in "abc"])
    assert sorted(names(kept.draw(0, 0))) == ["b", "c"] and len(kept) == 2


def test_corrections_of_old_policies_are_forgotten() -> None:
    kept = buffer(max_age=2, capacity=3)
    kept.add([correction(str(version), version=version) for version in range(3)])
    assert sorted(names(kept.draw(0, policy_version=3))) == ["1", "2"]
    kept.add([correction(name) for name in "abcd"])
    assert len(kept) == 3  # the capacity is kept
    forever = buffer(max_age=None)
    forever.add([correction("a")])
    assert names(forever.draw(0, policy_version=1000)) == ["a"]


def test_draws_are_seeded_without_replacement_and_differ_by_step() -> None:
    def drawn(step: int, seed: int = 0) -> list[str]:
        kept = buffer(seed, per_step=4)
        kept.add([correction(str(number)) for number in range(30)])
        return names(kept.draw(step, 0))

    assert drawn(1) == drawn(1) and len(set(drawn(1))) == 4
    assert drawn(1) != drawn(2) and drawn(1) != drawn(1, seed=1)


def test_a_correction_may_be_drawn_in_several_steps_but_once_in_each() -> None:
    kept = buffer()
    kept.add([correction("a")])
    assert names(kept.draw(3, 0)) == ["a"]
    assert names(kept.draw(4, 1)) == ["a"]


def test_a_buffer_goes_on_where_another_stood() -> None:
    kept = buffer(per_step=2)
    kept.add([correction(name) for name in "abcde"])
    other = buffer(per_step=2)
    other.load_state_dict(json.loads(json.dumps(kept.state_dict())))
    assert list(other.kept) == list(kept.kept)
    assert names(other.draw(7, 0)) == names(kept.draw(7, 0))
