"""A whole run: every section of a recipe, and the relations between them."""

from __future__ import annotations

from functools import cached_property
from typing import Any, Literal

from pydantic import (
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from mgrpo.config.alarms import AlarmsConfig
from mgrpo.config.base import RelationError, StrictConfig
from mgrpo.config.cluster import ClusterConfig, WeightsConfig
from mgrpo.config.data import DataConfig
from mgrpo.config.engines import EnginesConfig, SamplingConfig
from mgrpo.config.evaluation import EvaluationConfig
from mgrpo.config.layers import LayerConfig
from mgrpo.config.learner import LearnerConfig, ObjectiveConfig
from mgrpo.config.output import OutputConfig
from mgrpo.config.phases import in_phase, phase_problems
from mgrpo.config.plugins import PhaseConfig, PluginConfig
from mgrpo.config.relations import problems_of
from mgrpo.config.rewards import RewardsConfig

TEMPLATE_CALL_ARGUMENTS = {
    "add_generation_prompt",
    "chat_template",
    "continue_final_message",
    "conversation",
    "documents",
    "max_length",
    "messages",
    "padding",
    "return_assistant_tokens_mask",
    "return_dict",
    "return_tensors",
    "tokenize",
    "tokenizer_kwargs",
    "tools",
    "truncation",
}
"""Arguments of apply_chat_template that are not the template's."""


class ModelConfig(StrictConfig):
    """The policy that is trained."""

    path: str
    """A prepared model ("default", "smollm2"), a local folder, a hub name, or an URL of shared
    storage. Each node fetches what is not on it, once."""
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    """Type of the weights as broadcast and saved."""
    chat_template_kwargs: dict[str, Any] = Field(default_factory=dict)
    """Arguments of the chat template, such as {enable_thinking: false}: in every prompt, of
    training, evaluation and checks alike. One that the template does not use is an error."""
    stop_tokens: list[str | int] | None = None
    """Tokens, as text or ids, that end a completion beside those of generation_config. Null: the
    one that the chat template writes after an assistant's turn."""

    @field_validator("chat_template_kwargs")
    @classmethod
    def check_template_kwargs(cls, given: dict[str, Any]) -> dict[str, Any]:
        own = sorted(TEMPLATE_CALL_ARGUMENTS & set(given))
        if own:
            raise ValueError(f"{', '.join(own)} cannot be chosen: prompts are built with it.")
        return given


class CheckpointConfig(StrictConfig):
    """What a run can go on from: `mgrpo train` with the same name resumes."""

    every_steps: NonNegativeInt = 10
    """A checkpoint after every this many steps, and after the last one, so that the run can be made
    longer; 0: only when the run is stopped by a signal."""
    keep: PositiveInt = 2
    """How many of the newest are kept."""
    on_signal_s: PositiveFloat = 60.0
    """Most seconds that a signal is held back for, so that a step whose update has begun becomes
    whole, and most seconds that the checkpoint then takes to write. A cluster that kills what
    does not stop should wait longer than both."""
    shared_folder: bool | None = None
    """Whether the nodes of all learner ranks see the run's folder. Null: each is asked, and what
    a rank writes that does not see it travels to the driver. false: all of it does."""


class RunConfig(StrictConfig):
    """A recipe."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """The run's name, and that of its directory."""
    description: str = ""
    method: str = "MGRPO"
    """For people: shown in reports. What the method does is said by the other keys."""
    paper: str = ""
    """For people: where the method comes from, e.g. an arXiv id."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Of everything that is drawn."""
    steps: PositiveInt
    """Optimizer steps (with update_order: sequential, rounds through the chain)."""
    prompts_per_step: PositiveInt
    model: ModelConfig
    data: DataConfig
    layers: list[LayerConfig] = Field(min_length=1)
    sampling: SamplingConfig = SamplingConfig()
    engines: EnginesConfig = EnginesConfig()
    rewards: RewardsConfig = RewardsConfig()
    plugins: list[PluginConfig] = Field(default_factory=list)
    """A method's own parts, in the order in which those of one stage work."""
    phases: list[PhaseConfig] = Field(default_factory=list)
    """What changes on the way; `from_step` rising."""
    objective: ObjectiveConfig = ObjectiveConfig()
    learner: LearnerConfig = LearnerConfig()
    weights: WeightsConfig = WeightsConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    alarms: AlarmsConfig = AlarmsConfig()
    checkpoints: CheckpointConfig = CheckpointConfig()
    output: OutputConfig = OutputConfig()
    cluster: ClusterConfig = ClusterConfig()

    @model_validator(mode="after")
    def check_relations(self) -> RunConfig:
        problems = [*problems_of(self), *phase_problems(self)]
        if problems:
            raise RelationError(problems)
        return self

    @property
    def phase_configs(self) -> list[tuple[int, RunConfig]]:
        """(first step, recipe) of every phase, beginning with the recipe itself at step 0."""
        return [(0, self), *self._later_phases]

    @cached_property
    def _later_phases(self) -> list[tuple[int, RunConfig]]:
        # Without the recipe itself: it would be held by itself, and comparing would never end.
        return [(phase.from_step, in_phase(self, phase)) for phase in self.phases]

    def at_step(self, step: int) -> RunConfig:
        """The recipe as its phases have it at one step."""
        later = zip(self.phases, self._later_phases, strict=True)
        active = [config for phase, (_, config) in later if phase.is_active(step)]
        return active[-1] if active else self

    @property
    def max_kl_weight(self) -> float:
        """The largest factor on the KL term of any layer in any phase; 0 needs no reference."""
        return max(
            config.objective.kl.weight if layer.kl_weight is None else layer.kl_weight
            for _, config in self.phase_configs
            for layer in config.layers
        )

    @property
    def max_completions_per_step(self) -> int:
        """Completions of one step when no parent is left out."""
        by_layer, parents = [], self.prompts_per_step
        for depth, layer in enumerate(self.layers):
            is_pooled = self.objective.update_order == "pooled_errors"
            if depth > 0 and (is_pooled or layer.parents in ("wrong_first", "uniform_k", "best")):
                parents = self.prompts_per_step * layer.num_parents
            parents *= layer.group_size
            by_layer.append(parents)
        # A step of pooled errors samples one of its layers.
        return max(by_layer) if self.objective.update_order == "pooled_errors" else sum(by_layer)
