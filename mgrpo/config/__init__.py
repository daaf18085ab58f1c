"""Recipes: strict pydantic models, without torch."""

from mgrpo.config.cluster import ClusterConfig, DeadlinesConfig, WeightsConfig
from mgrpo.config.data import (
    DataConfig,
    DataSource,
    HuggingFaceSource,
    JsonlSource,
    ReasoningGymSource,
    ReasoningGymTask,
)
from mgrpo.config.engines import EnginesConfig, SamplingConfig
from mgrpo.config.layers import GUIDANCE_PHRASES, GuidanceConfig, LayerConfig
from mgrpo.config.learner import (
    AdvantageConfig,
    ImportanceConfig,
    KlConfig,
    LearnerConfig,
    ObjectiveConfig,
)
from mgrpo.config.rewards import RewardsConfig, RewardTerm
from mgrpo.config.run import EvaluationConfig, ModelConfig, OutputConfig, RunConfig

__all__ = [
    "GUIDANCE_PHRASES",
    "AdvantageConfig",
    "ClusterConfig",
    "DataConfig",
    "DataSource",
    "DeadlinesConfig",
    "EnginesConfig",
    "EvaluationConfig",
    "GuidanceConfig",
    "HuggingFaceSource",
    "ImportanceConfig",
    "JsonlSource",
    "KlConfig",
    "LayerConfig",
    "LearnerConfig",
    "ModelConfig",
    "ObjectiveConfig",
    "OutputConfig",
    "ReasoningGymSource",
    "ReasoningGymTask",
    "RewardTerm",
    "RewardsConfig",
    "RunConfig",
    "SamplingConfig",
    "WeightsConfig",
]
