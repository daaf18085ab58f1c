"""A whole run: every section of a recipe, and the relations between them."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import Annotated, Literal

from pydantic import (
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    field_validator,
    model_validator,
)

from mgrpo.config.alarms import AlarmsConfig
from mgrpo.config.base import RelationError, StrictConfig
from mgrpo.config.cluster import ClusterConfig, WeightsConfig
from mgrpo.config.colocation import colocation_faults
from mgrpo.config.data import DataConfig
from mgrpo.config.default_prompts import with_default_prompts
from mgrpo.config.engines import EnginesConfig, SamplingConfig
from mgrpo.config.evaluation import EvaluationConfig, guidance_faults
from mgrpo.config.explain import explain
from mgrpo.config.layers import CorrectLayer, SolveLayer, VerifyLayer
from mgrpo.config.learner import LearnerConfig, ObjectiveConfig
from mgrpo.config.method_view import MethodView, StepConfig
from mgrpo.config.output import OutputConfig
from mgrpo.config.overrides import BadOverride, merged
from mgrpo.config.phases import fixed_key_faults, foreign_sections, order_of_phases
from mgrpo.config.pipeline import PipelineConfig, ahead_faults
from mgrpo.config.plugins import PhaseConfig, PluginConfig
from mgrpo.config.relations import (
    chain_faults,
    learner_faults,
    max_completions_per_step,
    minibatch_faults,
    order_faults,
    reward_source_faults,
)
from mgrpo.config.rewards import RewardsConfig
from mgrpo.config.sources import Fresh, Source
from mgrpo.config.watched import BestConfig, EarlyStoppingConfig, heldout_faults
from mgrpo.errors import Faults
from mgrpo.records.json_object import JsonObject

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


Layer = Annotated[SolveLayer | CorrectLayer | VerifyLayer, Field(discriminator="kind")]


class ModelConfig(StrictConfig):
    """The policy that is trained."""

    path: str
    """A prepared model ("default", "smollm2"), a local folder, a hub name, or a URL of shared
    storage. Each node fetches missing files once."""
    revision: str | None = None
    """Of a hub name: a commit, tag or branch. Null: the newest. The commit is recorded in the run's
    environment.json, and a resume goes on with it."""
    from_run: str = ""
    """A label: the run whose policy `path` is, and after which step; `mgrpo train --from` writes
    it."""
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    """Type of the weights as broadcast and saved."""
    chat_template_kwargs: JsonObject = Field(default_factory=dict)
    """Arguments of the chat template, such as {enable_thinking: false}: in every prompt, of
    training, evaluation and checks alike. One that the template does not use is an error."""
    stop_tokens: list[str | int] | None = None
    """Tokens, as text or ids, that end a completion beside those of generation_config. Null: the
    one that the chat template writes after an assistant's turn."""

    @field_validator("chat_template_kwargs")
    @classmethod
    def check_template_kwargs(cls, given: dict[str, object]) -> dict[str, object]:
        own = sorted(TEMPLATE_CALL_ARGUMENTS & set(given))
        if own:
            raise ValueError(f"{', '.join(own)} cannot be set: the prompt builder sets it.")
        return given


class CheckpointConfig(StrictConfig):
    """Checkpoints: `mgrpo train` with the same name resumes from the newest."""

    every_steps: NonNegativeInt = 10
    """A checkpoint after every this many steps, and after the last one, so that the run can be made
    longer; 0: only when a signal or an error ends the run."""
    keep: PositiveInt = 2
    """Number of newest checkpoints kept; that of the best step is kept besides (`keep_best`)."""
    keep_best: BestConfig | None = None
    """The policy with the best value so far is kept as `policy-best/`, in Hugging Face form, and
    with `checkpoint: true` a checkpoint of its step. Null: none is."""
    on_signal_s: PositiveFloat = 60.0
    """Longest delay of a signal, in seconds, to finish a step whose update has begun, and longest
    time to write the checkpoint then. A cluster that kills stopped jobs should wait longer than
    both."""
    memory_copy_share: float = Field(default=1.0, ge=0, le=1)
    """Largest share of the time that copies of the last step in memory may take, from which a lost
    learner goes on. 1: each step is copied, so at most one is repeated. Less: of fewer steps, where
    a copy takes longer. 0: none, it goes on from the newest checkpoint."""
    shared_folder: bool | None = None
    """Whether all learner ranks can access the run's folder. Null: each is tested, and files of
    ranks without access are sent to the driver. false: all files are sent."""


