"""The sections of recipes, as `mgrpo.config` gives them."""

from mgrpo.config.advantages import GroupZ
from mgrpo.config.alarms import AlarmsConfig
from mgrpo.config.cluster import ClusterConfig, DeadlinesConfig, WeightsConfig
from mgrpo.config.data import (
    DataConfig,
    DataSource,
    MixtureSource,
    ReasoningGymSource,
    ReasoningGymTask,
    RowsSource,
)
from mgrpo.config.engines import EnginesConfig, SamplingConfig
from mgrpo.config.evaluation import EvaluationConfig
from mgrpo.config.guidance import GUIDANCE_PHRASES, CheckGuidance, PhraseGuidance
from mgrpo.config.layers import CorrectLayer, LaterLayer, LayerConfig, SolveLayer, VerifyLayer
from mgrpo.config.learner import KlConfig, LearnerConfig, ObjectiveConfig
from mgrpo.config.losses import PpoClip, Truncate
from mgrpo.config.method_view import MethodView, StepConfig
from mgrpo.config.output import (
    MlflowConfig,
    OutputConfig,
    StorageConfig,
    TensorboardConfig,
    TrackerConfig,
    TrackioConfig,
    WandbConfig,
)
from mgrpo.config.plugins import PhaseConfig, PluginConfig
from mgrpo.config.rewards import CheckTerm, RewardsConfig, RewardTerm
from mgrpo.config.run import CheckpointConfig, ModelConfig, RunConfig

__all__ = [
    "GUIDANCE_PHRASES",
    "AlarmsConfig",
    "CheckGuidance",
    "CheckTerm",
    "CheckpointConfig",
    "ClusterConfig",
    "CorrectLayer",
    "DataConfig",
    "DataSource",
    "DeadlinesConfig",
    "EnginesConfig",
    "EvaluationConfig",
    "GroupZ",
    "KlConfig",
    "LaterLayer",
    "LayerConfig",
    "LearnerConfig",
    "MethodView",
    "MixtureSource",
    "MlflowConfig",
    "ModelConfig",
    "ObjectiveConfig",
    "OutputConfig",
    "PhaseConfig",
    "PhraseGuidance",
    "PluginConfig",
    "PpoClip",
    "ReasoningGymSource",
    "ReasoningGymTask",
    "RewardTerm",
    "RewardsConfig",
    "RowsSource",
    "RunConfig",
    "SamplingConfig",
    "SolveLayer",
    "StepConfig",
    "StorageConfig",
    "TensorboardConfig",
    "TrackerConfig",
    "TrackioConfig",
    "Truncate",
    "VerifyLayer",
    "WandbConfig",
    "WeightsConfig",
]
