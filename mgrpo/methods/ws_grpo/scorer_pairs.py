"""Pairs of a right and a wrong completion, for the prefix scorer to learn from. No torch."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from mgrpo.errors import DataError
from mgrpo.types import Completion

Tokens = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Pair:
    """A right and a wrong completion of one problem: prompt and completion, in tokens."""

    problem: str
    right: Tokens
    wrong: Tokens
    num_prompt_tokens: int  # how many tokens of both are the prompt


@dataclass
class Found:
    """The content of the recorded completions."""

    num_right: int = 0
    num_wrong: int = 0
    num_unusable: int = 0  # not checked, or the check failed
    num_other_layers: int = 0
    # (problem, prompt) -> right and wrong completions, without repetitions, in order.
    by_problem: dict[tuple[str, Tokens], tuple[dict[Tokens, None], dict[Tokens, None]]] = field(
        default_factory=dict
    )

    def __str__(self) -> str:
        return (
            f"{self.num_right} right and {self.num_wrong} wrong first attempts at "
            f"{len(self.by_problem)} problems, {self.num_unusable} without a usable check, and "
            f"{self.num_other_layers} completions of later layers"
        )


def sort_by_outcome(completions: Sequence[Completion]) -> Found:
    """First attempts by problem and outcome; a text that was sampled twice counts once.

    Completions of one problem under different prompts are kept apart: their values differ for
    reasons that have nothing to do with being right.
    """
    found = Found()
    for one in completions:
        if one.layer != 1:
            found.num_other_layers += 1
            continue
        if one.reward is None or not one.reward.is_usable:
            found.num_unusable += 1
            continue
        prompt = tuple(one.prompt_token_ids.tolist())
        right, wrong = found.by_problem.setdefault((one.problem_id, prompt), ({}, {}))
        found.num_right += one.is_correct
        found.num_wrong += not one.is_correct
        (right if one.is_correct else wrong)[(*prompt, *one.token_ids.tolist())] = None
    return found


def make_pairs(completions: Sequence[Completion], *, max_per_problem: int, seed: int) -> list[Pair]:
    """Right and wrong completions of the same problem, at most so many pairs of each.

    Raises:
        DataError: no problem has both.
    """
    found = sort_by_outcome(completions)
    rng = random.Random(seed)
    pairs: list[Pair] = []
    for (problem, prompt), (right, wrong) in found.by_problem.items():
        rights, wrongs = list(right), list(wrong)
        num_all = len(rights) * len(wrongs)
        chosen = rng.sample(range(num_all), min(num_all, max_per_problem))
        pairs += [
            Pair(problem, rights[index % len(rights)], wrongs[index // len(rights)], len(prompt))
            for index in chosen
        ]
    if not pairs:
        raise DataError(
            "A prefix scorer learns from a right and a wrong first attempt at the same problem, "
            f"and no problem has both. Found: {found}. Record several sampled attempts per "
            "problem: train with a larger output.rollouts_per_step, or evaluate with "
            "evaluation.decoding=sampled and evaluation.samples_per_problem above 1."
        )
    return pairs


def split_by_problem(
    pairs: Sequence[Pair], *, holdout: float, seed: int
) -> tuple[list[Pair], list[Pair]]:
    """Pairs to train on and pairs held out, of different problems.

    At least one problem is on either side, unless `holdout` is 0.

    Raises:
        DataError: all pairs are of one problem, so none can be held out.
    """
    problems = sorted({pair.problem for pair in pairs})
    if holdout == 0:
        return list(pairs), []
    if len(problems) < 2:
        raise DataError(
            f"All {len(pairs)} pairs are of one problem ({problems[0]}), so no problem can be held "
            "out. Give more rollouts, or hold nothing out: --holdout 0."
        )
    random.Random(seed).shuffle(problems)
    num_out = min(max(round(holdout * len(problems)), 1), len(problems) - 1)
    out = set(problems[:num_out])
    return [p for p in pairs if p.problem not in out], [p for p in pairs if p.problem in out]
