"""What the study trains: arms, families, phases, and the trials of each phase."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mgrpo.config import RunConfig
from mgrpo.config.load import load_recipe, read_recipe
from mgrpo.models.catalog import HALF_RIGHT, SHIPPED
from mgrpo.records.json_object import JsonObject
from scripts.default_policy.default_tasks import HELDOUT_SEED
from scripts.default_policy.right_work.problems import (
    MAX_TOKENS,
    NUM_CHECKED,
    NUM_HELD_OUT,
    STOP_SEED,
    TASKS,
)

FOLDER = Path(__file__).parent
REFERENCE = "grpo_16"
ARMS = (
    *(REFERENCE, "mgrpo", "one_parent", "wrong_first", "alternating"),
    *("success_only", "strict_fix", "igrpo", "murphy", "idle"),
)
FAMILIES = tuple(task.name for task in TASKS)
RATES = (1e-4, 2e-4, 4e-4, 8e-4)
"""Where tuning begins; it goes on by factors of two while the best rate is an outer one."""
STEPS, PROMPTS_PER_STEP = 40, 8
Phase = Literal["tuning", "confirming"]
NUM_SEEDS: dict[Phase, int] = {"tuning": 2, "confirming": 10}
FIRST_SEED: dict[Phase, int] = {"tuning": 1000, "confirming": 0}
HELD_OUT: dict[Phase, tuple[int, int]] = {
    "tuning": (NUM_CHECKED, STOP_SEED),
    "confirming": (NUM_HELD_OUT, HELDOUT_SEED),
}
"""Problems of a family that score a policy, by phase: how many, and the seed that draws them. The
start policy has trained on none of them."""
TRAINING = (20_000, 1)
MAX_PROMPT_TOKENS = 320
REWARDS = "rewards.terms=[{check: reasoning_gym}]"
"""The verifier of the problem's own generator."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One policy: trained by an arm on a family's problems, then scored."""

    phase: Phase
    family: str
    arm: str
    seed: int
    learning_rate: float

    @property
    def name(self) -> str:
        return f"{self.phase}-{self.family}-{self.arm}-{self.learning_rate!r}-{self.seed}"

    @property
    def recipe(self) -> str:
        return str(FOLDER / "arms" / f"{self.arm}.yaml")

    @property
    def settings(self) -> list[str]:
        """Of the training: the same problems in the same order for each arm of a seed. Nothing is
        evaluated meanwhile."""
        return [
            *(f"seed={self.seed}", f"steps={STEPS}", f"prompts_per_step={PROMPTS_PER_STEP}"),
            *(f"learner.learning_rate={self.learning_rate!r}", "checkpoints.every_steps=0"),
            *lengths(self.recipe, self.family),
            *(f"model.path={HALF_RIGHT}", f"data={json.dumps(data(self.family))}", REWARDS),
        ]

    @property
    def scoring_recipe(self) -> str:
        own = FOLDER / "arms" / f"{self.arm}_evaluation.yaml"
        return str(own if own.exists() else FOLDER / "arms" / "evaluation.yaml")

    @property
    def scoring_settings(self) -> list[str]:
        return [
            *("seed=0", REWARDS, *lengths(self.scoring_recipe, self.family)),
            f"data.heldout={json.dumps(held_out(self.family, self.phase))}",
            f"data.max_prompt_tokens={MAX_PROMPT_TOKENS}",
        ]

    def configs(self) -> tuple[RunConfig, RunConfig]:
        """Of training and scoring."""
        return (
            load_recipe(self.recipe, self.settings),
            load_recipe(self.scoring_recipe, self.scoring_settings),
        )

    @property
    def digest(self) -> str:
        """Of all that its recipes say, without the program's defaults, and of the start policy."""
        trees = [tree_of(one) for one in (self.recipe, self.scoring_recipe)]
        said = json.dumps(
            [*trees, self.settings, self.scoring_settings, start_policy()], sort_keys=True
        )
        return hashlib.sha256(said.encode()).hexdigest()[:12]


def trials_at(phase: Phase, family: str, arm: str, learning_rate: float) -> list[Trial]:
    """One for each seed of the phase."""
    first = FIRST_SEED[phase]
    return [
        Trial(phase=phase, family=family, arm=arm, seed=seed, learning_rate=learning_rate)
        for seed in range(first, first + NUM_SEEDS[phase])
    ]


def data(family: str) -> dict[str, Any]:
    size, seed = TRAINING
    train = source_of(family, size, seed, exclude=[held_out(family, phase) for phase in HELD_OUT])
    return {"train": train, "heldout": None, "max_prompt_tokens": MAX_PROMPT_TOKENS}


def held_out(family: str, phase: Phase) -> dict[str, Any]:
    size, seed = HELD_OUT[phase]
    exclude = [] if phase == "confirming" else [held_out(family, "confirming")]
    return source_of(family, size, seed, exclude=exclude)


def source_of(
    family: str, size: int, seed: int, *, exclude: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    return {
        "source": "reasoning_gym",
        "size": size,
        "seed": seed,
        "tasks": [task.model_dump() for task in TASKS if task.name == family],
        "exclude_questions_of": list(exclude),
    }


def lengths(recipe: str, family: str) -> list[str]:
    """The longest completion of each layer is that of the family."""
    return [
        f"layers.{n}.max_completion_tokens={MAX_TOKENS[family]}" for n in range(num_layers(recipe))
    ]


@functools.cache
def start_policy() -> str:
    """The hash of the weights that every arm begins with."""
    return hashlib.sha256((SHIPPED[HALF_RIGHT] / "model.safetensors").read_bytes()).hexdigest()


@functools.cache
def tree_of(recipe: str) -> JsonObject:
    return read_recipe(Path(recipe))


@functools.cache
def num_layers(recipe: str) -> int:
    return len(load_recipe(recipe).layers)