class RunConfig(StrictConfig):
    """A recipe."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """The run's name, and that of its directory."""
    description: str = ""
    method: str = "MGRPO"
    """A label for reports. The method is defined by the other keys."""
    paper: str = ""
    """A label: the method's source, e.g. an arXiv id."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Seed of all random draws."""
    steps: PositiveInt
    """Steps: each samples and then trains (with update_order: sequential, a round through the
    chain)."""
    prompts_per_step: PositiveInt
    model: ModelConfig
    data: DataConfig
    layers: list[Layer] = Field(min_length=1)
    """The chain: the first layer solves (kind: solve), every later one corrects (kind: correct),
    so `kind` need not be written; or it says whether its parents are right (kind: verify)."""
    source: Source = Fresh()
    """What a step trains on: fresh, the data's next problems, or a method's or your own source,
    above another."""
    sampling: SamplingConfig = SamplingConfig()
    engines: EnginesConfig = EnginesConfig()
    rewards: RewardsConfig = RewardsConfig()
    plugins: list[PluginConfig] = Field(default_factory=list)
    """A method's own parts, in the order in which those of one stage work."""
    phases: list[PhaseConfig] = Field(default_factory=list)
    """Changes during the run, by ascending `from_step`."""
    objective: ObjectiveConfig = ObjectiveConfig()
    pipeline: PipelineConfig = PipelineConfig()
    learner: LearnerConfig = LearnerConfig()
    weights: WeightsConfig = WeightsConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    alarms: AlarmsConfig = AlarmsConfig()
    checkpoints: CheckpointConfig = CheckpointConfig()
    early_stopping: EarlyStoppingConfig | None = None
    """Null: the run takes all its steps."""
    output: OutputConfig = OutputConfig()
    cluster: ClusterConfig = ClusterConfig()

    @field_validator("layers", mode="before")
    @classmethod
    def kinds_by_position(cls, given: object) -> object:
        """Layers that do not say their kind have that of their position."""
        if not isinstance(given, list):
            return given
        return [
            {"kind": "correct" if depth else "solve", **entry} if isinstance(entry, dict) else entry
            for depth, entry in enumerate(given)
        ]

    @model_validator(mode="after")
    def fill_prompts(self) -> RunConfig:
        """System turns that suit the checks, in layers that set none."""
        object.__setattr__(self, "layers", with_default_prompts(self.layers, self.rewards))
        return self

    @model_validator(mode="after")
    def check_relations(self) -> RunConfig:
        faults = [
            *chain_faults(self.layers),
            *reward_source_faults(self.data, self.rewards),
            *order_faults(self.objective, self.layers),
            *guidance_faults(self.evaluation, self.layers),
            *learner_faults(
                self.learner,
                self.layers,
                max_prompt_tokens=self.data.max_prompt_tokens,
                num_completions=max_completions_per_step(
                    self.layers,
                    num_problems=self.objective.problems_per_minibatch(self.prompts_per_step),
                ),
            ),
            *minibatch_faults(self.objective, self.prompts_per_step),
            *colocation_faults(
                self.cluster, self.engines, self.learner, self.weights, self.pipeline
            ),
            *ahead_faults(self.pipeline, self.objective),
            *order_of_phases(self.phases, num_steps=self.steps),
            *self.watched_faults(),
        ]
        for index, phase in enumerate(self.phases):
            path = f"phases.{index}.changes."
            faults += [replace(one, path=path + one.path) for one in self.change_faults(phase)]
        if faults:
            raise RelationError(faults)
        return self

    def watched_faults(self) -> Faults:
        """Held-out accuracies that decide something and are not measured."""
        every = 0 if self.data.heldout is None else self.evaluation.every_steps
        keep, stop = self.checkpoints.keep_best, self.early_stopping
        for path, watched in (("checkpoints.keep_best", keep), ("early_stopping", stop)):
            yield from heldout_faults(path, watched, len(self.layers), measured_every=every)

    def change_faults(self, phase: PhaseConfig) -> Faults:
        """What a phase changes that it must not, or changes wrongly."""
        if foreign := foreign_sections(phase):
            return foreign
        try:
            changed = self.in_phase(phase)
        except BadOverride as error:
            return [error.fault]
        except ValidationError as error:
            return explain(error, RunConfig)
        return fixed_key_faults(self.step_values, changed.step_values)

    def in_phase(self, phase: PhaseConfig) -> RunConfig:
        """The recipe with a phase's changes.

        Raises:
            BadOverride, ValidationError: the changes do not fit the recipe.
        """
        tree = self.model_dump(mode="json", exclude={"phases"})
        return RunConfig.model_validate(merged(tree, phase.changes))

    @property
    def method_view(self) -> MethodView:
        """What the recipe samples and trains, with every phase's values."""
        return MethodView(
            outside_phases=self.step_values,
            phases=tuple(zip(self.phases, self._phase_values, strict=True)),
            rewards=self.rewards,
            plugins=self.plugins,
            data=self.data,
            prompts_per_step=self.prompts_per_step,
            num_ranks=self.learner.num_ranks,
            seed=self.seed,
            num_ahead=self.pipeline.num_ahead,
        )

    @property
    def step_values(self) -> StepConfig:
        return StepConfig(self.layers, self.objective, self.sampling, self.source)

    @cached_property
    def _phase_values(self) -> list[StepConfig]:
        return [self.in_phase(phase).step_values for phase in self.phases]
