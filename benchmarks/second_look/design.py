"""What the study trains: arms, phases, and the trials of each phase."""

from __future__ import annotations

import functools
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from benchmarks.second_look.scales import Family, Phase, Scale, scale_of
from mgrpo.config import RunConfig
from mgrpo.config.load import load_recipe, read_recipe
from mgrpo.models.catalog import SHIPPED
from mgrpo.records.json_object import JsonObject

FOLDER = Path(__file__).parent
REFERENCE = "grpo_16"
TOKEN_REFERENCE = "grpo_26"
"""GRPO at the tokens of 4 attempts with 3 corrections each."""
ARMS = (
    *(REFERENCE, "mgrpo", "one_parent", "wrong_first", "alternating"),
    *("success_only", "strict_fix", "igrpo", "murphy", "idle", TOKEN_REFERENCE),
)
OF_MGRPO = ("mgrpo", "one_parent", "wrong_first", "success_only", "strict_fix", "murphy")
"""The paper's method, and what it leaves open: parents, which corrections train, their credit."""
AT_EQUAL_TOKENS = ("mgrpo", "success_only", "strict_fix", "murphy", "idle")
"""Arms of 4 attempts with 3 corrections each."""
FIRST_SEED: dict[Phase, int] = {"tuning": 1000, "confirming": 0}


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
    def scale(self) -> Scale:
        return scale_of(self.family)

    @property
    def problems(self) -> Family:
        return self.scale.families[self.family]

    @property
    def recipe(self) -> str:
        return recipe_of(self.arm)

    @property
    def settings(self) -> list[str]:
        """Of the training: the same problems in the same order for each arm of a seed. Nothing is
        evaluated meanwhile."""
        scale = self.scale
        data = {
            "train": dict(self.problems.train),
            "heldout": None,
            "max_prompt_tokens": scale.max_prompt_tokens,
        }
        return [
            *self.common_settings(self.recipe),
            f"seed={self.seed}",
            *(f"steps={scale.steps}", f"prompts_per_step={scale.prompts_per_step}"),
            *(f"learner.learning_rate={self.learning_rate!r}", "checkpoints.every_steps=0"),
            *(f"model.path={scale.model}", f"data={json.dumps(data)}"),
        ]

    @property
    def scoring_recipe(self) -> str:
        own = FOLDER / "arms" / f"{self.arm}_evaluation.yaml"
        return str(own if own.exists() else FOLDER / "arms" / "evaluation.yaml")

    @property
    def scoring_settings(self) -> list[str]:
        return [
            *self.common_settings(self.scoring_recipe),
            "seed=0",
            f"data.heldout={json.dumps(self.problems.held_out[self.phase])}",
            f"data.max_prompt_tokens={self.scale.max_prompt_tokens}",
        ]

    def common_settings(self, recipe: str) -> list[str]:
        """The machine's, the check, and of each layer its length and, where the scale has its own,
        its prompt."""
        layers = range(num_layers(recipe))
        lengths = [f"layers.{n}.max_completion_tokens={self.problems.max_tokens}" for n in layers]
        own = quickstart_prompts() if not self.scale.own_prompts else frozenset()
        asked = [
            f"layers.{n}.system_prompt=null"
            for n in layers
            if load_recipe(recipe).layers[n].system_prompt in own
        ]
        check = f"rewards.terms=[{{check: {self.problems.check}}}]"
        return [*self.scale.settings, check, *lengths, *asked]

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
        start = start_policy(self.scale.model)
        said = json.dumps([*trees, self.settings, self.scoring_settings, start], sort_keys=True)
        return hashlib.sha256(said.encode()).hexdigest()[:12]


def recipe_of(arm: str) -> str:
    return str(FOLDER / "arms" / f"{arm}.yaml")


def trials_at(phase: Phase, family: str, arm: str, learning_rate: float) -> list[Trial]:
    """One for each seed of the phase."""
    first = FIRST_SEED[phase]
    return [
        Trial(phase=phase, family=family, arm=arm, seed=seed, learning_rate=learning_rate)
        for seed in range(first, first + scale_of(family).num_seeds[phase])
    ]


@functools.cache
def start_policy(model: str) -> str:
    """The hash of the weights that every arm begins with; of a model of the hub its name."""
    if model not in SHIPPED:
        return model
    return hashlib.sha256((SHIPPED[model] / "model.safetensors").read_bytes()).hexdigest()


@functools.cache
def tree_of(recipe: str) -> JsonObject:
    return read_recipe(Path(recipe))


@functools.cache
def num_layers(recipe: str) -> int:
    return len(load_recipe(recipe).layers)


@functools.cache
def quickstart_prompts() -> frozenset[str | None]:
    """System turns for a policy that was made for them."""
    return frozenset(layer.system_prompt for layer in load_recipe("quickstart").layers)
