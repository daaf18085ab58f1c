"""What a policy does in two turns, sampled at temperature 1, by family and with 95 % intervals.

    python -m scripts.default_policy.right_work.measure DIR

The second turn is compared with the second of two independent attempts: equal test compute.
"""

from __future__ import annotations

import argparse
import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from mgrpo.config.guidance import GUIDANCE_PHRASES
from mgrpo.evaluation.statistics import paired_bootstrap, pass_at_k
from mgrpo.types import Problem
from rewards.boxed import last_box
from rewards.task_answer import task_answer
from scripts.default_policy.right_work.problems import MAX_TOKENS, held_out, pools_of
from scripts.default_policy.right_work.sampling import sample
from scripts.default_policy.right_work.turns import Attempt, Turns

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

PASS_AT = 16
NUM_RESAMPLES = 2000
Flags = NDArray[np.bool_]


def attempts_at(
    model: LlamaForCausalLM,
    turns: Turns,
    problems: list[Problem],
    *,
    num_samples: int,
    generator: torch.Generator,
) -> list[list[Attempt]]:
    """`num_samples` first attempts at each of a family's problems."""
    prompts = [turns.recipe_first(problem) for problem in problems for _ in range(num_samples)]
    flat = graded(
        model, turns, [p for p in problems for _ in range(num_samples)], prompts, generator
    )
    return [flat[start : start + num_samples] for start in range(0, len(flat), num_samples)]


def corrections_of(
    model: LlamaForCausalLM,
    turns: Turns,
    attempts: list[Attempt],
    *,
    rng: random.Random,
    generator: torch.Generator,
) -> list[Attempt]:
    """One second turn of each attempt, behind a phrase drawn for it."""
    prompts = [
        turns.recipe_second(attempt.problem, attempt.ids, rng.choice(GUIDANCE_PHRASES))
        for attempt in attempts
    ]
    return graded(model, turns, [attempt.problem for attempt in attempts], prompts, generator)


def graded(
    model: LlamaForCausalLM,
    turns: Turns,
    problems: list[Problem],
    prompts: list[list[int]],
    generator: torch.Generator,
) -> list[Attempt]:
    completions = sample(
        model,
        prompts,
        max_tokens=max(MAX_TOKENS[problem.domain] for problem in problems),
        end_id=turns.end_of_turn_id,
        generator=generator,
    )
    return [
        Attempt(
            problem=problem,
            ids=ids,
            is_right=task_answer(turns.builder.decode(ids), problem).correct,
        )
        for problem, ids in zip(problems, completions, strict=True)
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A mean over problems with its 95 % interval (bootstrap over problems), in percent."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, values_P: NDArray[np.float64]) -> Interval:
        ((low, high), _), *_ = paired_bootstrap(
            values_P[:, None], num_resamples=NUM_RESAMPLES, seed=0
        )
        mean, low, high = (round(100 * float(v), 1) for v in (values_P.mean(), low, high))
        return cls(mean=mean, low=low, high=high)

    def __str__(self) -> str:
        return f"{self.mean} ({self.low} to {self.high})"


def two_turns(
    model: LlamaForCausalLM,
    turns: Turns,
    problems: list[Problem],
    *,
    num_seconds: int = 4,
    seed: int = 0,
) -> dict[str, Any]:
    """The measurements of one family.

    `PASS_AT` first attempts at each problem; the first `num_seconds` of them are corrected once,
    and the next `num_seconds` are the independent samples that the corrections compete with.
    """
    generator, rng = torch.Generator().manual_seed(seed), random.Random(seed)
    attempts = attempts_at(model, turns, problems, num_samples=PASS_AT, generator=generator)
    parents = [attempt for row in attempts for attempt in row[:num_seconds]]
    seconds = corrections_of(model, turns, parents, rng=rng, generator=generator)

    right_PG = np.array([[a.is_right for a in row] for row in attempts])
    parent_PH = right_PG[:, :num_seconds]
    independent_PH = right_PG[:, num_seconds : 2 * num_seconds]
    second_PH = np.array([a.is_right for a in seconds]).reshape(parent_PH.shape)
    is_copy = np.array(
        [answer_of(turns, a) == answer_of(turns, b) for a, b in zip(parents, seconds, strict=True)]
    ).reshape(parent_PH.shape)
    passes_P = np.array([pass_at_k(PASS_AT, int(n), PASS_AT) for n in right_PG.sum(1)])
    return {
        "problems": len(problems),
        "t1": str(Interval.of(right_PG.mean(1))),
        f"pass@{PASS_AT}": str(Interval.of(passes_P)),
        "t2": str(Interval.of(second_PH.mean(1))),
        "t2 - independent": str(Interval.of(second_PH.mean(1) - independent_PH.mean(1))),
        "right->wrong": share(~second_PH, parent_PH),
        "right->wrong, independent": share(~independent_PH, parent_PH),
        "wrong->right": share(second_PH, ~parent_PH),
        "wrong->right, independent": share(independent_PH, ~parent_PH),
        "wrong copied": share(is_copy, ~parent_PH),
    }


def share(flags: Flags, among: Flags) -> float:
    """Percent of `among` that have the flag."""
    return round(100 * float(flags[among].mean()), 1) if among.any() else float("nan")


def answer_of(turns: Turns, attempt: Attempt) -> str | None:
    box = last_box(turns.builder.decode(attempt.ids))
    return None if box is None else box.content


def main() -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    parser = argparse.ArgumentParser(prog="measure", description=__doc__)
    parser.add_argument("policy", type=Path, metavar="DIR")
    parser.add_argument("--problems", type=int, default=250, help="of each family")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(options.policy)
    model = AutoModelForCausalLM.from_pretrained(options.policy).eval()
    turns = Turns(tokenizer, tokenizer.eos_token_id)
    for family, problems in pools_of(held_out()).items():
        found = two_turns(model, turns, problems[: options.problems], seed=options.seed)
        print(json.dumps({"family": family, **found}, indent=1), flush=True)


if __name__ == "__main__":
    main()
