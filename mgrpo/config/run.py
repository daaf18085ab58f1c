"""A whole run: every section of a recipe, and the relations between them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from mgrpo.config.base import RelationError, StrictConfig
from mgrpo.config.cluster import ClusterConfig, WeightsConfig
from mgrpo.config.data import DataConfig
from mgrpo.config.engines import EnginesConfig, SamplingConfig
from mgrpo.config.layers import LayerConfig
from mgrpo.config.learner import LearnerConfig, ObjectiveConfig
from mgrpo.config.relations import problems_of
from mgrpo.config.rewards import RewardsConfig
from mgrpo.errors import ConfigProblem


class ModelConfig(StrictConfig):
    """The policy that is trained."""

    path: str
    """A prepared model ("default", "smollm2"), a local folder, or a hub name."""
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    """Type of the weights as broadcast and saved."""


class EvaluationConfig(StrictConfig):
    """How the held-out problems are scored before, during and after training."""

    every_steps: NonNegativeInt = 0
    """Also evaluate every this many steps; 0: only before and after."""
    max_problems: PositiveInt | None = None
    decoding: Literal["greedy", "sampled"] = "greedy"
    temperature: PositiveFloat = 1.0
    """For `decoding: sampled`."""
    samples_per_problem: PositiveInt = 1
    """First attempts per problem; accuracies are averaged over them. Needs `sampled` above 1."""
    guidance: Literal["all", "first"] = "all"
    """Which guidance phrases open the second turn; over "all" the mean and range are reported."""

    @model_validator(mode="after")
    def check_samples(self) -> EvaluationConfig:
        if self.decoding == "greedy" and self.samples_per_problem > 1:
            raise RelationError(
                [
                    ConfigProblem(
                        "samples_per_problem",
                        str(self.samples_per_problem),
                        "greedy decoding gives the same completion each time.",
                        "Use decoding: sampled, or 1.",
                    )
                ]
            )
        return self


class OutputConfig(StrictConfig):
    """What a run leaves behind, under runs_dir/name/."""

    runs_dir: str = "runs"
    rollouts_per_step: NonNegativeInt = 4
    """Problems whose whole tree of completions is written to rollouts/ each step."""
    tensorboard: bool = True
    report: bool = True
    """Write report.html at the end, and when the run is stopped."""


class RunConfig(StrictConfig):
    """A recipe."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """The run's name, and that of its directory."""
    description: str = ""
    method: str = "MGRPO"
    """For people: shown in reports. What the method does is said by the other keys."""
    seed: int = 0
    steps: PositiveInt
    """Optimizer steps (with update_order: sequential, rounds through the chain)."""
    prompts_per_step: PositiveInt
    model: ModelConfig
    data: DataConfig
    layers: list[LayerConfig] = Field(min_length=1)
    sampling: SamplingConfig = SamplingConfig()
    engines: EnginesConfig = EnginesConfig()
    rewards: RewardsConfig = RewardsConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    learner: LearnerConfig = LearnerConfig()
    weights: WeightsConfig = WeightsConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    output: OutputConfig = OutputConfig()
    cluster: ClusterConfig = ClusterConfig()

    @model_validator(mode="after")
    def check_relations(self) -> RunConfig:
        problems = problems_of(self)
        if problems:
            raise RelationError(problems)
        return self

    @property
    def max_completions_per_step(self) -> int:
        """Completions of one step when no parent is left out."""
        total, parents = 0, self.prompts_per_step
        for depth, layer in enumerate(self.layers):
            if depth > 0 and layer.parents in ("wrong_first", "uniform_k", "best"):
                parents = self.prompts_per_step * layer.num_parents
            parents *= layer.group_size
            total += parents
        return total
