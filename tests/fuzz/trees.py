"""The completions of one problem."""

from __future__ import annotations

from typing import Any

from mgrpo.types import Completion, CompletionId, Reward


def problem_tree(problem_id: str, slot: int = 0, domain: str = "default") -> list[Completion]:
    """A right and a wrong attempt, and two corrections of each, one of them right."""
    paths: tuple[Any, ...] = ((0,), (1,), (0, 0), (0, 1), (1, 0), (1, 1))
    return [node(CompletionId(0, slot, path), problem_id, domain) for path in paths]


def node(own: CompletionId, problem_id: str, domain: str) -> Completion:
    is_right = own.path[-1] == 0
    return Completion(
        id=own,
        problem_id=problem_id,
        domain=domain,
        layer=len(own.path),
        parent_id=str(own.parent) if len(own.path) > 1 else None,
        group_key=str(own.parent),
        prompt=[1, 2],
        token_ids=[3, 4],
        rollout_logprobs=[-1.0, -0.5],
        finish_reason="stop",
        version_spans=((0, 0),),
        text="four",
        prompt_text="2 + 2?" if len(own.path) == 1 else "",
        reward=Reward(value=float(is_right), correct=is_right, parts={"math_answer": 1.0}),
        selected=True,
        advantage=0.5,
    )
