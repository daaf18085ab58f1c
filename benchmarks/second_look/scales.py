"""Where the study is done: which policy, problems, lengths, rates and seeds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mgrpo.config.load import find_recipe, read_recipe
from mgrpo.models.catalog import HALF_RIGHT
from scripts.default_policy.default_tasks import HELDOUT_SEED
from scripts.default_policy.right_work.problems import (
    MAX_TOKENS,
    NUM_CHECKED,
    NUM_HELD_OUT,
    STOP_SEED,
    TASKS,
)

Phase = Literal["tuning", "confirming"]
Source = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """Problems of one kind."""

    name: str
    train: Source
    held_out: Mapping[Phase, Source]
    check: str
    max_tokens: int  # of a completion of any layer
    num_scored: int  # problems, when confirming


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """One policy on one kind of machine."""

    name: str
    model: str
    families: Mapping[str, Family]
    steps: int
    prompts_per_step: int
    max_prompt_tokens: int
    rates: tuple[float, ...]
    """Where tuning begins; it goes on by factors of two while the best rate is an outer one.
    Without seeds to tune with there is one, which is taken."""
    num_seeds: Mapping[Phase, int]
    settings: tuple[str, ...] = ()
    """Of every run: the machine's."""
    own_prompts: bool = True
    """Prompts are the arms'; else those that tell a policy of the hub what to write, but for a
    second turn that is the arm's own."""


def generated(family: str, size: int, seed: int, exclude: Sequence[Source]) -> dict[str, Any]:
    return {
        "source": "reasoning_gym",
        "size": size,
        "seed": seed,
        "tasks": [task.model_dump() for task in TASKS if task.name == family],
        "exclude_questions_of": list(exclude),
    }


def small_family(name: str) -> Family:
    """Problems of the start policy `half_right`, which has trained on none of those that score."""
    confirming = generated(name, NUM_HELD_OUT, HELDOUT_SEED, [])
    tuning = generated(name, NUM_CHECKED, STOP_SEED, [confirming])
    return Family(
        name=name,
        train=generated(name, 20_000, 1, [tuning, confirming]),
        held_out={"tuning": tuning, "confirming": confirming},
        check="reasoning_gym",
        max_tokens=MAX_TOKENS[name],
        num_scored=NUM_HELD_OUT,
    )


SMALL = Scale(
    name="small",
    model=HALF_RIGHT,
    families={task.name: small_family(task.name) for task in TASKS},
    steps=40,
    prompts_per_step=8,
    max_prompt_tokens=320,
    rates=(1e-4, 2e-4, 4e-4, 8e-4),
    num_seeds={"tuning": 2, "confirming": 10},
    settings=(
        *("engines.shared=true", "engines.num_shared_engines=1", "engines.num_threads=1"),
        *("learner.num_threads=1", "objective.importance=none", "cluster.device=cpu"),
    ),
)
"""One engine, one rank, a thread each, and no weights from an engine's log-probabilities, whose
last digit depends on what it batches: so a row can be made again."""

LEVELS = [2, 3, 4]
COLUMNS = {
    "question_field": "problem",
    "solution_field": "solution",
    "domain_field": "subject",
    "where": {"level": LEVELS},
}
MATH = Family(
    name="math",
    # MATH (arXiv 2103.03874) without the 500 problems of arXiv 2305.20050, which score.
    train={"path": "nlile/hendrycks-MATH-benchmark", "split": "train", **COLUMNS},
    held_out={"confirming": {"path": "HuggingFaceH4/MATH-500", "split": "test", **COLUMNS}},
    check="math_answer",
    max_tokens=512,
    num_scored=323,
)
COUNTDOWN_SCORED: dict[str, Any] = {
    "source": "reasoning_gym",
    "size": 320,
    "seed": HELDOUT_SEED,
    "tasks": [
        {
            "name": "countdown",
            "settings": {
                "min_numbers": 3,
                "max_numbers": 4,
                "max_value": 50,
                "min_target": 10,
                "max_target": 100,
            },
        }
    ],
}
COUNTDOWN = Family(
    name="countdown",
    train={
        **COUNTDOWN_SCORED,
        "size": 20_000,
        "seed": 1,
        "exclude_questions_of": [COUNTDOWN_SCORED],
    },
    held_out={"confirming": COUNTDOWN_SCORED},
    check="reasoning_gym",
    max_tokens=512,
    num_scored=COUNTDOWN_SCORED["size"],
)


def of_shipped_recipe(name: str, *sections: str) -> tuple[str, ...]:
    """Whole sections of a recipe, as settings."""
    tree = read_recipe(find_recipe(name))
    return tuple(f"{section}={json.dumps(tree[section])}" for section in sections)


ONE_GPU = Scale(
    name="one_gpu",
    model="allenai/OLMo-2-0425-1B-Instruct",
    families={family.name: family for family in (MATH, COUNTDOWN)},
    steps=45,
    prompts_per_step=32,
    max_prompt_tokens=512,
    rates=(1e-6,),
    num_seeds={"tuning": 0, "confirming": 3},
    settings=(
        "model.dtype=bfloat16",
        *of_shipped_recipe("one_gpu", "engines", "learner", "cluster", "rewards"),
    ),
    own_prompts=False,
)
SCALES = {scale.name: scale for scale in (SMALL, ONE_GPU)}


def scale_of(family: str) -> Scale:
    """The one that has it."""
    return next(scale for scale in SCALES.values() if family in scale.families)
